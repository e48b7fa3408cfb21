"""Arrays into tinygrad's buffers and back into the same ones, without a graph: building it costs 3 ms a tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
from tinygrad import Tensor
from tinygrad.dtype import _from_np_dtype

_without_memory: ContextVar[bool] = ContextVar("without memory", default=False)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Tensors made inside have a shape and no memory: for models that are looked at and never run."""
    token = _without_memory.set(True)
    try:
        yield
    finally:
        _without_memory.reset(token)


def unwritten(array: np.ndarray, device: str | None) -> Tensor:
    """A tensor of the array's shape and type, whose memory is not even allocated yet."""
    return Tensor.empty(*array.shape, dtype=_from_np_dtype(array.dtype), device=device)


def realized(array: np.ndarray, device: str | None) -> Tensor:
    """A tensor that holds the array's values."""
    tensor = unwritten(array, device)
    if not _without_memory.get():
        tensor.uop.base.buffer.allocate()
        write(tensor, array)
    return tensor


def write(tensor: Tensor, array: np.ndarray) -> None:
    """Overwrite a realised tensor in place, also under functions that have captured it."""
    tensor.uop.base.buffer.copyin(np.ascontiguousarray(array).data.cast("B"))
