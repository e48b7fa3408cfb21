"""Differences with their intervals as bars on one scale, which the page draws without a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from cgpt.report.conclusions.conclusion import Bar, interval, number

MOST_BARS = 30
MARGIN = 0.02  # of the scale, at each end


@dataclass(frozen=True)
class BarLine:
    """A bar by where it begins and how wide it is, with the value's point, in percent of the scale. `width` is 0 where
    no interval is known."""

    label: str
    point: float
    left: float
    width: float
    text: str


@dataclass(frozen=True)
class Scale:
    """`zero` in percent; the bars by their group, in order."""

    zero: float
    groups: Sequence[tuple[str, Sequence[BarLine]]]


def on_a_scale(bars: Sequence[Bar]) -> Scale | None:
    """The bars on a scale that holds zero and all of them; None where there are none or too many to be read."""
    if not 1 < len(bars) <= MOST_BARS:
        return None
    ends = [end for bar in bars for end in (bar.low, bar.high, bar.value, 0.0) if end is not None]
    low, span = min(ends), (max(ends) - min(ends)) or 1.0

    def percent(value: float) -> float:
        return 100 * (MARGIN + (1 - 2 * MARGIN) * (value - low) / span)

    groups: dict[str, list[BarLine]] = {}
    for bar in bars:
        left = bar.value if bar.low is None else bar.low
        right = bar.value if bar.high is None else bar.high
        known = interval(bar.low, bar.high)
        text = f"{'+' if bar.value > 0 else ''}{number(bar.value)}" + (f", {known}" if known else "")
        line = BarLine(bar.label, percent(bar.value), percent(left), percent(right) - percent(left), text)
        groups.setdefault(bar.group, []).append(line)
    return Scale(percent(0.0), list(groups.items()))
