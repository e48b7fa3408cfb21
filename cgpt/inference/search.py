"""Continuations of one prompt while they grow: each on its own, or as the beams of a search."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from cgpt.inference.sampling import draw, process
from cgpt.recipe.generation_config import GenerationConfig

NEVER = np.float32(-1e9)  # the score of what is never taken, as in transformers


@dataclass(frozen=True)
class Ends:
    """Ends of a continuation: a token (which is left out), a text (which is kept), or a number of tokens."""

    stop_ids: Collection[int]
    stop: Callable[[list[int]], bool] | None
    max_new_tokens: int

    def after(self, new: list[int]) -> bool:
        """Whether the new tokens are at an end."""
        return len(new) >= self.max_new_tokens or new[-1] in self.stop_ids or bool(self.stop and self.stop(new))

    def without_stop_id(self, new: list[int]) -> list[int]:
        """The tokens without the one that only says that it is the end."""
        return new[:-1] if new and new[-1] in self.stop_ids else new


class Samples:
    """Continuations that do not know of each other; each has a random generator of its own."""

    def __init__(
        self,
        prompt: Sequence[int],
        ends: Ends,
        config: GenerationConfig,
        number: int,
        on_token: Callable[[int, int], object] | None = None,
    ):
        """The prompt with its number among the prompts; `on_token(number of the continuation, token)` is told all."""
        n = config.num_return_sequences
        self.prompt, self.ends, self.config, self._on_token = list(prompt), ends, config, on_token
        self._first = number * n  # of its continuations among those of all prompts
        self._random = [np.random.default_rng([config.seed, number, i]) for i in range(n)]
        self._new: list[list[int]] = [[] for _ in range(n)]
        self._open = [ends.max_new_tokens > 0] * n

    @property
    def finished(self) -> bool:
        """Whether every continuation has ended."""
        return not any(self._open)

    def advance(self, logits: np.ndarray) -> tuple[list[int], None]:
        """Take the logits of the next token (n, V); return the tokens and that each row follows itself."""
        for i, new in enumerate(self._new):
            if not self._open[i]:
                continue
            scores = process(logits[i], self.prompt + new, self.config)
            new.append(draw(scores, self.config, self._random[i]))
            self._open[i] = not self.ends.after(new)
            if self._on_token and new[-1] not in self.ends.stop_ids:
                self._on_token(self._first + i, new[-1])
        return [new[-1] for new in self._new], None

    def best(self) -> list[list[int]]:
        """The new tokens of every continuation."""
        return [self.ends.without_stop_id(new) for new in self._new]


class Beams:
    """Beam search as in transformers 5: `num_beams` running sequences, and as many finished ones, the best so far.

    A finished score is the sum of its tokens' log-probabilities over its length to the power of `length_penalty`.
    """

    def __init__(self, prompt: Sequence[int], ends: Ends, config: GenerationConfig):
        n = config.num_beams
        self.prompt, self.ends, self.config = list(prompt), ends, config
        self._running: list[list[int]] = [[] for _ in range(n)]
        self._scores = np.full(n, NEVER)  # of the running sequences; at first they are all the same one
        self._scores[0] = 0
        self._ended = ends.max_new_tokens < 1  # or every candidate for a running sequence was at an end
        self._done: list[tuple[np.float32, list[int]]] = [(NEVER, [])] * n if self._ended else []  # best first
        self._hopeful = True  # a running sequence may still get among the best

    @property
    def finished(self) -> bool:
        """Whether the search is over."""
        full = len(self._done) == self.config.num_beams
        return not self._hopeful or self._ended or (full and self.config.early_stopping is True)

    def advance(self, logits: np.ndarray) -> tuple[list[int], np.ndarray]:
        """Take the logits of the next token (n, V); return each beam's token and the beam that it continues."""
        n, vocab = logits.shape
        totals = np.empty_like(logits)
        for beam, new in enumerate(self._running):
            shifted = logits[beam] - logits[beam].max()
            log_probs = shifted - np.log(np.exp(shifted).sum())
            totals[beam] = process(log_probs, self.prompt + new, self.config) + self._scores[beam]
        n_candidates = min(max(2, 1 + len(self.ends.stop_ids)) * n, totals.size)
        best = largest(totals.ravel(), n_candidates)
        parents, scores = best // vocab, totals.ravel()[best]
        candidates = [[*self._running[beam], int(token)] for beam, token in zip(parents, best % vocab)]
        ends = np.array([self.ends.after(candidate) for candidate in candidates])
        self._finish(candidates[:n], scores[:n], ends[:n])
        going_on = largest(scores + ends * NEVER, n)
        self._running, self._scores = [candidates[i] for i in going_on], (scores + ends * NEVER)[going_on]
        self._ended = bool(ends.all())
        self._hopeful = self._may_improve()
        return [new[-1] for new in self._running], parents[going_on]

    def _finish(self, candidates: list[list[int]], scores: np.ndarray, ends: np.ndarray) -> None:
        """Put candidates that have ended among the finished ones, of which the best are kept."""
        penalized = scores / np.float32(len(candidates[0]) ** self.config.length_penalty)
        self._done += [(penalized[i], candidates[i]) for i in np.flatnonzero(ends)]
        self._done.sort(key=lambda entry: -entry[0])  # stable: of two equal ones the earlier is kept
        del self._done[self.config.num_beams :]

    def _may_improve(self) -> bool:
        if len(self._done) < self.config.num_beams:
            return True
        longest = self.config.early_stopping == "never" and self.config.length_penalty > 0
        length = self.ends.max_new_tokens if longest else len(self._running[0])
        return bool(self._scores[0] / np.float32(length**self.config.length_penalty) > self._done[-1][0])

    def best(self) -> list[list[int]]:
        """The new tokens of the best finished sequences."""
        return [self.ends.without_stop_id(new) for _, new in self._done[: self.config.num_return_sequences]]


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Indices of the n largest values, largest first; of equal ones, the first."""
    indices = np.argpartition(-values, n - 1)[:n]
    return indices[np.lexsort((indices, -values[indices]))]
