"""cgpt in Python: an experiment with its plan, and the tables of its results as data frames."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

from cgpt.commands.plan import make_plan, read_workflow
from cgpt.errors import UserError
from cgpt.experiment.run import RESULTS, Plan
from cgpt.files.csv_file import read_csv
from cgpt.records import FinetuneRecord, MeterRecord, Score, ScoresRecord
from cgpt.spec import Experiment

if TYPE_CHECKING:
    import pandas

TABLES = ("scores", "runs", "hardware")
# Types of columns beside those of the records' fields; what neither knows is text.
MORE_TYPES: dict[str, Any] = {
    "primary": bool, "date": datetime, "published": float, "published_z": float, "reproduced": bool
}  # fmt: skip
NEVER_UNKNOWN = "setting"  # empty where nothing varies
# By the type of a column: the data frame's, and how a cell is read.
READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    bool: ("boolean", {"true": True, "false": False}.__getitem__),
    int: ("Int64", int),
    float: ("float64", float),
    datetime: ("datetime64[us, UTC]", datetime.fromisoformat),
    str: ("string", str),
}


class LoadedExperiment(NamedTuple):
    """An experiment as its file says it, and its plan: the runs that it is made of."""

    experiment: Experiment
    plan: Plan

    def __repr__(self) -> str:
        experiment, counts = self.experiment, Counter(run.stage for run in self.plan.runs)
        runs = ", ".join(f"{n} {stage}" for stage, n in counts.items())
        return "\n".join([
            f"{experiment.name}: {experiment.question}",
            f"models: {', '.join(experiment.models)}",
            f"data: {', '.join(experiment.data.corpus) if experiment.data else 'none'}; "
            f"tasks: {', '.join(experiment.tasks) or 'none'}",
            f"hardware: {', '.join(experiment.hardware)}; seeds: {', '.join(map(str, experiment.seeds))}",
            f"{len(self.plan.runs)} runs: {runs}",
        ])  # fmt: skip


class Results(NamedTuple):
    """An experiment's tables: a row for each metric of each evaluation, each training, and each training on a machine.

    The columns are those of scores.csv, runs.csv and hardware.csv.
    """

    scores: pandas.DataFrame
    runs: pandas.DataFrame
    hardware: pandas.DataFrame

    def __repr__(self) -> str:
        shapes = (f"{name}: {len(frame)} rows x {len(frame.columns)} columns" for name, frame in zip(TABLES, self))
        return f"Results({'; '.join(shapes)})"


def load_experiment(name: str) -> LoadedExperiment:
    """The experiment of this name and its plan, from the files of the working directory and of the package.

    `experiment, plan = load_experiment("quickstart")` takes it apart. Raises UserError with every problem of its files.
    """
    return LoadedExperiment(*make_plan(name, read_workflow()))


def results(experiment: str | Path) -> Results:
    """The tables that `tabulate` wrote, of an experiment by its name, or in a folder such as results/reference/real.

    Text is `string`, whole numbers `Int64`, numbers `float64`, yes and no `boolean`, times UTC; an empty cell is NA.
    Raises UserError where there is no such experiment, where it has no tables yet, and for a damaged table.
    """
    is_name = isinstance(experiment, str) and os.sep not in experiment
    folder = RESULTS / experiment if is_name else Path(experiment)
    missing = [f"{table}.csv" for table in TABLES if not (folder / f"{table}.csv").is_file()]
    if missing and is_name:
        read_workflow().asked(str(experiment))
        raise UserError(f"{folder / missing[0]}: is missing; run `snakemake --cores 2 {folder / 'table.md'}`")
    if missing:
        raise UserError(f"{folder}: has no {missing[0]}; name an experiment, or a folder with its tables")
    from cgpt.report.tables import SCORE_COLUMNS
    from cgpt.scaling.machines import HARDWARE_COLUMNS
    from cgpt.scaling.points import RUN_COLUMNS

    columns = (SCORE_COLUMNS, RUN_COLUMNS, HARDWARE_COLUMNS)
    return Results(*(_read_table(folder / f"{table}.csv", each) for table, each in zip(TABLES, columns)))


def _read_table(path: Path, columns: tuple[str, ...]) -> pandas.DataFrame:
    """A table with the columns that it has, where it has a row, each of its type."""
    import pandas

    try:
        rows = read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run tabulate again") from None
    types, read = _column_types(), {}
    for name in rows[0] if rows else columns:
        dtype, read_cell = READERS.get(types.get(name, str), READERS[str])
        cells = [row[name] or ("" if name == NEVER_UNKNOWN else None) for row in rows]
        try:
            read[name] = pandas.Series([None if cell is None else read_cell(cell) for cell in cells], dtype=dtype)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(f"{path}: {name}: holds a cell that is no {dtype}; run tabulate again") from None
    return pandas.DataFrame(read)


def _column_types() -> dict[str, Any]:
    """The type of each field of the records that tables are made of, but for those that may be of several."""
    hints: dict[str, Any] = {}
    for record in (ScoresRecord, Score, FinetuneRecord, MeterRecord):
        hints |= get_type_hints(record)
    known = {name: [kind for kind in get_args(hint) or [hint] if kind is not NoneType] for name, hint in hints.items()}
    return {name: kinds[0] for name, kinds in known.items() if len(kinds) == 1} | MORE_TYPES
