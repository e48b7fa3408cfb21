"""Continuations of prompts, token by token. No continuation depends on what else is in the batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

import numpy as np

from cgpt.decode import Decoder
from cgpt.errors import UserError
from cgpt.model import GPT
from cgpt.score import padded_length

MAX_ROWS = 16  # sequences decoded at once; each costs little while reading the weights is what takes the time


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    stop: Callable[[list[int]], bool] | None = None,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token.

    One ends before a token of `stop_ids`, after a token with which `stop(its new tokens)` is true, after
    `max_new_tokens`, or where the model's context is full. Raises UserError for a prompt that is empty or too long.
    """
    check_prompts(prompts, model.config.seq_len, model.config.vocab_size)
    continuations: list[list[int]] = [[] for _ in prompts]
    if max_new_tokens < 1 or not prompts:
        return continuations
    lengths = [min(len(prompt) + max_new_tokens, model.config.seq_len) for prompt in prompts]
    decoder = _decoder(model, min(MAX_ROWS, len(prompts)), max(lengths))
    waiting, active = deque(range(len(prompts))), dict[int, int]()  # row -> prompt
    tokens = np.zeros(decoder.rows, np.int32)
    while waiting or active:
        for row in range(decoder.rows):
            if row not in active and waiting:
                active[row] = waiting.popleft()
                *before, tokens[row] = prompts[active[row]]
                decoder.start([row], before)
        tokens = decoder.step(tokens).argmax(-1)
        for row, i in list(active.items()):
            token, new = int(tokens[row]), continuations[i]
            if token not in stop_ids:
                new.append(token)
                if len(prompts[i]) + len(new) < lengths[i] and not (stop and stop(new)):
                    continue
            del active[row]
    return continuations


def check_prompts(prompts: Sequence[Sequence[int]], seq_len: int, vocab_size: int | None) -> None:
    """Raise UserError for prompts that the model cannot take."""
    for prompt in prompts:
        if not prompt:
            raise UserError("prompt: is empty; give at least one token (<|endoftext|> starts a document)")
        if len(prompt) >= seq_len:
            raise UserError(
                f"prompt: has {len(prompt)} tokens, the model's context of {seq_len} has room for {seq_len - 1} and "
                "a new one; shorten it"
            )
        unknown = [token for token in prompt if not 0 <= token < (vocab_size or 0)]
        if unknown:
            raise UserError(f"prompt: token {unknown[0]} is unknown; the model's are 0 to {(vocab_size or 0) - 1}")


def _decoder(model: GPT, rows: int, length: int) -> Decoder:
    """The decoder of the model's last generation where it is large enough, else a new one."""
    kept = model.decoder
    if kept is None or kept.rows != rows or kept.length < length:
        model.decoder = kept = Decoder(model, rows, padded_length(length, model.config.seq_len))
    return kept
