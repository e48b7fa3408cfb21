"""Benchmarks: `cgpt bench`. What ours are compared with stands in workflows/bench."""
