"""Continuations of prompts, token by token. No continuation depends on what else is in the batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

import numpy as np

from cgpt.errors import UserError
from cgpt.inference.decoder import Decoder
from cgpt.inference.search import Beams, Ends, Samples
from cgpt.model.gpt import GPT
from cgpt.model.loglikelihood import padded_length
from cgpt.recipe.generation_config import GenerationConfig

MAX_ROWS = 16  # sequences decoded at once; each costs little while reading the weights is what takes the time
MAX_CACHE_BYTES = 2 << 30

GREEDY = GenerationConfig()


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    config: GenerationConfig = GREEDY,
    stop_ids: Collection[int] = (),
    stop: Callable[[list[int]], bool] | None = None,
    on_token: Callable[[int, int], object] | None = None,
) -> list[list[int]]:
    """The new tokens of `config.num_return_sequences` continuations of each prompt, one prompt after the other.

    A continuation ends before a token of `stop_ids`, after a token with which `stop(its new tokens)` is true, after
    `max_new_tokens` (one number, or one per prompt), or where the model's context is full. `on_token(continuation,
    token)` is told every token at once, except in beam search. Raises UserError for prompts that do not fit the model,
    and for a model whose logits are not finite.
    """
    check_prompts(prompts, model.config.seq_len, model.config.vocab_size)
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    limits = [min(limit, model.config.seq_len - len(prompt)) for limit, prompt in zip(limits, prompts, strict=True)]
    searches: list[Samples | Beams | None] = [
        _search(i, prompt, Ends(stop_ids, stop, limit), config, on_token) if limit > 0 else None
        for i, (prompt, limit) in enumerate(zip(prompts, limits))
    ]
    _run([search for search in searches if search], model, config.rows)
    return [new for search in searches for new in (search.best() if search else [[]] * config.num_return_sequences)]


def _search(
    i: int, prompt: Sequence[int], ends: Ends, config: GenerationConfig, on_token: Callable[[int, int], object] | None
) -> Samples | Beams:
    if config.num_beams > 1:
        return Beams(prompt, ends, config)
    first = i * config.num_return_sequences
    told = (lambda n, token: on_token(first + n, token)) if on_token else None
    return Samples(prompt, ends, config, (config.seed, i), told)


def _run(searches: Sequence[Samples | Beams], model: GPT, n: int) -> None:
    """Advance every search, each on `n` rows of a batch, to its end. Rows that become free begin the next one."""
    if not searches:
        return
    length = max(len(search.prompt) + search.ends.max_new_tokens for search in searches)
    affordable = MAX_CACHE_BYTES // (8 * model.config.n_layer * model.config.d_model * length)
    decoder = _decoder(model, n * min(max(1, min(MAX_ROWS, affordable) // n), len(searches)), length)
    waiting, active = deque(searches), dict[int, Samples | Beams]()  # by first row
    tokens = np.zeros(decoder.rows, np.int32)
    while waiting or active:
        for first in range(0, decoder.rows, n):
            if first not in active and waiting:
                active[first] = waiting.popleft()
                *before, tokens[first : first + n] = active[first].prompt
                decoder.start(slice(first, first + n), before)
        logits = decoder.step(tokens)
        for first, search in list(active.items()):
            rows = slice(first, first + n)
            if not np.isfinite(logits[rows]).all():
                raise UserError("the model's logits are not finite: its weights are damaged, or its training diverged; "
                                "take another checkpoint")  # fmt: skip
            tokens[rows], parents = search.advance(logits[rows])
            if search.finished:
                del active[first]
            elif parents is not None:
                decoder.reorder(rows, first + parents)


def check_prompts(prompts: Sequence[Sequence[int]], seq_len: int, vocab_size: int | None) -> None:
    """Raise UserError for prompts that the model cannot take."""
    assert vocab_size is not None, "vocab_size is resolved when the run is planned"
    for prompt in prompts:
        if not prompt:
            raise UserError("prompt: is empty; give at least one token (<|endoftext|> starts a document)")
        if len(prompt) >= seq_len:
            raise UserError(
                f"prompt: has {len(prompt)} tokens, the model's context of {seq_len} has room for {seq_len - 1} and "
                "a new one; shorten it"
            )
        unknown = [token for token in prompt if not 0 <= token < vocab_size]
        if unknown:
            raise UserError(f"prompt: token {unknown[0]} is unknown; the model's are 0 to {vocab_size - 1}")


def _decoder(model: GPT, rows: int, length: int) -> Decoder:
    """The decoder of the model's last generation where it fits, else a new one."""
    kept = model.decoder
    if kept is None or kept.rows != rows or kept.length < length:
        model.decoder = kept = Decoder(model, rows, padded_length(length, model.config.seq_len))
    return kept
