"""What a model takes on a machine, computed and not measured: seconds, joules, memory. Pure Python, no tinygrad."""
