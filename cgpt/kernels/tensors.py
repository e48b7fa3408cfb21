"""Arrays into tinygrad's buffers and back into the same ones, without a graph: building it costs 3 ms a tensor."""

from __future__ import annotations

import numpy as np
from tinygrad import Tensor
from tinygrad.dtype import _from_np_dtype


def unwritten(array: np.ndarray, device: str | None) -> Tensor:
    """A tensor of the array's shape and type, whose memory is not even allocated yet."""
    return Tensor.empty(*array.shape, dtype=_from_np_dtype(array.dtype), device=device)


def realized(array: np.ndarray, device: str | None) -> Tensor:
    """A tensor that holds the array's values."""
    tensor = unwritten(array, device)
    tensor.uop.base.buffer.allocate()
    write(tensor, array)
    return tensor


def write(tensor: Tensor, array: np.ndarray) -> None:
    """Overwrite a realised tensor in place, also under functions that have captured it."""
    tensor.uop.base.buffer.copyin(np.ascontiguousarray(array).data.cast("B"))
