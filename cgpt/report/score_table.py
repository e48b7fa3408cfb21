"""Tables of scores and losses: one column per model, one row per condition and value of the axis that varies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cgpt.formats import score, short, spread
from cgpt.report import columns, flags
from cgpt.report.axes import AT, Axis, beside, value_text
from cgpt.report.columns import Row
from cgpt.report.labels import LABELS
from cgpt.report.page import Cell, Table
from cgpt.report.scales import UNKNOWN, Scale
from cgpt.scaling.seeds import Best, best_of

ANY_VALUE = "any"  # of an axis that does not touch a result
AS_GOOD = "≈ best"

Flag = tuple[str, str]  # a cell, in words, and what is strange there


@dataclass(frozen=True)
class SeedResults:
    """Results at one value of an axis, a value per seed that has one; `flags` say what to beware of."""

    values: tuple[float, ...]
    errors: tuple[float | None, ...] = ()
    flags: tuple[str, ...] = ()
    n_diverged: int = 0
    cuts: str = ""  # `41 of 300 prompts cut`, where a prompt was longer than the model


def score_table(title: str, scores: list[Row], tasks: tuple[str, ...], axis: Axis | None = None) -> Table:
    """One metric of each task: a row per condition and value of the axis, a column per model from small to large."""
    rows = beside(scores, axis)
    of_columns = columns.distinct([row for row in rows if not columns.is_baseline(row)] or rows)
    names = columns.column_names(of_columns.values())
    header = [Cell("task"), Cell("condition"), *([Cell(axis.name)] if axis else []), *_column_headers(names)]
    body: list[list[Cell]] = []
    flagged: list[Flag] = []
    for task in columns.tasks_of(rows, tasks):
        of_task = sorted((row for row in rows if row["task"] == task), key=columns.series_order)
        heading = _task_cell(of_task)
        blank = [Cell("")] if axis else []
        if of_task[0]["chance"] is not None:
            body.append([heading, Cell("chance"), *blank, *[Cell(score(of_task[0]["chance"]))] * len(names)])
        for name in dict.fromkeys(columns.series(row) for row in of_task):
            of_series = [row for row in of_task if columns.series(row) == name]
            other = "" if of_series[0]["metric"] == of_task[0]["metric"] else f", {of_series[0]['metric']}"
            by_column: dict[tuple, dict[Any, Cell]] = {}
            for key, column in of_columns.items():
                # The baseline has no model, so that its one value stands in every column.
                at_column = [row for row in of_series if columns.is_baseline(row) or columns.belongs(row, column)]
                by_column[key] = _cells(f"{task}, {name}, {names[key]}", at_column, axis, flagged)
            for value in _values(of_series, axis):
                at = [Cell(ANY_VALUE if value is None else value_text(value))] if axis else []
                cells = [by_column[key].get(value, Cell("")) for key in names]
                body.append([heading, Cell(name + other), *at, *cells])
    return Table(title, header, body, True, flags.notes(flagged, (flags.ONE_ANSWER_RULE, flags.SCORE_RULE)))


def loss_table(runs: list[Row], diverged: list[Row], axis: Axis) -> Table:
    """Validation loss of pretraining: one row per value of the axis, one column per model and other setting."""
    rows = beside(runs + diverged, axis)
    of_columns = columns.distinct(rows)
    names = columns.column_names(of_columns.values())
    flagged: list[Flag] = []
    notes: list[str] = []
    cells: dict[tuple, dict[Any, Cell]] = {}
    for key, column in of_columns.items():
        settings = loss_settings([row for row in rows if columns.belongs(row, column)], axis.loss_key)
        flagged += [(f"{names[key]}, {axis.name} {value_text(value)}", flag)
                    for value, setting in settings.items() for flag in setting.flags]  # fmt: skip
        best, cells[key] = _with_best(settings, UNKNOWN, False if axis.same_text and axis.has_best else None)
        notes += _best_note(names[key], axis, list(settings), best)
    body = [[Cell(value_text(value)), *(cells[key].get(value, Cell("")) for key in names)] for value in axis.values]
    title = f"{LABELS[axis.loss_key].capitalize()} against {axis.name}"
    if not axis.same_text:
        notes.append(f"Each {axis.name} has a validation text of its own: do not compare these losses with each other.")
    notes += flags.notes(flagged, (flags.LOSS_RULE,))
    return Table(title, [Cell(axis.name), *_column_headers(names)], body, notes=notes)


def _column_headers(names: dict[tuple, str]) -> list[Cell]:
    """The name of each column, with its number of parameters where all of the column have the same."""
    return [Cell(name, f"{short(key[0])} parameters" if key[0] else "") for key, name in names.items()]


def score_cell(summary: columns.Mean, scale: Scale = UNKNOWN) -> Cell:
    """`mean ± sd` and, as the note, n and the metric's own standard error."""
    notes = [f"n {summary.n}"] if summary.n > 1 else []
    notes += [f"se {spread(summary.se)}"] if summary.se is not None else []
    sd = f" ± {spread(summary.sd)}" if summary.sd is not None else ""
    return Cell(score(summary.value) + sd + scale.unit, ", ".join(notes))


def metric_text(row: Row) -> str:
    """A metric with the scale that it is on: `bleu, 0 to 100`."""
    filtered = "" if row["filter"] == "none" else f", {row['filter']}"
    return row["metric"] + filtered + (f", {row['scale'].text}" if row["scale"].text else "")


def loss_settings(rows: list[Row], loss_key: str) -> dict[Any, SeedResults]:
    """The losses by value of the axis, in the order of the rows' values."""
    settings = {}
    for value in dict.fromkeys(row[AT] for row in rows):
        at = [row for row in rows if row[AT] == value]
        done = [row for row in at if row.get("step") is None]
        values = tuple(row[loss_key] for row in done if row[loss_key] is not None)
        settings[value] = SeedResults(values, (), tuple(flags.loss_flags(done)), len(at) - len(done))
    return settings


def _cells(where: str, rows: list[Row], axis: Axis | None, flagged: list[Flag]) -> dict[Any, Cell]:
    """The cell of each value of the axis; what is strange is added to `flagged`."""
    settings: dict[Any, SeedResults] = {}
    for (value,), seeds in columns.grouped(rows, (AT,)).items():
        of_setting = flags.score_flags(seeds)
        at = f", {axis.name} {value_text(value)}" if axis and value is not None else ""
        flagged += [(where + at, flag) for flag in of_setting]
        values, errors = (tuple(row[key] for row in seeds) for key in ("value", "stderr"))
        n_cut = max(row["n_prompts_cut"] for row in seeds)
        cuts = f"{n_cut} of {seeds[0]['n_samples']} prompts cut" if n_cut else ""
        settings[value] = SeedResults(values, errors, tuple(of_setting), cuts=cuts)
    if not settings:
        return {}
    ranked = axis is not None and axis.has_best
    return _with_best(settings, rows[0]["scale"], rows[0]["higher_is_better"] if ranked else None)[1]


def _with_best(
    settings: dict[Any, SeedResults], scale: Scale, higher_is_better: bool | None
) -> tuple[Best | None, dict[Any, Cell]]:
    """A cell for each setting. Where there are several the best is marked, and what cannot be told from it."""
    values = [setting.values for setting in settings.values()]
    several = sum(map(bool, values)) > 1 and higher_is_better is not None
    best = best_of(values, bool(higher_is_better), [not s.flags for s in settings.values()]) if several else None
    cells = {}
    for n, (value, setting) in enumerate(settings.items()):
        cell = score_cell(columns.mean(setting.values, setting.errors), scale) if setting.values else Cell("")
        notes = list(filter(None, (cell.note, setting.cuts)))
        if setting.n_diverged:
            notes.append(f"{setting.n_diverged} of {setting.n_diverged + len(setting.values)} diverged")
        is_best = best is not None and n == best.setting
        if is_best:
            notes.insert(0, "best")
        elif best and n in best.rivals:
            notes.insert(0, AS_GOOD)
        text = cell.text or ("diverged" if setting.n_diverged else "")
        cells[value] = Cell(text + (f" {flags.MARK}" if setting.flags else ""), ", ".join(notes), is_best)
    return best, cells


def _best_note(name: str, axis: Axis, values: Sequence[Any], best: Best | None) -> list[str]:
    """The best value of a column with the interval of its loss, and whether a better one may lie beyond the last."""
    if best is None:
        return []
    value = values[best.setting]
    interval = ("one seed each, so no interval" if best.low is None else
                f"95 % interval of its mean {score(best.low)} to {score(best.high)}")  # fmt: skip
    rivals = ", ".join(map(value_text, sorted((values[n] for n in best.rivals), key=axis.values.index)))
    as_good = f"; {AS_GOOD}: {rivals}" if rivals else ""
    at_end = axis.numeric and value in (axis.values[0], axis.values[-1])
    end = "; it is the last value tried on its side, and a better one may lie beyond" if at_end else ""
    return [f"{name}: best {axis.name} {value_text(value)}, {interval}{as_good}{end}."]


def _values(rows: list[Row], axis: Axis | None) -> list[Any]:
    """The values of the axis that these rows have, in its order; None first, for rows that it does not touch."""
    there = {row[AT] for row in rows}
    return [value for value in (None, *(axis.values if axis else ())) if value in there]


def _task_cell(rows: list[Row]) -> Cell:
    row = rows[0]
    counts = sorted({row["n_samples"] for row in rows})
    documents = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) + " documents"
    if len(counts) == 1 and row["documents"] != "all":
        documents = f"{documents}, not all of them" if row["documents"] == "some" else f"{row['documents']} documents"
    directions = {True: "higher is better", False: "lower is better", None: "which is better is not stated"}
    return Cell(row["task"], f"{metric_text(row)}, {directions[row['higher_is_better']]}, {documents}")
