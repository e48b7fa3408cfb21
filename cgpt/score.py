"""Log-likelihoods and greedy continuations from a model. A score never depends on what it was batched with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cgpt.errors import UserError
from cgpt.model import GPT

TOKENS_PER_BATCH = 4096
NO_TARGET = -1


def padded_length(n: int, longest: int) -> int:
    """The length that a sequence of n tokens is padded to: few distinct ones, so that few shapes are captured."""
    step = 32 if n <= 128 else 64 if n <= 512 else 256
    return min(-(-n // step) * step, longest)


def score(model: GPT, sequences: Sequence[np.ndarray], first: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each token sequence, log p (nats) of tokens[first:] given all before, and whether each is the most likely.

    `sequences[i]` has at most seq_len + 1 tokens, 1 <= first[i] <= its length. Returns a pair of arrays
    (n - first,) float32 and bool per sequence. Raises UserError for a sequence that is too long.
    """
    longest = model.config.seq_len
    results: list[Any] = [None] * len(sequences)
    shapes: dict[int, list[int]] = {}
    for i, tokens in enumerate(sequences):
        if len(tokens) > longest + 1:
            raise UserError(f"seq_len: a sequence of {len(tokens)} tokens does not fit {longest} + 1; cut it first")
        shapes.setdefault(padded_length(max(1, len(tokens) - 1), longest), []).append(i)
    for length, members in sorted(shapes.items()):
        rows = min(max(1, TOKENS_PER_BATCH // length), 1 << (len(members) - 1).bit_length())
        for at in range(0, len(members), rows):
            chunk = members[at : at + rows]
            tokens, targets = pad([sequences[i] for i in chunk], [first[i] for i in chunk], rows, length)
            logprobs, greedy = (y.numpy() for y in model.captured(model.token_logprobs, tokens, targets))
            for row, i in enumerate(chunk):
                part = slice(first[i] - 1, len(sequences[i]) - 1)
                results[i] = logprobs[row, part], greedy[row, part].astype(bool)
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


def generate(model: GPT, prompt: Sequence[int], max_new_tokens: int, stop_ids: Sequence[int] = ()) -> list[int]:
    """The most likely continuation, token by token, up to a stop token (not returned) or a full context."""
    tokens = list(prompt)
    if not tokens:
        raise UserError("prompt: is empty; give at least one token (<|endoftext|> starts a document)")
    longest = model.config.seq_len
    for _ in range(min(max_new_tokens, longest - len(tokens))):
        padded = np.zeros((1, padded_length(len(tokens), longest)), np.int32)
        padded[0, : len(tokens)] = tokens
        logits = model.captured(model.logits, padded)[0].numpy()
        tokens.append(int(logits[0, len(tokens) - 1].argmax()))
        if tokens[-1] in stop_ids:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]
