"""Weight matrices kept in 16 or 8 bits, for models that are read and not trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cgpt.errors import UserError
from cgpt.files.mapped import release

if TYPE_CHECKING:
    from tinygrad import Tensor

    from cgpt.kernels.tensors import Placement

TYPES = ("float32", "bfloat16", "int8")  # of weights, as decode.c numbers them
LARGEST = 127  # of int8; -128 is left out, so that a weight and its negative are rounded alike


@dataclass(frozen=True)
class Rounded:
    """A matrix of products, (n_out, n_in): output o is `values[o] * scales[o]`; int8, or the upper 16 bits of float32.

    `shape` is that of the parameter, and `transposed` whether it is (n_in, n_out), as GPT-2 has all but embeddings.
    """

    values: Tensor
    scales: Tensor
    dtype: str
    shape: tuple[int, int]
    transposed: bool

    def numpy(self) -> np.ndarray:
        """The parameter that the model computes with, float32."""
        from cgpt.kernels.tensors import read

        values = read(self.values)
        if self.dtype == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        matrix = values.astype(np.float32) * read(self.scales)[:, None]
        return np.ascontiguousarray(matrix.T) if self.transposed else matrix


def rounded(matrix: np.ndarray, dtype: str, transposed: bool, device: Placement) -> Rounded:
    """A float32 parameter in fewer bits; an output's largest weight becomes 127 or -127 where that is int8.

    Pages of a file in which the parameter is mapped are given back. Raises UserError where a weight is not finite.
    """
    from cgpt.kernels.tensors import realized

    if not np.isfinite([matrix.min(), matrix.max()]).all():  # of which int8 would make any number
        raise UserError(f"weights_dtype: a weight of the model is not finite and cannot be rounded to {dtype}; take "
                        "another checkpoint, or a profile with float32")  # fmt: skip
    by_output = matrix.T if transposed else matrix
    values, scales = round_int8(by_output) if dtype == "int8" else round_bfloat16(by_output)
    release(matrix)
    return Rounded(realized(values, device), realized(scales, device), dtype, matrix.shape, transposed)


def round_int8(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n_out, n_in) int8 from -127 to 127, and a scale for each output (n_out,) float32."""
    largest = np.maximum(matrix.max(1), -matrix.min(1))
    scales = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1)).astype(np.float32)
    values = np.empty(matrix.shape, np.int8)
    for row, scale, of_row in zip(matrix, scales, values):  # a row at a time, so that no second matrix is in memory
        np.rint(row / scale, out=of_row, casting="unsafe")
    return values, scales


def round_bfloat16(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper 16 bits of each number (n_out, n_in), rounded to nearest with ties to even, and scales of 1."""
    values = np.empty(matrix.shape, np.uint16)
    for row, of_row in zip(matrix, values):
        bits = np.ascontiguousarray(row).view(np.uint32)
        of_row[:] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return values, np.ones(len(matrix), np.float32)
