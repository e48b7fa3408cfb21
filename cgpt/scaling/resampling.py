"""Bootstrap: which runs a draw holds, what noise it adds, and the interval that the draws give."""

from __future__ import annotations

from typing import Any

import numpy as np

N_DRAWS = 2000
CONFIDENCE = 0.95
SEED = 0
SPARE_CELLS = 3  # cells beyond a fit's constants from which resampling them says something


def resampled_weights(cells: np.ndarray, n_draws: int, least_cells: int, seed: int = SEED) -> np.ndarray:
    """How often each run stands in each draw, (n_draws, n): cells with replacement, then seeds within each.

    `cells` (n,) numbers the settings from 0; runs of one cell differ in nothing but their seed. A draw with fewer
    than `least_cells` different cells decides no fit and is drawn again. `seed`: another one for what is drawn beside.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(cells)
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < n_draws:
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=n_draws)
        weights = np.zeros((n_draws, len(cells)))
        for cell, size in enumerate(sizes):
            weights[:, cells == cell] = rng.multinomial(times[:, cell] * size, np.full(size, 1 / size))
        kept.append(weights[(times > 0).sum(axis=1) >= least_cells])
    return np.concatenate(kept)[:n_draws]


def noisy(fitted: np.ndarray, relative_sd: float, n_draws: int) -> np.ndarray:
    """Losses (n_draws, n) around the fitted ones (n,), with normal noise of that relative size."""
    rng = np.random.default_rng(SEED)
    return fitted * (1 + relative_sd * rng.standard_normal((n_draws, len(fitted))))


def interval(draws: np.ndarray) -> list[float]:
    """The two ends that hold the middle 95 % of the draws; a draw that is infinite counts, one that is NaN does not."""
    low, high = np.nanquantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return [float(low), float(high)]


def relative_sd(loss: np.ndarray, fitted: np.ndarray, n_free: int) -> float:
    """Standard deviation of the relative residual, with the degrees of freedom that the constants leave."""
    return float(np.sqrt(np.sum((loss / fitted - 1) ** 2) / max(1, len(loss) - n_free)))


def constant(value: float | np.ndarray, noise: np.ndarray | None, resampled: np.ndarray | None) -> dict[str, Any]:
    """A constant and its 95 % intervals; None where that bootstrap was not done."""
    return {"value": float(value), "noise": None if noise is None else interval(noise),
            "resampled": None if resampled is None else interval(resampled)}  # fmt: skip
