"""Benchmarks: `python -m cgpt bench`. What ours are compared with stands in workflows/bench."""
