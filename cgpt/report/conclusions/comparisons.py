"""Conditions of the same model on the same task against each other: fine-tuned, from scratch, bag of words, chance."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cgpt.formats import score
from cgpt.report.columns import BASELINE, COLUMN_KEYS, Row, belongs, column_key, column_names, grouped, is_baseline
from cgpt.report.conclusions.conclusion import Bar, Conclusion, interval, listed, number, plural, value_range
from cgpt.report.conclusions.difference import Difference, Result, combined, difference
from cgpt.report.page import Table, table_of
from cgpt.report.samples import document_values, samples_path

TUNED, SCRATCH, ZERO_SHOT, CHANCE = "fine-tuned", "from scratch", "zero-shot", "chance"
PRETRAINED = (ZERO_SHOT, "few-shot")  # the conditions of pretrained models
_SAME = ("task", "metric", "filter", "n_labels", "n_shot")  # what rows of two conditions must share to be compared


@dataclass(frozen=True)
class Comparison:
    """A row of one condition against those of another; `difference` is positive where the first is better."""

    model: str
    row: Row
    difference: Difference

    @property
    def unit(self) -> str:
        """The metric that differences are in."""
        return str(self.row["metric"])


def fine_tuned_against_others(scores: Sequence[Row], groups: Collection[str], results: Path) -> Conclusion | None:
    """Whether the pretrained model, fine-tuned, beats the one trained from scratch, itself zero-shot, and a bag of
    words, as far as there are these; None where there is none. `groups`: names of groups, whose members count instead.
    """
    rows, read = _comparable(scores, groups), reader(results)
    every = {second: compare(rows, TUNED, second, read) for second in (SCRATCH, ZERO_SHOT, BASELINE)}
    every = {second: of_second for second, of_second in every.items() if of_second}
    if not every:
        return None
    words = [_outcome("Fine-tuned", f"the {second}" if second == BASELINE else second, of_second)
             for second, of_second in every.items()]  # fmt: skip
    second, main = next(iter(every.items()))
    basis = _basis([each for of_second in every.values() for each in of_second])
    return Conclusion(words[0], [*filter(None, [_growth(main)]), *words[1:]], basis, _evidence(TUNED, every),
                      list(map(_bar, main)), _legend(TUNED, second))  # fmt: skip


def against_chance(condition: str, scores: Sequence[Row], groups: Collection[str], results: Path) -> Conclusion | None:
    """Whether pretrained models, zero-shot or few-shot, do better than guessing; None where no score of that condition
    has a level of chance."""
    rows = [row for row in _comparable(scores, groups) if row["chance"] is not None]
    of_chance = compare(rows, condition, CHANCE, reader(results))
    if not of_chance:
        return None
    return Conclusion(
        _outcome(condition.capitalize(), CHANCE, of_chance), (), _basis(of_chance),
        _evidence(condition, {CHANCE: of_chance}), list(map(_bar, of_chance)), _legend(condition, CHANCE),
    )  # fmt: skip


def compare(rows: Sequence[Row], first: str, second: str, read: Callable[[Row], Result]) -> list[Comparison]:
    """Each model's scores of the condition `first` with those of `second` that share its task, labels and shots; `read`
    gives a score with its documents."""
    names = column_names([row for row in rows if not is_baseline(row)])
    ones = grouped([row for row in rows if row["condition"] == first], (*COLUMN_KEYS, *_SAME))
    comparisons = []
    for seeds in ones.values():
        row = seeds[0]
        others = [other for other in rows if other["condition"] == second and _matches(other, row)]
        sides = [[read(each) for each in side] for side in (seeds, others)]
        if second == CHANCE:
            chance = float(row["chance"])
            sides[1] = [Result(chance, None, dict.fromkeys(sides[0][0].documents or {}, chance))]
        if sides[1]:
            better, worse = sides if row["higher_is_better"] else sides[::-1]
            comparisons.append(Comparison(names[column_key(row)], row, difference(better, worse, row["scale"].span)))
    return comparisons


def _comparable(scores: Sequence[Row], groups: Collection[str]) -> list[Row]:
    return [row for row in scores
            if row["primary"] and row["higher_is_better"] is not None and row["task"] not in groups]  # fmt: skip


def _matches(other: Row, row: Row) -> bool:
    """Whether two rows differ in their condition alone; what was not trained on labels has none, and a baseline no
    shots and no model."""
    without = {BASELINE: "n_shot", ZERO_SHOT: "n_labels"}.get(other["condition"])
    same = all(other[key] == row[key] for key in _SAME if key != without)
    return same and (is_baseline(other) or belongs(other, row))


def reader(results: Path) -> Callable[[Row], Result]:
    """A function that gives a score with its documents, and reads the file of each run once."""
    read: dict[str, Result] = {}

    def result(row: Row) -> Result:
        if row["run"] not in read:
            path = samples_path(results, "baseline" if is_baseline(row) else "evaluate", row["run"])
            documents = document_values(path, row["metric"], row["filter"])
            read[row["run"]] = Result(row["value"], row["stderr"], documents)
        return read[row["run"]]

    return result


def _outcome(first: str, second: str, comparisons: Sequence[Comparison]) -> str:
    """`Fine-tuned beats from scratch on 8 of 9 (3 models, 3 tasks), by 0.03 to 0.37 of acc; ...`."""
    n = len(comparisons)
    better = [each for each in comparisons if each.difference.value > 0]
    worse = [each for each in comparisons if each.difference.value < 0]
    if n == 1:
        return _single_outcome(first, second, comparisons[0])
    models, tasks = ({each.row[key] for each in comparisons} for key in ("model", "task"))
    names = {each.model for each in comparisons}
    settings = f", {len(names)} settings" if len(names) > len(models) else ""
    counted = f"({plural(len(models), 'model')}{settings}, {plural(len(tasks), 'task')})"
    known = [each for each in comparisons if each.difference.low is not None]
    unclear = bool(known) and not any(each.difference.is_clear for each in known)
    verb = f"{first} beats {second} on"
    if unclear:
        verb = f"{first} and {second} cannot be told apart: {first.lower()} is ahead on"
    text = f"{verb} {len(better)} of {n} {counted}, {_by(better)}" if better else f"{verb} none of {n} {counted}"
    text += f", and does worse on {len(worse)}, {_by(worse)}" if worse else ""
    return f"{text}{_average(comparisons)}; {_how_clear(comparisons)}."


def _single_outcome(first: str, second: str, comparison: Comparison) -> str:
    only, by, task = comparison.difference, _by([comparison]), comparison.row["task"]
    known = interval(only.low, only.high)
    if only.value < 0 and only.low is not None and only.high is not None:
        known = interval(-only.high, -only.low)
    if known and not only.is_clear:
        ahead = f"{first.lower()} is {'behind' if only.value < 0 else 'ahead'} {by}"
        return f"{first} and {second} cannot be told apart on {task}: {ahead} ({known})."
    verb = "beats" if only.value > 0 else "does worse than" if only.value < 0 else "scores the same as"
    text = f"{first} {verb} {second}{f' {by}' if only.value else ''} on {task}"
    return f"{text} ({known or 'how uncertain that is, is not known'})."


def _how_clear(comparisons: Sequence[Comparison]) -> str:
    """Of how many differences the interval leaves no doubt about the sign."""
    known = [each for each in comparisons if each.difference.low is not None]
    if not known:
        return "how uncertain these are is not known"
    clear = [each for each in known if each.difference.is_clear]
    n_worse = sum(each.difference.value < 0 for each in clear)
    counted = f"all {len(clear)}" if len(clear) == len(comparisons) else f"{len(clear)} of {len(comparisons)}"
    text = f"the 95 % intervals of {counted} exclude zero" if clear else "every 95 % interval holds zero"
    text += f", {n_worse} of these for the worse" if n_worse else ""
    unknown = len(comparisons) - len(known)
    return text + (f"; of {unknown} it is not known" if unknown else "")


def _by(comparisons: Sequence[Comparison]) -> str:
    """`by 0.03 to 0.37 of acc and by 1.2 to 3 of bleu`."""
    values: dict[str, list[float]] = {}
    for each in comparisons:
        values.setdefault(each.unit, []).append(abs(each.difference.value))
    return listed([f"{value_range(of_unit)} of {unit}" for unit, of_unit in values.items()])


def _average(comparisons: Sequence[Comparison]) -> str:
    """`, 0.18 on average (95 % interval 0.15 to 0.21)`, where all differences are of one metric."""
    mean = _weighted([(1 / len(comparisons), each) for each in comparisons])
    known = interval(mean.low, mean.high) if mean else ""
    return f", {number(mean.value)} on average ({known})" if mean and known else ""


def _weighted(terms: Sequence[tuple[float, Comparison]]) -> Difference | None:
    """The weighted sum of differences; None where they are of several metrics or no error of it is known."""
    by_task: dict[str, list[tuple[float, Difference]]] = {}
    for weight, each in terms:
        by_task.setdefault(each.row["task"], []).append((weight, each.difference))
    return combined(by_task) if len({each.unit for _, each in terms}) == 1 else None


def _growth(comparisons: Sequence[Comparison]) -> str:
    """Whether the largest model gains more than the smallest; empty where there are not two sizes on the same tasks."""
    sizes = {each.row["n_parameters"]: each.model for each in comparisons}
    least, most = min(sizes), max(sizes)
    small, large = ([each for each in comparisons if each.row["n_parameters"] == size] for size in (least, most))
    kinds = [[[each.row[key] for key in _SAME] for each in of_size] for of_size in (small, large)]
    if least == most or kinds[0] != kinds[1]:
        return ""
    n = len(small)
    gains = [_weighted([(1 / n, each) for each in of_size]) for of_size in (small, large)]
    change = _weighted([(1 / n, each) for each in large] + [(-1 / n, each) for each in small])
    if change is None or None in gains:
        return ""
    of_small, of_large = (number(gain.value) for gain in gains if gain)
    comparative = "more" if change.value > 0 else "less"
    verdict = f"the largest gains {comparative}" if change.is_clear else "they cannot be told apart"
    known = interval(change.low, change.high) or "how uncertain that is, is not known"
    return (f"The average gain is {of_small} for {sizes[least]}, the smallest model, and {of_large} for {sizes[most]}, "
            f"the largest: {number(change.value)} between them ({known}), so {verdict}.")  # fmt: skip


def _legend(first: str, second: str) -> str:
    return (f"By how much {first} scores better than {second}, with the 95 % interval; the upright line is no "
            "difference.")  # fmt: skip


def _bar(comparison: Comparison) -> Bar:
    ends = comparison.difference
    return Bar(comparison.row["task"], comparison.model, ends.value, ends.low, ends.high)


def _evidence(first: str, comparisons: Mapping[str, Sequence[Comparison]]) -> Table:
    """A row for each comparison, by task; `comparisons` by the condition that the first is compared with."""
    lines: dict[str, list[list[str]]] = {}
    for second, of_second in comparisons.items():
        for each in of_second:
            values = each.difference.first, each.difference.second
            ones, others = values if each.row["higher_is_better"] else values[::-1]
            labels = f", {each.row['n_labels']} labels" if each.row["n_labels"] is not None else ""
            ends = interval(each.difference.low, each.difference.high).removeprefix("95 % interval ")
            sign = "+" if each.difference.value > 0 else ""
            shown = [score(_mean(ones)), second, score(_mean(others)), sign + number(each.difference.value), ends]
            lines.setdefault(each.row["task"] + labels, []).append([each.model, *shown])
    header = ["task", "model", first, "against", "its score", "better by", "95 % interval"]
    rows = [[task, *line] for task, of_task in lines.items() for line in of_task]
    return table_of(
        f"{first.capitalize()} against {listed(list(filter(comparisons.get, comparisons)))}",
        header,
        rows,
        in_groups=True,
    )


def _basis(comparisons: Sequence[Comparison]) -> list[str]:
    """How the intervals are made, and what they leave out."""
    of_documents = [each for each in comparisons if each.difference.documents is not None]
    sentences = []
    if of_documents:
        sentences.append("Both are scored on the same documents, so that an interval is that of the mean difference "
                         "document by document.")  # fmt: skip
    of_errors = [each for each in comparisons if each not in of_documents and each.difference.low is not None]
    if of_errors:
        count = "all" if len(of_errors) == len(comparisons) else f"{len(of_errors)} of {len(comparisons)}"
        sentences.append(f"For {count} the score is no mean over known documents of both: the error is "
                         "the root of the sum of the two squared standard errors.")  # fmt: skip
    seeds = [len(side) for each in comparisons for side in (each.difference.first, each.difference.second)]
    if all(each.row["seed"] is None for each in comparisons):
        pass  # nothing was trained here
    elif max(seeds) == 1:
        sentences.append(
            "One seed, so the error is of the test set alone: how far another seed would lie is not known."
        )
    else:
        sentences.append(f"The variance between {'' if min(seeds) == max(seeds) else 'up to '}{max(seeds)} training "
                         "seeds is part of the interval"
                         + (", of a side that has several" if min(seeds) == 1 else "") + ".")  # fmt: skip
    if len(comparisons) > 1:
        sentences.append(f"Of {len(comparisons)} such intervals one in twenty misses the truth by chance.")
    return sentences


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
