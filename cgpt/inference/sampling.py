"""How the next token is chosen from its logits: the settings, their processors and their order as in transformers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cgpt.errors import UserError


@dataclass(frozen=True)
class GenerationConfig:
    """The settings of `transformers.GenerationConfig` that we have, with their names, meaning and defaults."""

    do_sample: bool = False  # else the most likely token, or beam search
    temperature: float = 1.0
    top_k: int = 50  # 0: off
    top_p: float = 1.0
    num_return_sequences: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False  # True, False or "never"
    no_repeat_ngram_size: int = 0  # 0: off
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature > 0, "write a number above 0, or sample nothing (greedy)"),
            "top_k": (self.top_k >= 0, "write how many tokens are kept, or 0 for all"),
            "top_p": (0 < self.top_p <= 1, "write a number above 0 and at most 1"),
            "num_return_sequences": (self.num_return_sequences >= 1, "write a whole number above 0"),
            "num_beams": (self.num_beams >= 1, "write a whole number above 0"),
            "early_stopping": (self.early_stopping in (True, False, "never"), "write true, false or never"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "write a whole number, or 0 for off"),
            "repetition_penalty": (self.repetition_penalty > 0, "write a number above 0; 1 is off"),
            "seed": (self.seed >= 0, "write a whole number from 0 on"),
        }
        problems = [
            f"{name}: is {getattr(self, name)}; {remedy}" for name, (holds, remedy) in rules.items() if not holds
        ]
        if self.num_beams > 1 and self.do_sample:
            problems.append("num_beams: beam search draws no samples; leave out do_sample, or num_beams")
        elif self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            problems.append(
                f"num_return_sequences: is {self.num_return_sequences}; {self.num_beams} beams give no more"
            )
        elif self.num_beams == 1 and self.num_return_sequences > 1 and not self.do_sample:
            problems.append(
                "num_return_sequences: greedy decoding gives one sequence; sample, or search with num_beams"
            )
        if problems:
            raise UserError(*problems)

    @property
    def rows(self) -> int:
        """How many sequences of a prompt are decoded side by side."""
        return max(self.num_beams, self.num_return_sequences)


def process(scores: np.ndarray, tokens: list[int], config: GenerationConfig) -> np.ndarray:
    """Scores (V,) of the token after `tokens`, prompt and continuation, with what was there before made less likely.

    The repetition penalty is that of Keskar et al. 2019 (arXiv 1909.05858), on every token so far.
    """
    if config.repetition_penalty != 1:
        scores, seen = scores.copy(), np.unique(tokens)
        penalty = np.float32(config.repetition_penalty)
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
    if 0 < config.no_repeat_ngram_size <= len(tokens):
        windows = np.lib.stride_tricks.sliding_window_view(np.array(tokens), config.no_repeat_ngram_size)
        begun = tokens[len(tokens) + 1 - config.no_repeat_ngram_size :]
        scores = scores.copy()
        scores[windows[(windows[:, :-1] == begun).all(-1), -1]] = -np.inf
    return scores


def distribution(scores: np.ndarray, config: GenerationConfig) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be drawn and their probabilities, float64: temperature, then top_k, then top_p.

    top_p keeps the fewest tokens whose probabilities sum to at least it (Holtzman et al. 2020, arXiv 1904.09751).
    """
    scores = scores.astype(np.float64) / config.temperature
    tokens = np.arange(len(scores))
    if 0 < config.top_k < len(scores):
        tokens = np.flatnonzero(scores >= np.partition(scores, -config.top_k)[-config.top_k])
    prob = np.exp(scores[tokens] - scores[tokens].max())
    prob /= prob.sum()
    if config.top_p < 1:
        rising = np.argsort(prob, kind="stable")
        kept = rising[(np.cumsum(prob[rising]) > 1 - config.top_p) | (rising == rising[-1])]
        tokens, prob = tokens[kept], prob[kept] / prob[kept].sum()
    return tokens, prob


def draw(scores: np.ndarray, config: GenerationConfig, random: np.random.Generator) -> int:
    """The next token: drawn from the distribution, or the most likely one."""
    if not config.do_sample:
        return int(scores.argmax())
    tokens, prob = distribution(scores, config)
    cumulative = np.cumsum(prob)
    at = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    return int(tokens[min(at, len(tokens) - 1)])
