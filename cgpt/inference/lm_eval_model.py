"""Our GPT as a model of lm-evaluation-harness: the three requests of `lm_eval.api.model.LM`."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, partialmethod
from typing import Any, NamedTuple

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer

from cgpt.data.end_tokens import END_OF_TEXT, end_of_text_tokens
from cgpt.data.tokenizer import token_ids
from cgpt.errors import UserError
from cgpt.inference.generate import Generator
from cgpt.inference.stop_strings import StopStrings
from cgpt.model.gpt import GPT
from cgpt.model.loglikelihood import score
from cgpt.tasks.decoding import n_new_tokens, read_options

CONTINUATIONS_PER_CALL = 128
PROGRESS_EVERY_S = 10.0

Pair = tuple[list[int], list[int]]  # the tokens of a context and of what is scored after it


class Cut(NamedTuple):
    """The end of a prompt that the model saw, as it is too long for it, and the number of tokens before that end."""

    text: str
    n_tokens: int


class Adapter(TemplateLM):
    """Answers lm-evaluation-harness's requests with a model and its tokenizer.

    `cuts` holds, by prompt and answer (None where the model writes the answer), every prompt that was too long.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer):
        """Raises UserError for a tokenizer without a token that ends texts."""
        super().__init__()
        self.model, self.tokenizer, self.generator = model, tokenizer, Generator(model)
        self.max_length: int = model.config.seq_len
        ends = model.ends or end_of_text_tokens(tokenizer)
        if ends.end is None or ends.before_text is None:
            raise UserError(
                f"tokenizer.json: added_tokens: has no {END_OF_TEXT}, and no file beside it names an end token "
                "(eos_token, eos_token_id); use the tokenizer of the checkpoint"
            )
        self._end, self._before_text, self._stop_ids = ends.end, ends.before_text, {ends.end, *ends.stop}
        self._begin_text: str = tokenizer.decode([ends.before_text], skip_special_tokens=False)
        self.cuts: dict[tuple[str, str | None], Cut] = {}
        self._token_ids = lru_cache(maxsize=8)(token_ids)  # a prompt is asked for once a choice

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
        return list(self._token_ids(self.tokenizer, string, add_special_tokens))

    def encode_pair(self, context: str, continuation: str) -> Pair:
        """Tokens of a context and of a text after it, split as lm-evaluation-harness splits them. A context without
        tokens is the token that ends a text."""
        before, after = super()._encode_pair(context, continuation)
        return before or [self._end], after

    _encode_pair = encode_pair  # its name there
    loglikelihood = partialmethod(TemplateLM.loglikelihood, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Sequence, **kwargs: Any) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation, and whether greedy decoding would give it."""
        for (prompt, answer), context, continuation in requests:
            if not continuation:
                raise UserError(
                    f"the answer {answer!r} has no token of its own; start it with a space (target_delimiter)"
                )
            self._note_cut((prompt, answer), context, n_tokens_cut(len(context), len(continuation), self.max_length))
        windows = Windows([(context, continuation) for _, context, continuation in requests], self.max_length)
        return windows.totals(score(self.model, windows.tokens, windows.first, windows.progress.show))

    def loglikelihood_rolling(self, requests: Sequence, disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each whole text, given the token that begins texts, in windows of the model's
        length."""
        texts = [([self._before_text], self.tok_encode(request.args[0])) for request in requests]
        windows = Windows(texts, self.max_length)
        scored = score(self.model, windows.tokens, windows.first, windows.progress.show)
        return [total for total, _ in windows.totals(scored)]

    def generate_until(self, requests: Sequence, disable_tqdm: bool = False) -> list[str]:
        """Continuation of each context as its options say, cut before the first stop string.

        Raises UserError for options that the decoder does not offer.
        """
        answers: dict[int, str] = {}
        alike: dict[str, list[int]] = {}
        for n, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(n)
        for members in alike.values():
            options = read_options(requests[members[0]].args[1])
            n_new = n_new_tokens(options.max_new_tokens, self.max_length)
            stop = StopStrings(self.tokenizer, options.until)
            prompts = [self._prompt(requests[n].args[0], self.max_length - n_new) for n in members]
            progress = Progress(len(members), "continuations")
            for start in range(0, len(members), CONTINUATIONS_PER_CALL):
                part = slice(start, start + CONTINUATIONS_PER_CALL)
                config = replace(options.config, seed=options.config.seed + start)  # each answer is drawn for itself
                new = self.generator.generate(prompts[part], n_new, config, self._stop_ids, stop)
                answers |= zip(members[part], (stop.cut(self.tokenizer.decode(tokens)) for tokens in new))
                progress.show(start + len(new))
        return [answers[n] for n in range(len(requests))]

    def _prompt(self, context: str, n_kept: int) -> list[int]:
        """The last tokens of a context, or the token that begins texts where it has none."""
        tokens = self.tok_encode(context) or [self._before_text]
        self._note_cut((context, None), tokens, max(0, len(tokens) - n_kept))
        return tokens[-n_kept:]

    def _note_cut(self, texts: tuple[str, str | None], prompt: list[int], n_tokens: int) -> None:
        if n_tokens:
            self.cuts[texts] = Cut(self.tokenizer.decode(prompt[n_tokens:]), n_tokens)


class Windows:
    """Contexts and what is scored after them as sequences that a model can take, in `tokens`: at most seq_len + 1 each,
    scored from `first` on.

    A long context loses its start, as in lm-evaluation-harness's own models. What is longer than the model is scored in
    windows, each token once, with as much context as fits.
    """

    def __init__(self, pairs: Sequence[Pair], seq_len: int):
        self.n_pairs = len(pairs)
        self.tokens: list[np.ndarray] = []
        self.first: list[int] = []
        self._pair: list[int] = []  # that a window is a part of
        for n, (context, continuation) in enumerate(pairs):
            if len(continuation) > seq_len:
                pieces = get_rolling_token_windows(continuation, context[-1], seq_len, 1)
                for left, right in map(make_disjoint_window, pieces):
                    self._add(n, left, right)
            elif continuation:
                self._add(n, context[len(continuation) - seq_len - 1 :], continuation)
        self.progress = Progress(len(self.tokens), "sequences")

    def _add(self, pair: int, left: list[int], right: list[int]) -> None:
        self._pair.append(pair)
        self.tokens.append(np.array([*left, *right], np.int32))
        self.first.append(len(left))

    def totals(self, scored: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, bool]]:
        """Sum of the log-probabilities of each pair's tokens, and whether all are the most likely, of those of the
        windows. Raises UserError for one that is not finite."""
        totals, greedy = [0.0] * self.n_pairs, [True] * self.n_pairs
        for pair, (logprobs, matches) in zip(self._pair, scored):
            totals[pair] += float(np.sum(logprobs, dtype=np.float64))
            greedy[pair] &= bool(np.all(matches))
        if not np.isfinite(totals).all():
            worst = totals[int(np.argmin(np.isfinite(totals)))]
            raise UserError(f"the model's log-likelihoods are not finite ({worst}): its weights are damaged, or its "
                            "training diverged; train it again")  # fmt: skip
        return list(zip(totals, greedy))


def n_tokens_cut(n_prompt: int, n_answer: int, seq_len: int) -> int:
    """Number of a prompt's first tokens that a model of `seq_len` does not see when it scores an answer to it.

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
