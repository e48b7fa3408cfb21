"""Our GPT as a model of lm-evaluation-harness: the three requests of `lm_eval.api.model.LM`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from cgpt.data.end_tokens import END_OF_TEXT, EndTokens, end_of_text_tokens
from cgpt.data.tokenizer import token_ids
from cgpt.errors import UserError
from cgpt.inference.stop_strings import StopStrings
from cgpt.tasks.decoding import Decoding, decoding, n_new_tokens

SEQUENCES_PER_CALL = 2048  # many, as each call batches by length; scores do not depend on it
CONTINUATIONS_PER_CALL = 128
PROGRESS_EVERY_S = 10.0

Score = Callable[[Any, list[np.ndarray], list[int]], list[tuple[np.ndarray, np.ndarray]]]
Generate = Callable[..., list[list[int]]]


class Cut(NamedTuple):
    """What the model saw of a prompt that is too long for it, and how many of its first tokens it did not."""

    text: str
    n_tokens: int


class Adapter(TemplateLM):
    """Answers lm-evaluation-harness's requests with a model, its tokenizer, `score.score` and `generate.generate`.

    `cuts` holds, by prompt and answer (None where the model writes the answer), every prompt that did not fit.
    """

    def __init__(self, model: Any, tokenizer: Any, score: Score, generate: Generate):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self._score, self._generate = score, generate
        self.max_length: int = model.config.seq_len
        self.ends: EndTokens = getattr(model, "ends", None) or end_of_text_tokens(tokenizer)
        if self.ends.end is None or self.ends.before_text is None:
            raise UserError(
                f"tokenizer.json: added_tokens: has no {END_OF_TEXT}, and no file beside it names an end token "
                "(eos_token, eos_token_id); use the tokenizer of the checkpoint"
            )
        self._end: int = self.ends.end
        self._before_text: int = self.ends.before_text
        self._begin_text: str = tokenizer.decode([self._before_text], skip_special_tokens=False)
        self.cuts: dict[tuple[str, str | None], Cut] = {}

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        return self._before_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text, with those that the tokenizer adds at its ends, if any, as lm-evaluation-harness's
        Hugging Face models have them: not where it begins with its first token already."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._begin_text)
        return token_ids(self.tokenizer, string, add_special_tokens)

    def loglikelihood(self, requests: Sequence, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As in lm-evaluation-harness, without its progress bar."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Sequence, **kwargs: Any) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation, and whether greedy decoding would give it."""
        for (_, answer), _, continuation in requests:
            if not continuation:
                raise UserError(
                    f"the answer {answer!r} has no token of its own; start it with a space (target_delimiter)"
                )
        pairs = [(context or [self.eot_token_id], continuation) for _, context, continuation in requests]
        for (texts, _, _), (context, continuation) in zip(requests, pairs):
            self._note_cut(texts, context, n_tokens_cut(len(context), len(continuation), self.max_length))
        answers = self._score_pairs(pairs)
        for (texts, _, _), answer in zip(requests, answers):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence, disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each whole text, given the token that begins texts, in windows of the model's
        length."""
        texts = [request.args[0] for request in requests]
        pairs = [([self.prefix_token_id], self.tok_encode(text)) for text in texts]
        answers = [total for total, _ in self._score_pairs(pairs)]
        for text, answer in zip(texts, answers):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
        return answers

    def generate_until(self, requests: Sequence, disable_tqdm: bool = False) -> list[str]:
        """Continuation of each context as its options say, cut before the first stop string.

        Raises UserError for options that the decoder does not offer.
        """
        answers: list[Any] = [None] * len(requests)
        alike: dict[str, list[int]] = {}
        for n, (_, options) in enumerate(request.args for request in requests):
            alike.setdefault(json.dumps(options, sort_keys=True), []).append(n)
        for members in alike.values():
            asked = decoding(requests[members[0]].args[1])
            texts = self._continue([requests[n].args[0] for n in members], asked)
            for n, text in zip(members, texts):
                answers[n] = text
                self.cache_hook.add_partial("generate_until", requests[n].args, text)
        return answers

    def _continue(self, contexts: list[str], asked: Decoding) -> list[str]:
        n_new = n_new_tokens(asked.max_new_tokens, self.max_length)
        stop = StopStrings(self.tokenizer, asked.until)
        kept = self.max_length - n_new
        prompts = []
        for context in contexts:
            tokens = self.tok_encode(context) or [self.prefix_token_id]
            self._note_cut((context, None), tokens, max(0, len(tokens) - kept))
            prompts.append(tokens[-kept:])
        progress = Progress(len(prompts), "continuations")
        texts: list[str] = []
        for start in range(0, len(prompts), CONTINUATIONS_PER_CALL):
            chunk = prompts[start : start + CONTINUATIONS_PER_CALL]
            config = replace(asked.config, seed=asked.config.seed + start)  # each answer is drawn for itself
            made = self._generate(self.model, chunk, n_new, config, {self.eot_token_id, *self.ends.stop}, stop)
            texts += [stop.cut(self.tokenizer.decode(tokens)) for tokens in made]
            progress.show(len(texts))
        return texts

    def _score_pairs(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Sum the token log-probabilities of every (context, continuation), longest first, in the order given."""
        windows = [(pair, *window) for pair, (left, right) in enumerate(pairs) for window in self._windows(left, right)]
        order = sorted(range(len(windows)), key=lambda n: -len(windows[n][1]))
        scored: list[Any] = [None] * len(windows)
        progress = Progress(len(order), "sequences")
        for start in range(0, len(order), SEQUENCES_PER_CALL):
            chunk = order[start : start + SEQUENCES_PER_CALL]
            tokens, first = [windows[n][1] for n in chunk], [windows[n][2] for n in chunk]
            for n, answer in zip(chunk, self._score(self.model, tokens, first)):
                scored[n] = answer
            progress.show(start + len(chunk))
        totals, greedy = [0.0] * len(pairs), [True] * len(pairs)
        for (pair, _, _), (logprobs, matches) in zip(windows, scored):
            totals[pair] += float(np.sum(logprobs, dtype=np.float64))
            greedy[pair] &= bool(np.all(matches))
        if not np.isfinite(totals).all():
            worst = totals[int(np.argmin(np.isfinite(totals)))]
            raise UserError(f"the model's log-likelihoods are not finite ({worst}): its weights are damaged, or its "
                            "training diverged; train it again")  # fmt: skip
        return list(zip(totals, greedy))

    def _note_cut(self, texts: tuple[str, str | None], prompt: list[int], n_tokens: int) -> None:
        if n_tokens:
            self.cuts[texts] = Cut(self.tokenizer.decode(prompt[n_tokens:]), n_tokens)

    def _windows(self, context: list[int], continuation: list[int]) -> list[tuple[np.ndarray, int]]:
        """Cut to (tokens, index of the first scored one), at most max_length + 1 tokens each.

        A long context loses its start, as in lm-evaluation-harness's own models. A continuation longer than the model
        is scored in windows, each token once, with as much context as fits.
        """
        if len(continuation) <= self.max_length:
            tokens = (context + continuation)[-(self.max_length + 1) :]
            return [(np.array(tokens, np.int32), len(tokens) - len(continuation))] if continuation else []
        pieces = get_rolling_token_windows(continuation, context[-1], self.max_length, 1)
        pairs = map(make_disjoint_window, pieces)
        return [(np.array(left + right, np.int32), len(left)) for left, right in pairs]


def n_tokens_cut(n_prompt: int, n_answer: int, seq_len: int) -> int:
    """How many of a prompt's first tokens a model of `seq_len` does not see when it scores an answer to it.

    It reads all tokens but the last; of an answer longer than that only the last token of the prompt is seen.
    """
    return max(0, min(n_prompt - 1, n_prompt + n_answer - seq_len - 1))


class Progress:
    """A line on standard error every ten seconds."""

    def __init__(self, total: int, what: str):
        self.total, self.what = total, what
        self._started = self._shown = time.monotonic()

    def show(self, done: int) -> None:
        """Say how many of the total are done."""
        now = time.monotonic()
        if now - self._shown > PROGRESS_EVERY_S:
            self._shown = now
            print(f"evaluate: {done:,} of {self.total:,} {self.what}, {now - self._started:.0f} s", file=sys.stderr)
