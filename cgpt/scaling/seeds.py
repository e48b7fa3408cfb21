"""Conclusions from a few seeds: which setting is best and how surely, and which seed lies apart from the others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

CONFIDENCE = 0.95
APART = 0.1  # least gap between seeds that counts: of the value, or of the whole range of a metric that has one
TIMES_RANGE = 3.0  # least gap, in ranges of the other seeds
TIMES_ERROR = 3.0  # least gap, in standard errors of the difference between two scores on as many documents


@dataclass(frozen=True)
class Best:
    """The setting with the best mean. `low` and `high` hold its true mean, and `rivals` with it the truly best setting,
    in 95 % of experiments; both None, and only equal means rivals, where no setting has two seeds."""

    setting: int
    low: float | None
    high: float | None
    rivals: tuple[int, ...]


def best_of(settings: Sequence[Sequence[float]], higher_is_better: bool, pooled: Sequence[bool] | None = None) -> Best:
    """The best of settings, each a value per seed (an empty one takes no part).

    One standard deviation is taken to hold for the better half of the settings, two at least, as far as `pooled`
    (default: all): seeds differ more near divergence. Student's t with Bonferroni's correction for the number of all
    settings, since the best is picked after looking (Hsu, Multiple Comparisons, 1996).
    """
    means = {n: fmean(values) for n, values in enumerate(settings) if values}
    sign = -1.0 if higher_is_better else 1.0
    best = min(means, key=lambda n: sign * means[n])
    better_half = sorted(means, key=lambda n: sign * means[n])[: max(2, math.ceil(len(means) / 2))]
    used = [settings[n] for n in better_half if len(settings[n]) > 1 and (pooled is None or pooled[n])]
    freedom = sum(len(values) - 1 for values in used)
    if not freedom:
        return Best(best, None, None, tuple(n for n in means if n != best and means[n] == means[best]))
    from scipy.stats import t

    sd = math.sqrt(sum(variance(values) * (len(values) - 1) for values in used) / freedom)
    half = float(t.ppf(1 - (1 - CONFIDENCE) / 2 / len(means), freedom)) * sd / math.sqrt(len(settings[best]))
    least = float(t.ppf(1 - (1 - CONFIDENCE) / max(1, len(means) - 1), freedom)) * sd
    rivals = [n for n in means if n != best and sign * (means[n] - means[best])
              <= least * math.sqrt(1 / len(settings[n]) + 1 / len(settings[best]))]  # fmt: skip
    return Best(best, means[best] - half, means[best] + half, tuple(rivals))


def apart(values: Sequence[float], span: float | None = None, stderr: float | None = None) -> list[int]:
    """Indices of the seeds that lie across a gap from the most of their setting; both sides where these are as many.

    The gap is more than a tenth of `span`, without one of the value beside it, more than TIMES_RANGE times the range of
    the larger side, and more than TIMES_ERROR standard errors of a difference where `stderr` is that of one value.
    """
    order = sorted(range(len(values)), key=lambda n: values[n])
    if len(order) < 2:
        return []
    cut = max(range(1, len(order)), key=lambda n: values[order[n]] - values[order[n - 1]])
    low, high = order[:cut], order[cut:]
    gap = values[high[0]] - values[low[-1]]
    least = APART * (span if span is not None else min(abs(values[low[-1]]), abs(values[high[0]])))
    sides = [side for side in (low, high) if 2 * len(side) >= len(order)]
    spread = max(values[side[-1]] - values[side[0]] for side in sides)
    if gap <= max(least, TIMES_RANGE * spread, TIMES_ERROR * math.sqrt(2) * (stderr or 0.0)):
        return []
    return sorted(order) if len(sides) == 2 else high if sides == [low] else low
