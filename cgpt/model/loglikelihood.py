"""Log-likelihoods from a model. A score never depends on what it was batched with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cgpt.errors import UserError
from cgpt.model.gpt import GPT
from cgpt.model.ids import check_ids

TOKENS_PER_BATCH = 4096
NO_TARGET = -1


def padded_length(n: int, longest: int) -> int:
    """The length that a sequence of n tokens is padded to: few distinct ones, so that few shapes are captured."""
    step = 32 if n <= 128 else 64 if n <= 512 else 256
    return min(-(-n // step) * step, longest)


def score(model: GPT, sequences: Sequence[np.ndarray], first: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each token sequence, log p (nats) of tokens[first:] given all before, and whether each is the most likely.

    `sequences[i]` has at most seq_len + 1 tokens, 1 <= first[i] <= its length. Returns a pair of arrays
    (n - first,) float32 and bool per sequence. Raises UserError for a sequence that is too long, ValueError for ids
    that the model has not and for a `first` outside of its sequence.
    """
    longest = model.config.seq_len
    # Sequences that differ in their last token alone, as the choices of a question often do, are one forward pass.
    same_inputs: dict[tuple[bytes, int], list[int]] = {}
    for i, tokens in enumerate(sequences):
        if len(tokens) > longest + 1:
            raise UserError(f"seq_len: a sequence of {len(tokens)} tokens does not fit {longest} + 1; cut it first")
        if not 1 <= first[i] <= len(tokens):
            raise ValueError(f"first: is {first[i]} in a sequence of {len(tokens)} tokens; write 1 to their number")
        check_ids(tokens, model.config, "tokens")
        same_inputs.setdefault((tokens[:-1].tobytes(), first[i]), []).append(i)
    n_targets = max(map(len, same_inputs.values()), default=1)
    shapes: dict[int, list[list[int]]] = {}
    for members in same_inputs.values():
        shapes.setdefault(padded_length(max(1, len(sequences[members[0]]) - 1), longest), []).append(members)
    results: list[Any] = [None] * len(sequences)
    for length, groups in sorted(shapes.items()):
        rows = min(max(1, TOKENS_PER_BATCH // length), 1 << (len(groups) - 1).bit_length())
        for at in range(0, len(groups), rows):
            chunk = groups[at : at + rows]
            heads = [members[0] for members in chunk]
            tokens, one = pad([sequences[i] for i in heads], [first[i] for i in heads], rows, length)
            targets = np.full((rows, length, n_targets), NO_TARGET, np.int32)
            for row, members in enumerate(chunk):
                targets[row, :, : len(members)] = one[row, :, None]
                targets[row, len(sequences[members[0]]) - 2, : len(members)] = [sequences[i][-1] for i in members]
            logprobs, greedy = model.captured(model.token_logprobs, tokens, targets)
            for row, members in enumerate(chunk):
                part = slice(first[members[0]] - 1, len(sequences[members[0]]) - 1)
                for k, i in enumerate(members):
                    results[i] = logprobs[row, part, k].copy(), greedy[row, part, k].astype(bool)
    return results


def pad(sequences: Sequence[np.ndarray], first: Sequence[int], rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (rows, length) int32 for next-token prediction of tokens[first:] of each sequence.

    Padding stands to the right, where a causal model cannot see it; where there is no target it is -1.
    """
    tokens = np.zeros((rows, length), np.int32)
    targets = np.full((rows, length), NO_TARGET, np.int32)
    for row, (sequence, start) in enumerate(zip(sequences, first)):
        n = len(sequence) - 1
        tokens[row, :n] = sequence[:-1]
        targets[row, start - 1 : n] = sequence[start:]
    return tokens, targets
