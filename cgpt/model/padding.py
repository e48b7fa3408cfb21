"""Token sequences of many lengths as arrays of few shapes, so that few are captured."""

from collections.abc import Sequence

import numpy as np

NO_TARGET = -1


def padded_length(n: int, longest: int) -> int:
    """The length that a sequence of n tokens is padded to."""
    step = 32 if n <= 128 else 64 if n <= 512 else 256
    return min(-(-n // step) * step, longest)


def pad(sequences: Sequence[np.ndarray], first: Sequence[int], rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (rows, length) int32 for next-token prediction of tokens[first:] of each sequence.

    Padding stands to the right, where a causal model cannot see it; where there is no target it is NO_TARGET.
    """
    tokens = np.zeros((rows, length), np.int32)
    targets = np.full((rows, length), NO_TARGET, np.int32)
    for row, (sequence, start) in enumerate(zip(sequences, first)):
        n = len(sequence) - 1
        tokens[row, :n] = sequence[:-1]
        targets[row, start - 1 : n] = sequence[start:]
    return tokens, targets
