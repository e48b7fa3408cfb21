"""The next token, picked from its logits: settings, processors and their order are those of transformers."""

import numpy as np

from cgpt.recipe.generation_config import GenerationConfig


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
