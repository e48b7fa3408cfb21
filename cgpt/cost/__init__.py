"""Seconds, joules and memory that a model takes on a machine, computed and not measured. Pure Python, no tinygrad."""
