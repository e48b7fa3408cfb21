"""How far two scores differ, and the 95 % interval of it: over test documents, and over training seeds if there are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cgpt.scaling.seeds import CONFIDENCE

SAME = 1e-6  # a mean of documents this near to a score is the score
Documents = Mapping[int, float]


@dataclass(frozen=True)
class Result:
    """A score of one training seed. `documents`: its value on each test document, where the score is their mean."""

    value: float
    stderr: float | None = None
    documents: Documents | None = None


@dataclass(frozen=True)
class Difference:
    """One mean less another. `low` and `high`: the ends of the 95 % interval, None where nothing says how uncertain it
    is. `documents`: the same document by document. `first` and `second`: the values, a seed each."""

    value: float
    low: float | None
    high: float | None
    documents: Documents | None
    first: tuple[float, ...]
    second: tuple[float, ...]
    span: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def difference(first: Sequence[Result], second: Sequence[Result], span: float | None = None) -> Difference:
    """The mean of `first` less that of `second`, each a result per seed; `span` is the metric's range.

    Both are scored on the same documents, so that where these are known the error is that of the mean of differences
    document by document, else of the two standard errors. To it comes the variance between seeds, of a side that has
    several; as part of that is in the first too, the interval is a little wide rather than narrow.
    """
    values = [[result.value for result in side] for side in (first, second)]
    value = _mean(values[0]) - _mean(values[1])
    documents = paired(first, second)
    shift, parts = 0.0, [_between_seeds(side) for side in values]
    if documents is not None:
        centre, variance = _of_documents(documents, span)
        shift, parts = centre - value, [*parts, (variance, max(1, len(documents) - 1))]
    elif errors := [error for side in (first, second) for error in _standard_error(side)]:
        parts.append((sum(error**2 for error in errors), math.inf))
    low, high = _ends(value, value + shift, parts, span)
    return Difference(value, low, high, documents, tuple(values[0]), tuple(values[1]), span)


def paired(first: Sequence[Result], second: Sequence[Result]) -> Documents | None:
    """The difference of the seeds' means on each document; None where not all scores are means of the same ones."""
    known = [result.documents for result in (*first, *second) if result.documents and _is_mean_of_documents(result)]
    if len(known) < len(first) + len(second) or any(one.keys() != known[0].keys() for one in known):
        return None
    ones, others = known[: len(first)], known[len(first) :]
    return {number: _mean([one[number] for one in ones]) - _mean([other[number] for other in others])
            for number in known[0]}  # fmt: skip


def combined(terms: Mapping[str, Sequence[tuple[float, Difference]]]) -> Difference | None:
    """The sum of differences, each times its weight, given by task: those of a task share its documents, and tasks
    share none; the n-th seed of one goes with the n-th of the others.

    None where some difference is not known document by document, or they differ in their number of seeds.
    """
    weighted = [term for of_task in terms.values() for term in of_task]
    n_seeds = {(len(each.first), len(each.second)) for _, each in weighted}
    parts, centre = [], 0.0
    for of_task in terms.values():
        documents = _summed(of_task)
        if documents is None or len(n_seeds) > 1:
            return None
        mean, variance = _of_documents(documents, _span(of_task))
        parts.append((variance, max(1, len(documents) - 1)))
        centre += mean
    first = _by_seed([(weight, each.first) for weight, each in weighted])
    second = _by_seed([(weight, each.second) for weight, each in weighted])
    value, span = sum(weight * each.value for weight, each in weighted), _span(weighted)
    low, high = _ends(value, centre, [*parts, _between_seeds(first), _between_seeds(second)], span)
    return Difference(value, low, high, None, first, second)


def _span(terms: Sequence[tuple[float, Difference]]) -> float | None:
    """The range of a weighted sum of scores; None where that of one is not known."""
    spans = [abs(weight) * each.span for weight, each in terms if each.span is not None]
    return sum(spans) if len(spans) == len(terms) else None


def _by_seed(terms: Sequence[tuple[float, Sequence[float]]]) -> tuple[float, ...]:
    return tuple(sum(weight * values[seed] for weight, values in terms) for seed in range(len(terms[0][1])))


def _summed(terms: Sequence[tuple[float, Difference]]) -> Documents | None:
    """The weighted sum on each document; None where some are not known, or not of the same documents."""
    known = [(weight, each.documents) for weight, each in terms if each.documents is not None]
    if len(known) < len(terms) or any(documents.keys() != known[0][1].keys() for _, documents in known):
        return None
    return {number: sum(weight * documents[number] for weight, documents in known) for number in known[0][1]}


def _of_documents(documents: Documents, span: float | None) -> tuple[float, float]:
    """Mean and variance of the mean of differences, so that documents that all agree do not make it certain.

    Of a metric with a range two documents are added, half of one for each outcome of a pair of right and wrong, which
    for the difference of two accuracies is the interval of Agresti and Min, Statistics in Medicine 24 (2005), 729.
    """
    values = np.fromiter(documents.values(), float)
    if span is None:
        return float(values.mean()), float(values.var(ddof=1) / len(values)) if len(values) > 1 else math.inf
    n = len(values) + 2
    mean = float(values.sum() / n)
    return mean, ((float(values @ values) + span**2) / n - mean**2) / n


def _is_mean_of_documents(result: Result) -> bool:
    return bool(result.documents) and abs(_mean(list((result.documents or {}).values())) - result.value) < SAME


def _between_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Variance of the mean over seeds and its degrees of freedom; 0 of one seed, whose variance is not known."""
    n = len(values)
    return (float(np.var(values, ddof=1)) / n, n - 1) if n > 1 else (0.0, math.inf)


def _standard_error(side: Sequence[Result]) -> list[float]:
    """Of the documents, which the seeds of a side share."""
    errors = [result.stderr for result in side if result.stderr is not None]
    return [_mean(errors)] if errors else []


def _ends(value: float, centre: float, parts: Sequence[tuple[float, float]], span: float | None
          ) -> tuple[float | None, float | None]:  # fmt: skip
    """Student's t interval from (variance, degrees of freedom) of each source of error, by Welch and Satterthwaite.

    It holds the value, and nothing beyond the `span` that differences of scores can have.
    """
    from scipy.stats import t

    total = sum(variance for variance, _ in parts)
    if not 0 < total < math.inf:
        return None, None
    weight = sum(variance**2 / freedom for variance, freedom in parts)
    freedom = total**2 / weight if weight else 1e9
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    most = math.inf if span is None else max(span, abs(value))
    return min(value, max(-most, centre - half)), max(value, min(most, centre + half))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
