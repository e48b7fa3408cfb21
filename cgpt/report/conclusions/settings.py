"""Which value of what an experiment varies is best, by how much, and whether that is more than seeds explain."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgpt.report import columns, flags
from cgpt.report.axes import AT, Axis, axes_of, beside, value_text
from cgpt.report.columns import Row
from cgpt.report.conclusions.conclusion import (
    ONE_SEED,
    Conclusion,
    at_seeds,
    interval,
    listed,
    number,
    plural,
    value_range,
)
from cgpt.report.conclusions.difference import Result, difference
from cgpt.report.labels import LABELS
from cgpt.report.page import table_of
from cgpt.report.score_table import SeedResults, loss_settings
from cgpt.scaling.seeds import Best, best_of
from cgpt.spec import Experiment

BASIS = ("Whether seeds tell settings apart: by Student's t on the standard deviation of seeds, with Bonferroni's "
         "correction for all settings, as under the table.")  # fmt: skip


@dataclass(frozen=True)
class Ranking:
    """The settings of one column of a table, such as one model's losses, and the best of them."""

    name: str
    settings: Mapping[Any, SeedResults]
    best: Best

    @property
    def value(self) -> Any:
        """The best setting's value of the axis."""
        return list(self.settings)[self.best.setting]

    @property
    def runner_up(self) -> Any:
        """The value whose mean is nearest to the best one's."""
        others = [value for value, setting in self.settings.items() if setting.values and value != self.value]
        return min(others, key=lambda value: abs(self._mean(value) - self._mean(self.value)))

    @property
    def gap(self) -> float:
        """By how much the best mean is ahead of the next."""
        return abs(self._mean(self.runner_up) - self._mean(self.value))

    @property
    def is_clear(self) -> bool | None:
        """Whether seeds tell the best from every other; None where no setting has two."""
        return None if self.best.low is None else not self.best.rivals

    @property
    def rivals(self) -> list[str]:
        """The values that seeds cannot tell from the best."""
        return [value_text(list(self.settings)[n]) for n in self.best.rivals]

    def _mean(self, value: Any) -> float:
        values = self.settings[value].values
        return sum(values) / len(values)


def best_setting(experiment: Experiment, pretrained: Sequence[Row], diverged: Sequence[Row], scores: Sequence[Row],
                 groups: Collection[str]) -> Conclusion | None:  # fmt: skip
    """The best value of the main axis by validation loss, or by the scores where it does not touch pretraining; None
    where nothing varies."""
    axis = next(iter(axes_of(experiment, [*pretrained, *diverged])), None)
    if axis is not None:
        lines = _loss_lines([*pretrained, *diverged], axis)
        if not axis.same_text:
            return Conclusion(f"Nothing can be told of {axis.name}: each has a validation text of its own, so that "
                              "losses cannot be compared.")  # fmt: skip
        if not axis.has_best:
            return _along(axis, lines)
        return _best(axis, [(name, settings, False) for name, settings in lines.items()], LABELS[axis.loss_key])
    axis = next(iter(axes_of(experiment, scores)), None)
    if axis is None or not axis.has_best:
        return None
    primary = [row for row in scores if row["primary"] and row["task"] not in groups]
    return _best(axis, _score_lines(primary, axis), "the score")


def _loss_lines(runs: Sequence[Row], axis: Axis) -> dict[str, dict[Any, SeedResults]]:
    """The settings of each column that the axis touches, by its name."""
    rows = [row for row in beside(runs, axis) if row[AT] is not None]
    of_columns = columns.distinct(rows)
    names = columns.column_names(of_columns.values())
    return {names[key]: loss_settings([row for row in rows if columns.belongs(row, column)], axis.loss_key)
            for key, column in of_columns.items()}  # fmt: skip


def _score_lines(scores: Sequence[Row], axis: Axis) -> list[tuple[str, dict[Any, SeedResults], bool]]:
    rows = [row for row in beside(scores, axis) if row[AT] is not None and row["higher_is_better"] is not None]
    names = columns.column_names(rows)
    lines: dict[tuple[str, bool], dict[Any, SeedResults]] = {}
    for (key, task, at), seeds in columns.grouped(
        [row | {"key": columns.column_key(row), "of": f"{row['task']}, {columns.series(row)}"} for row in rows],
        ("key", "of", AT),
    ).items():
        line = lines.setdefault((f"{names[key]}, {task}", seeds[0]["higher_is_better"]), {})
        line[at] = SeedResults(tuple(row["value"] for row in seeds), (), tuple(flags.score_flags(seeds)))
    return [(name, line, higher) for (name, higher), line in lines.items()]


def _rank(name: str, settings: Mapping[Any, SeedResults], higher_is_better: bool) -> Ranking | None:
    if sum(bool(setting.values) for setting in settings.values()) < 2:
        return None
    values, unflagged = zip(*((setting.values, not setting.flags) for setting in settings.values()))
    return Ranking(name, settings, best_of(values, higher_is_better, unflagged))


def _best(axis: Axis, lines: Sequence[tuple[str, Mapping[Any, SeedResults], bool]], of: str) -> Conclusion:
    """The best value of the axis on each line: what it is by, and whether seeds tell it from the others."""
    rankings = [ranking for line in lines if (ranking := _rank(*line))]
    if not rankings:
        return Conclusion(f"Nothing can be told of {axis.name}: no two of its settings have a result.")
    sentence = _one_line(axis, rankings[0], of) if len(rankings) == 1 else _many_lines(axis, rankings, of)
    at_end = [each.name for each in rankings if axis.numeric and each.value in (axis.values[0], axis.values[-1])]
    basis = [BASIS] if any(each.is_clear is not None for each in rankings) else []
    if at_end:
        basis.append(f"At {axis.name}'s last value tried on its side: {listed(at_end)}; a better one may lie beyond.")
    header = ["", f"best {axis.name}", of, "95 % interval", "ahead of the next by", "next", "seeds cannot tell it from"]
    body = [[each.name, value_text(each.value), at_seeds(each.settings[each.value].values),
             interval(each.best.low, each.best.high).removeprefix("95 % interval "), number(each.gap),
             value_text(each.runner_up), ", ".join(each.rivals) if each.is_clear is not None else "not known, one seed"]
            for each in rankings]  # fmt: skip
    return Conclusion(sentence, (), basis, table_of(f"The best {axis.name} of each", header, body))


def _one_line(axis: Axis, ranking: Ranking, of: str) -> str:
    values = ranking.settings[ranking.value].values
    known = interval(ranking.best.low, ranking.best.high)
    counted, best = f"Of {plural(len(ranking.settings), 'value')} of {axis.name}", value_text(ranking.value)
    reached, other = f"{of} {at_seeds(values)}{f', {known}' if known else ''}", value_text(ranking.runner_up)
    sentence = (f"{counted}, {best} is best: {reached}, {number(ranking.gap)} ahead of {other}, the next"
                if ranking.gap else f"{counted}, {best} is no better than {other}: both {reached}")  # fmt: skip
    if ranking.is_clear is None:
        return f"{sentence}; {ONE_SEED}, so whether that is more than noise cannot be told."
    return sentence + ("; that is more than seeds explain." if ranking.is_clear else
                       f"; seeds cannot tell it from {listed(ranking.rivals)}.")  # fmt: skip


def _many_lines(axis: Axis, rankings: Sequence[Ranking], of: str) -> str:
    counts = Counter(value_text(each.value) for each in rankings)
    total = len(rankings)
    best = listed([f"{value} on {count} of {total}" if n == 0 else f"{value} on {count}"
                   for n, (value, count) in enumerate(counts.most_common())])  # fmt: skip
    sentence = (
        f"By {of}, the best {axis.name} is {best}, ahead of the next {value_range([each.gap for each in rankings])}"
    )
    known = [each for each in rankings if each.is_clear is not None]
    if not known:
        return f"{sentence}; {ONE_SEED}, so whether that is more than noise cannot be told."
    clear = sum(bool(each.is_clear) for each in known)
    text = f"{sentence}; on {clear} of {len(known)} that is more than seeds explain"
    return text + (f", and on {total - len(known)} with one seed it cannot be told." if len(known) < total else ".")


def _along(axis: Axis, lines: Mapping[str, Mapping[Any, SeedResults]]) -> Conclusion:
    """How the loss changes from the least to the greatest length, of which the most is best."""
    header = ["", f"{axis.name} from", "to", "loss from", "to", "difference", "95 % interval"]
    body, differences = [], []
    for name, settings in lines.items():
        done = [(value, setting.values) for value, setting in settings.items() if setting.values]
        if len(done) > 1:
            (low, first), (high, last) = min(done), max(done)
            change = difference([Result(loss) for loss in last], [Result(loss) for loss in first])
            differences.append(change)
            body.append([name, value_text(low), value_text(high), at_seeds(first), at_seeds(last), number(change.value),
                         interval(change.low, change.high).removeprefix("95 % interval ")])  # fmt: skip
    if not body:
        return Conclusion(f"Nothing can be told of {axis.name}: no two of its settings have a loss.")
    unit = LABELS[axis.loss_key]
    ends = f"as {axis.name} goes from {body[0][1]} to {body[0][2]}"
    if len(body) == 1:
        known = interval(differences[0].low, differences[0].high) or f"{ONE_SEED}, so how sure that is cannot be told"
        sentence = f"The {unit} goes from {body[0][3]} to {body[0][4]} {ends}: a change of {body[0][5]} ({known})."
    else:
        sentence = f"The {unit} changes {value_range([each.value for each in differences])} {ends}"
        clear, sure = sum(each.is_clear for each in differences), [e for e in differences if e.low is not None]
        sentence += (f"; {clear} of {len(sure)} changes are beyond their 95 % interval." if sure else
                     f"; {ONE_SEED}, so how sure that is cannot be told.")  # fmt: skip
    return Conclusion(sentence, (), ["Intervals are of the seeds alone."] if any(e.low is not None for e in differences)
                      else [], table_of(f"From the least to the most {axis.name}", header, body))  # fmt: skip
