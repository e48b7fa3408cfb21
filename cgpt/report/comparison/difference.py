"""The difference of two means and its standard error: over seeds, over the documents of both, or over those of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

BEYOND = 1.96  # standard errors: outside of them lie 5 % of differences where nothing is different
BY_CHANCE = 0.05
SEEDS, PAIRED, UNPAIRED = "seeds", "documents, paired", "documents"


@dataclass(frozen=True)
class Difference:
    """`value` is B less A. `z` is the value in standard errors; of few seeds or documents it is the z that is as
    improbable as their t (Student). `by` says over what the error is: SEEDS, PAIRED or UNPAIRED; empty and both None
    where none is known. `n` are the seeds or documents of A and B."""

    value: float
    standard_error: float | None = None
    z: float | None = None
    by: str = ""
    n: tuple[int, int] | None = None

    @property
    def is_beyond(self) -> bool:
        """Whether it lies beyond 1.96 standard errors."""
        return self.z is not None and abs(self.z) > BEYOND


def over_seeds(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """From the values of at least two seeds a side, whose spreads may differ; None with fewer, or without any spread.

    Welch, The generalization of Student's problem when several different population variances are involved (1947).
    """
    if min(len(a), len(b)) < 2:
        return None
    of_a, of_b = variance(a) / len(a), variance(b) / len(b)
    if of_a + of_b == 0:
        return None
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    return _difference(fmean(b) - fmean(a), math.sqrt(of_a + of_b), freedom, SEEDS, (len(a), len(b)))


def over_paired_documents(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """From the values (n,) of the same documents on both sides; None where no document tells them apart, or all do
    alike."""
    apart = [of_b - of_a for of_a, of_b in zip(a, b, strict=True)]
    if len(apart) < 2 or not (sd := stdev(apart)):
        return None
    return _difference(fmean(apart), sd / math.sqrt(len(apart)), len(apart) - 1, PAIRED, (len(a), len(b)))


def over_documents(value: float, se_a: float | None, se_b: float | None) -> Difference | None:
    """From the standard errors of both sides, as if they were of different documents; None where one is not known."""
    if se_a is None or se_b is None or se_a == se_b == 0:
        return None
    return _difference(value, math.hypot(se_a, se_b), math.inf, UNPAIRED, None)


def _difference(value: float, error: float, freedom: float, by: str, n: tuple[int, int] | None) -> Difference:
    ratio = value / error
    if math.isfinite(freedom):
        from scipy.stats import norm, t

        as_improbable = float(norm.isf(t.sf(abs(ratio), freedom)))
        ratio = math.copysign(as_improbable, value) if math.isfinite(as_improbable) else ratio
    return Difference(value, error, ratio if value else 0.0, by, n)
