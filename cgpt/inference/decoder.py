"""A model one token at a time, with the keys and values of all earlier tokens kept in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cgpt.model.gpt import GPT
from cgpt.model.ids import check_ids
from cgpt.model.padding import padded_length

if TYPE_CHECKING:
    from tinygrad import Tensor


class Decoder:
    """A batch of `rows` sequences of up to `length` tokens, each of its own length and independent of the others.

    A layer's cache is (2, B, H, S, D): keys and values, rows, heads, positions, head width. What sequence b sees at
    position t is in row slots[b, t] of it: sequences share what they have in common, and beams move without a copy.
    """

    def __init__(self, model: GPT, rows: int, length: int):
        from cgpt.kernels.tensors import realized

        c = model.config
        if rows < 1 or not 1 <= length <= c.seq_len:
            raise ValueError(f"decoder: {rows} rows of {length} tokens; write 1 row or more of 1 to {c.seq_len} tokens")
        self.model, self.rows, self.length = model, rows, length
        shape = (2, rows, c.n_head, length, c.d_model // c.n_head)
        self.caches = [realized(np.zeros(shape, np.float32), model.device) for _ in range(c.n_layer)]
        self.positions = np.zeros((rows, 1), np.int32)  # where the next token of each sequence goes
        self.slots = np.zeros((rows, length), np.int32)
        state = [*model.state, *self.caches]
        self.captured = model.ops.Captured(model.device, state, model.identity)

    def start(self, rows: slice, tokens: Sequence[int]) -> None:
        """Begin sequences with the same tokens, at most length - 1, in some rows; they are read once."""
        if not 0 <= rows.start < rows.stop <= self.rows or len(tokens) >= self.length:
            raise ValueError(f"decoder: {len(tokens)} tokens in rows {rows.start} to {rows.stop - 1}; "
                             f"it has {self.rows} rows for up to {self.length - 1} and a new one")  # fmt: skip
        check_ids(tokens, self.model.config, "tokens")
        self.slots[rows] = rows.start
        self.positions[rows] = len(tokens)
        if len(tokens):
            padded = np.zeros((1, padded_length(len(tokens), self.length)), np.int32)
            padded[0, : len(tokens)] = tokens
            self.captured(self._prefill, padded, np.array([rows.start], np.int32))

    def step(self, tokens: np.ndarray | Sequence[int]) -> np.ndarray:
        """Append a token to every sequence (B,) and return the logits of the next (B, V), valid until the next step."""
        ids = check_ids(tokens, self.model.config, "tokens")
        if ids.shape != (self.rows,):
            raise ValueError(f"tokens: have shape {ids.shape}; write ({self.rows},): one for each row of the decoder")
        here = self.positions[:, 0]
        self.slots[np.arange(self.rows), here] = np.arange(self.rows)
        new = np.ascontiguousarray(ids, np.int32).reshape(self.rows, 1)
        logits = self.captured(self._step, new, self.positions, self.slots)[0][:, 0]
        np.minimum(here + 1, self.length - 1, out=here)  # a row that nobody reads any more stays at its end
        return logits

    def reorder(self, rows: slice, parents: np.ndarray) -> None:
        """Let each of the rows continue what another one, its parent, has been so far."""
        self.slots[rows] = self.slots[parents]

    def _prefill(self, tokens: Tensor, row: Tensor) -> tuple[Tensor, ...]:
        ops, model, stored = self.model.ops, self.model, []

        def attention(i: int, qkv: Tensor) -> Tensor:
            stored.append(ops.store_prompt(qkv, self.caches[i], row))
            return ops.attention(qkv, model.config.n_head, model.attention_scale(i))

        model.hidden(model.embedding(tokens), True, attention)  # of its last layer only the cache is computed
        return tuple(stored)

    def _step(self, tokens: Tensor, positions: Tensor, slots: Tensor) -> tuple[Tensor]:
        ops, model = self.model.ops, self.model

        def attention(i: int, qkv: Tensor) -> Tensor:
            return ops.cached_attention(qkv, self.caches[i], positions, slots, model.attention_scale(i))

        return (model.head(model.hidden(model.embedding(tokens, positions), True, attention)),)
