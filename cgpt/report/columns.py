"""Columns of tables and colours of figures: which results stand together, their names and their means over seeds."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from cgpt.errors import UserError
from cgpt.formats import short

Row = dict[str, Any]

# A column of a table, and a colour of a figure: results that differ in one of these are never averaged.
COLUMN_KEYS = ("n_parameters", "model", "data", "setting", "hardware", "timing")
BASELINE = "bag of words"  # the condition of a score that no language model has
CONDITIONS = {  # of scores, in the order of tables, and what each means
    "from scratch": "random weights, trained on the task alone",
    "zero-shot": "the pretrained model, which has seen no example of the task",
    "few-shot": "the pretrained model, with solved examples of the task in its prompt",
    "fine-tuned": "the pretrained model, trained further on the task",
    BASELINE: "logistic regression on word counts, trained on the same labels",
}


@dataclass(frozen=True)
class Mean:
    """A mean over seeds. `sd` is the sample standard deviation, None for one seed; `se` the mean over the seeds of the
    metric's standard error over test documents, None where the metric has none."""

    value: float
    sd: float | None
    se: float | None
    n: int


def mean(values: Iterable[float], standard_errors: Iterable[float | None] = ()) -> Mean:
    """The mean of one value per seed."""
    values, errors = list(values), [error for error in standard_errors if error is not None]
    sd = stdev(values) if len(values) > 1 else None
    return Mean(fmean(values), sd, fmean(errors) if errors else None, len(values))


def grouped(rows: Iterable[Row], keys: Sequence[str]) -> dict[tuple, list[Row]]:
    """Rows that differ in nothing but their seed, by their values of `keys`. Raises UserError where two of a group have
    the same seed, because their mean would mix two settings."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    for group, members in groups.items():
        if len({row["seed"] for row in members}) < len(members):
            name = members[0]["experiment"]
            raise UserError(f"{name}: two results share {group} and the seed; they differ in more than a mean may hide")
    return groups


def column_names(rows: Iterable[Row]) -> dict[tuple, str]:
    """A name for each model column (COLUMN_KEYS), from small to large; it says only what differs between columns."""
    columns = {column_key(row): row for row in rows}
    differing = [key for key in ("data", "setting", "hardware", "timing")
                 if len({row[key] for row in columns.values()}) > 1]  # fmt: skip
    sizes = Counter(model for model, _ in {(row["model"], row["n_parameters"]) for row in columns.values()})
    names = {}
    for column, row in columns.items():
        parts = [row["model"], *(str(row[key]) for key in differing if row[key])]
        parts += [short(row["n_parameters"])] if sizes[row["model"]] > 1 else []
        names[column] = ", ".join(parts)
    return names


def column_key(row: Row) -> tuple:
    """The row's values of COLUMN_KEYS."""
    return tuple(row[key] for key in COLUMN_KEYS)


def distinct(rows: Sequence[Row]) -> dict[tuple, Row]:
    """A row of each column (COLUMN_KEYS), in the order of the rows. What an axis does not touch has no column of its
    own: the learning rate of pretraining is nothing to a model trained from scratch on a task."""
    every = {column_key(row): row for row in rows}
    most = max((len(row["point"]) for row in every.values()), default=0)
    return {key: row for key, row in every.items()
            if len(row["point"]) == most or not any(len(other["point"]) > len(row["point"]) and belongs(row, other)
                                                    for other in every.values())}  # fmt: skip


def belongs(row: Row, column: Row) -> bool:
    """Whether a result stands in this column: it is the same but for axes that do not touch the result."""
    same = all(row[key] == column[key] for key in COLUMN_KEYS if key != "setting")
    return same and row["point"].items() <= column["point"].items()


def is_baseline(row: Row) -> bool:
    """Whether a row is a score of the baseline; a row of a run is not."""
    return row.get("condition") == BASELINE


def tasks_of(scores: Iterable[Row], order: Sequence[str]) -> list[str]:
    """The tasks of these scores in the order given, and then those that it lacks, by name."""
    tasks = {row["task"] for row in scores}
    return [task for task in order if task in tasks] + sorted(tasks - set(order))


def series(row: Row) -> str:
    """Name of a score's row in a table, or line in a figure: `3-shot`, `fine-tuned, 100 labels`."""
    few_shot = row["condition"] == "few-shot"
    details = [f"{row['n_labels']} labels"] if row["n_labels"] is not None else []
    details += [f"{row['n_shot']}-shot"] if row["n_shot"] and not few_shot else []
    return ", ".join([f"{row['n_shot']}-shot" if few_shot else row["condition"], *details])


def series_order(row: Row) -> tuple:
    """Conditions in the order of CONDITIONS, few labels before many."""
    labels = math.inf if row["n_labels"] is None else row["n_labels"]
    return list(CONDITIONS).index(row["condition"]), labels, row["n_shot"]
