"""A conclusion, and the words that conclusions share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cgpt.formats import score, spread
from cgpt.report.page import Table

ONE_SEED = "one seed each"


@dataclass(frozen=True)
class Bar:
    """A difference with the ends of its 95 % interval, to be drawn; `group` is told once for all bars of it."""

    group: str
    label: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Conclusion:
    """`sentence` with its numbers; `more` are sentences that go on from it, `basis` those that say what they rest on
    and do not say; `evidence` the single comparisons behind it, which `bars` draw, as
    `legend` says."""

    sentence: str
    more: Sequence[str] = ()
    basis: Sequence[str] = ()
    evidence: Table | None = None
    bars: Sequence[Bar] = ()
    legend: str = ""


def number(value: float) -> str:
    """A difference with three decimals, more where it would be 0."""
    return f"-{spread(-value)}" if value < 0 else spread(value)


def interval(low: float | None, high: float | None) -> str:
    """`95 % interval 0.02 to 0.31`; empty where it is not known."""
    return "" if low is None or high is None else f"95 % interval {number(low)} to {number(high)}"


def value_range(values: Iterable[float]) -> str:
    """`by 0.03 to 0.37`, or `by 0.03` where there is one value."""
    texts = [number(value) for value in sorted(values)]
    return f"by {texts[0]}" if texts[0] == texts[-1] else f"by {texts[0]} to {texts[-1]}"


def listed(texts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def plural(count: int, word: str) -> str:
    """`1 task`, `3 tasks`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def at_seeds(values: Sequence[float]) -> str:
    """The mean of one value per seed, and how many there are where there are several."""
    mean = sum(values) / len(values)
    return score(mean) + (f" (mean of {len(values)} seeds)" if len(values) > 1 else "")
