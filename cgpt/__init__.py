"""cgpt: declarative experiments and benchmarks for GPT scaling studies, on tinygrad."""

__version__ = "0.1.0"
