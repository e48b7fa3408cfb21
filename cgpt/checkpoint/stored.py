"""Tensors that stay in their files until they are asked for, one by one."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

FLOATS = ("float32", "float16", "bfloat16")  # what weights may be stored as; NumPy has no bfloat16


class Stored(NamedTuple):
    """A tensor in a file: its shape, the name of its type there, and what reads it; of `FLOATS` as float32."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


class Weights(Mapping[str, np.ndarray]):
    """Tensors by name, each read anew whenever it is asked for, so that no more than one need be in memory."""

    def __init__(self, stored: Mapping[str, Stored]):
        self.stored = dict(stored)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def as_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values of a type of `FLOATS` in float32, others as they are; bfloat16, the upper half of it, comes as uint16."""
    if dtype == "bfloat16":
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32, copy=False) if dtype in FLOATS else values
