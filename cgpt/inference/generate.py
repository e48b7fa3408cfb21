"""Continuations of prompts, token by token. No continuation depends on what else is in the batch."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from cgpt.errors import UserError, one_line
from cgpt.inference.decoder import Decoder
from cgpt.inference.search import Beams, Ends, Samples
from cgpt.model.gpt import GPT
from cgpt.model.padding import padded_length
from cgpt.recipe.flops import vocabulary
from cgpt.recipe.generation_config import GenerationConfig
from cgpt.spec import Model

MAX_ROWS = 16  # sequences decoded at once; each costs little while reading the weights is what takes the time
MAX_CACHE_BYTES = 2 << 30

GREEDY = GenerationConfig()


class Generator:
    """Continues prompts with a model. The decoder of the last call is kept, as the next one can often use it again."""

    def __init__(self, model: GPT):
        self.model = model
        self.decoder: Decoder | None = None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int | Sequence[int],
        config: GenerationConfig = GREEDY,
        stop_ids: Collection[int] = (),
        stop: Callable[[list[int]], bool] | None = None,
        on_token: Callable[[int, int], object] | None = None,
    ) -> list[list[int]]:
        """The new tokens of `config.num_return_sequences` continuations of each prompt, one prompt after the other.

        A continuation ends before a token of `stop_ids`, after a token with which `stop(its new tokens)` is true, after
        `max_new_tokens` (one number, or one per prompt), or where the model's context is full.
        `on_token(continuation, token)` is given every token at once, except in beam search. Raises UserError for
        prompts that do not fit the model, and for a model whose logits are not finite; ValueError for what are no ids.
        """
        c = self.model.config
        check_prompts(prompts, c)
        limits = _limits(max_new_tokens, len(prompts))
        searches: list[Samples | Beams] = []
        for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
            ends = Ends(stop_ids, stop, min(limit, c.seq_len - len(prompt)))
            searches.append(Beams(prompt, ends, config) if config.num_beams > 1
                            else Samples(prompt, ends, config, i, on_token))  # fmt: skip
        waiting = deque(search for search in searches if not search.finished)
        active: dict[int, Samples | Beams] = {}  # by its first row; rows that become free begin the next search
        if waiting:
            decoder = self._decoder_for(waiting, config.rows)
            tokens = np.zeros(decoder.rows, np.int32)
        while waiting or active:
            for first in range(0, decoder.rows, config.rows):
                if first not in active and waiting:
                    active[first] = waiting.popleft()
                    *before, tokens[first : first + config.rows] = active[first].prompt
                    decoder.start(slice(first, first + config.rows), before)
            logits = decoder.step(tokens)
            for first, search in list(active.items()):
                rows = slice(first, first + config.rows)
                if not np.isfinite(logits[rows]).all():
                    raise UserError("the model's logits are not finite: its weights are damaged, or its training "
                                    "diverged; take another checkpoint")  # fmt: skip
                tokens[rows], parents = search.advance(logits[rows])
                if search.finished:
                    del active[first]
                elif parents is not None:
                    decoder.reorder(rows, first + parents)
        return [new for search in searches for new in search.best()]

    def _decoder_for(self, searches: Collection[Samples | Beams], rows_each: int) -> Decoder:
        """The decoder of the last call where it has the rows and the length, else a new one."""
        c = self.model.config
        length = max(len(search.prompt) + search.ends.max_new_tokens for search in searches)
        affordable = MAX_CACHE_BYTES // (8 * c.n_layer * c.d_model * length)
        rows = rows_each * min(max(1, min(MAX_ROWS, affordable) // rows_each), len(searches))
        if self.decoder is None or self.decoder.rows != rows or self.decoder.length < length:
            self.decoder = Decoder(self.model, rows, padded_length(length, c.seq_len))
        return self.decoder


def check_prompts(prompts: Iterable[Sequence[int]], config: Model) -> None:
    """Raise UserError for prompts that the model cannot take, ValueError for what are no sequences of whole numbers."""
    seq_len, vocab_size = config.seq_len, vocabulary(config)
    for prompt in prompts:
        _check_whole_numbers(prompt)
        if not len(prompt):
            raise UserError("prompt: is empty; give at least one token (<|endoftext|> starts a document)")
        if len(prompt) >= seq_len:
            raise UserError(
                f"prompt: has {len(prompt)} tokens, the model's context of {seq_len} has room for {seq_len - 1} and "
                "a new one; shorten it"
            )
        unknown = [token for token in prompt if not 0 <= token < vocab_size]
        if unknown:
            raise UserError(f"prompt: token {unknown[0]} is unknown; the model's are 0 to {vocab_size - 1}")


def _check_whole_numbers(prompt: Sequence[int]) -> None:
    if np.ndim(prompt) != 1 or not all(isinstance(token, (int, np.integer)) for token in prompt):
        raise ValueError(f"prompt: is {one_line(repr(prompt), 60)}; write a list of token ids")


def _limits(max_new_tokens: int | Sequence[int], n_prompts: int) -> Sequence[int]:
    """The most new tokens of each prompt. Raises ValueError for other than whole numbers, as many as prompts."""
    limits: Any = [max_new_tokens] * n_prompts if np.ndim(max_new_tokens) == 0 else max_new_tokens
    if len(limits) != n_prompts or not all(isinstance(limit, (int, np.integer)) and limit >= 0 for limit in limits):
        shown = one_line(repr(max_new_tokens), 60)
        raise ValueError(f"max_new_tokens: is {shown}; write a whole number, or one for each prompt")
    return limits
