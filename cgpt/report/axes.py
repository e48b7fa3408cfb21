"""The axes along which an experiment varies, their values as people read them, and rows beside an axis."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cgpt.report.columns import Row
from cgpt.spec import LENGTHS, Experiment

DEFAULT = "default"  # a value of an axis that the experiment leaves empty, which says what stands there itself
AT = "at"  # the key that `beside` adds to a row: its value of the axis, None where the axis does not touch it
OTHER_TOKENS = ("data.vocab_size", "data.tokenizer", "model.vocab_size")
OTHER_TEXT = ("data.corpus", "data.validation_fraction")
LEAST_RATIO = 4.0  # of the greatest to the least value of an axis that is drawn on a logarithmic scale


@dataclass(frozen=True)
class Axis:
    """A key that an experiment varies, such as train.lr, with the values that its results have: numbers from small to
    large, else as the experiment gives them."""

    name: str
    values: tuple[Any, ...]

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    @property
    def loss_key(self) -> str:
        """The column of runs to compare along the axis: bits per byte where it changes what a token is."""
        return "validation_bits_per_byte" if self.name in OTHER_TOKENS else "validation_loss"

    @property
    def same_text(self) -> bool:
        """Whether all losses are of the same validation text, so that they can be compared."""
        return self.name not in OTHER_TEXT

    @property
    def has_best(self) -> bool:
        """Whether one value can be better than the others; of a length the most is, and that says nothing."""
        return self.name.removeprefix("train.") not in LENGTHS

    @property
    def logarithmic(self) -> bool:
        """Whether the values, as learning rates do, go up by factors."""
        return self.numeric and self.values[0] > 0 and self.values[-1] >= LEAST_RATIO * self.values[0]


def axes_of(experiment: Experiment, rows: Iterable[Row]) -> list[Axis]:
    """The axes along which these rows differ. First comes the main one, which makes the rows of a table and the x of a
    figure: a number before a word, then the one with the most values, then the one that is written first."""
    points = [row["point"] for row in rows]
    axes = []
    for name, given in experiment.vary.items():
        written = [as_value(value) for value in given]
        there = dict.fromkeys(point[name] for point in points if name in point)
        values = sorted(there, key=lambda value: written.index(value) if value in written else len(written))
        axis = Axis(name, tuple(values))
        if len(values) > 1:
            axes.append(Axis(name, tuple(sorted(values))) if axis.numeric else axis)
    return sorted(axes, key=lambda axis: (not axis.numeric, -len(axis.values)))


def beside(rows: Iterable[Row], axis: Axis | None) -> list[Row]:
    """The rows as if the axis were none, with their value of it as `AT`: what differs along it alone has one column."""
    if axis is None:
        return [row | {AT: None} for row in rows]
    changed: dict[str, Any] = {"data": ""} if axis.name == "data.corpus" else {}
    changed |= {"n_parameters": None} if axis.name.startswith(("model.", "data.")) else {}
    return [
        row | changed | {AT: row["point"].get(axis.name), "setting": setting_text(rest), "point": rest}
        for row in rows
        for rest in [{name: value for name, value in row["point"].items() if name != axis.name}]
    ]


def setting_text(point: dict[str, Any]) -> str:
    """`train.lr=0.001, ...`: a point of the axes as text."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in point.items())


def value_text(value: Any) -> str:
    """A value of an axis as people read it: 0.001, 600,000, cosine."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def as_value(written: Any) -> Any:
    """A value of an axis as a point has it: lists as one word, and a word for none."""
    if written is None:
        return DEFAULT
    return "+".join(map(str, written)) if isinstance(written, (list, tuple)) else written
