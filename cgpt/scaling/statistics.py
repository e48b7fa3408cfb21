"""Intervals from draws, of normal misses of an uncertain size or of many settings drawn again; the F test of a fit.

A law misses a setting's loss by an amount that all its seeds share, so that settings, not runs, are what a draw varies.
Of few settings a bootstrap that draws them again is too sure: its 95 % interval of a power law through five settings
held the truth in 58 of 100 studies. Misses whose standard deviation is drawn too give Student's t for a straight line.
"""

from typing import Any

import numpy as np
from scipy.stats import f, spearmanr

from cgpt.scaling.seeds import CONFIDENCE

N_DRAWS = 2000
SEED = 0
SAME = 1.01  # sizes, tokens or costs whose ratio is less count as one
MANY_SETTINGS = 30  # settings from which drawing them again holds the truth in 92 to 98 of 100 studies
LARGEST_MISS = 20.0  # of a drawn log loss, so that a draw of one degree of freedom stays finite


def resampled_weights(n: int, least: int, n_draws: int = N_DRAWS) -> np.ndarray:
    """The number of times that each of `n` settings stands in each draw with replacement, (n_draws, n).

    A draw with fewer than `least` different settings decides no fit and is drawn again.
    """
    rng = np.random.default_rng(SEED)
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < n_draws:
        times = rng.multinomial(n, np.full(n, 1 / n), size=n_draws)
        kept.append(times[(times > 0).sum(axis=1) >= least])
    return np.concatenate(kept)[:n_draws].astype(float)


def with_misses(fitted: np.ndarray, relative_sd: float, freedom: int, n_draws: int = N_DRAWS) -> np.ndarray:
    """Losses (n_draws, n) around the fitted ones (n,), with normal misses of that relative size in the log.

    Each draw has a size of its own, as uncertain as `freedom` degrees of freedom leave it (scaled inverse chi-squared),
    so that the ends of a straight line's constants are those of Student's t.
    """
    rng = np.random.default_rng(SEED)
    sd = relative_sd * np.sqrt(freedom / rng.chisquare(freedom, (n_draws, 1)))
    misses = sd * rng.standard_normal((n_draws, len(fitted)))
    return fitted * np.exp(np.clip(misses, -LARGEST_MISS, LARGEST_MISS))


def interval(draws: np.ndarray) -> list[float]:
    """The two ends that hold the middle 95 % of the draws; a draw that is infinite counts, one that is NaN does not."""
    low, high = np.nanquantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return [float(low), float(high)]


def n_different(values: np.ndarray) -> int:
    """The number of values that differ by more than a rounding of tokens to whole batches."""
    return 1 + int(np.sum(np.diff(np.sort(np.log(values))) > np.log(SAME)))


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's, since the draws of two constants have long tails; None where one is the same in all of them."""
    return float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else None


def relative_sd(loss: np.ndarray, fitted: np.ndarray, n_free: int) -> float:
    """Standard deviation of the relative residual, with the degrees of freedom that the constants leave."""
    return float(np.sqrt(np.sum((loss / fitted - 1) ** 2) / max(1, len(loss) - n_free)))


def constant(value: float | np.ndarray, draws: np.ndarray) -> dict[str, Any]:
    """A constant and the ends of its 95 % interval, which the draws (n_draws,) give."""
    return {"value": float(value), "ends": interval(draws)}


def lack_of_fit(values: np.ndarray, fitted: np.ndarray, setting_of: np.ndarray, n_free: int) -> dict[str, float] | None:
    """F of a law's misses against the differences between seeds, and the chance of one as large were the law true.

    `values` and `fitted` (n,), by a fit of `n_free` constants; `setting_of` (n,) numbers the settings. None where no
    setting has several seeds or the constants use up all settings. Draper and Smith, Applied Regression Analysis,
    3rd ed., section 2.1.
    """
    n_settings = len(set(setting_of.tolist()))
    pure_freedom, lack_freedom = len(values) - n_settings, n_settings - n_free
    if pure_freedom < 1 or lack_freedom < 1:
        return None
    means = np.bincount(setting_of, values)[setting_of] / np.bincount(setting_of)[setting_of]
    pure = float(np.sum((values - means) ** 2))
    lack = float(np.sum((values - fitted) ** 2)) - pure
    if pure == 0:
        return None
    ratio = (lack / lack_freedom) / (pure / pure_freedom)
    return {"f": ratio, "p": float(f.sf(ratio, lack_freedom, pure_freedom)),
            "lack_freedom": lack_freedom, "pure_freedom": pure_freedom}  # fmt: skip
