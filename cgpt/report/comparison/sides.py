"""Folders of results as the rows of their tables, and the rows of two of them joined by what they have in common."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cgpt.errors import UserError, did_you_mean
from cgpt.files.csv_file import read_csv
from cgpt.files.layers import ENDINGS, FOLDERS, layers_of
from cgpt.report.columns import Row, grouped, is_baseline

SCORE_KEYS = ("task", "condition", "n_labels", "metric", "filter", "model", "data", "setting", "hardware")
RUN_KEYS = ("model", "data", "setting", "hardware")
# Columns that keep no rows apart where each side has one value in them: models on different data can be compared.
WHOLE_SIDE = ("model", "data", "setting", "hardware")
NUMBERS = {
    "scores": ("value", "stderr", "chance"),
    "runs": ("validation_loss", "validation_bits_per_byte", "seconds", "tokens_per_s", "energy_j"),
    "hardware": ("step_s", "tokens_per_s", "seconds", "energy_j", "price_usd"),
}
NEEDED = {
    "scores": ("experiment", "task", "condition", "metric", "model", "seed", "value", "hardware"),
    "runs": ("experiment", "run", "stage", "model", "seed", "hardware", "timing"),
    "hardware": ("experiment", "run", "model", "seed", "hardware", "timing"),
}


@dataclass(frozen=True)
class Side:
    """The rows of one side's scores.csv, of its pretraining runs in runs.csv, and of its hardware.csv.

    Cells are texts, None where empty, and numbers in the columns NUMBERS.
    """

    name: str
    folder: Path
    scores: list[Row]
    runs: list[Row]
    machines: list[Row]

    @property
    def results(self) -> Path:
        """The folder that holds the tables' folder, and `runs` where the runs' files are at hand."""
        return self.folder.parent


@dataclass(frozen=True)
class Joined:
    """Rows of two sides by the columns `keys`: each pair has the rows of all seeds of either side.

    `alone` are rows of one side: its letter, and their values of the keys. `apart` are the columns in which the sides
    differ as a whole, with the value of each.
    """

    keys: tuple[str, ...]
    pairs: list[tuple[Row, list[Row], list[Row]]] = field(default_factory=list)
    alone: list[tuple[str, Row, list[Row]]] = field(default_factory=list)
    apart: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_side(name: str, results: Path, hardware: str | None = None) -> Side:
    """The results called `name`: a folder of `results`, or any folder; of one hardware profile where one is given.

    Raises UserError where there are no tables, where they cannot be read, or where the profile is in none of them.
    """
    folder = _folder(name, results)
    scores, runs, machines = (_read(folder / f"{table}.csv", table) for table in ("scores", "runs", "hardware"))
    hosts = {row["run"]: {key: row.get(key) for key in ("host_cpu", "threads")} for row in runs}
    runs = [row for row in runs if row["stage"] == "pretrain"]
    machines = [row | (hosts.get(row["run"], {}) if row["timing"] == "measured" else {}) for row in machines or runs]
    if hardware is None:
        return Side(name, folder, scores, runs, machines)
    known = {row["hardware"] for rows in (scores, runs, machines) for row in rows}
    if hardware not in known:
        raise UserError(f"--hardware: {folder} has no results of '{hardware}'; {did_you_mean(hardware, known)}")
    of_profile = [[row for row in rows if row["hardware"] == hardware and not is_baseline(row)]
                  for rows in (scores, runs, machines)]  # fmt: skip
    return Side(f"{name}, {hardware}", folder, *of_profile)


def join(a: Sequence[Row], b: Sequence[Row], keys: Sequence[str]) -> Joined:
    """The rows of two sides by `keys`, without those of WHOLE_SIDE in which each side has one value.

    Raises UserError where two rows of a side have the same keys and the same seed.
    """
    values = {key: [sorted({str(row.get(key) or "") for row in rows if not is_baseline(row)}) for rows in (a, b)]
              for key in WHOLE_SIDE}  # fmt: skip
    single = {key: (of_a[0], of_b[0]) for key, (of_a, of_b) in values.items() if len(of_a) == len(of_b) == 1}
    kept = tuple(key for key in keys if key not in single)
    groups_a, groups_b = (grouped([dict.fromkeys(keys) | row for row in rows], kept) for rows in (a, b))
    joined = Joined(kept, apart={key: both for key, both in single.items() if both[0] != both[1]})
    for key in dict.fromkeys([*groups_a, *groups_b]):
        named = dict(zip(kept, key))
        rows_a, rows_b = groups_a.get(key, []), groups_b.get(key, [])
        if rows_a and rows_b:
            joined.pairs.append((named, rows_a, rows_b))
        else:
            joined.alone.append(("A" if rows_a else "B", named, rows_a or rows_b))
    return joined


def differences_in(columns: Iterable[str], a: Sequence[Row], b: Sequence[Row]) -> Iterator[str]:
    """`n_shot 0 | 3` for each column whose values are not those of the other side's rows."""
    for column in columns:
        of_a, of_b = ([*dict.fromkeys(_shown(row.get(column)) for row in rows)] for rows in (a, b))
        if set(of_a) != set(of_b):
            yield f"{column} {', '.join(of_a)} | {', '.join(of_b)}"


def _shown(value: object) -> str:
    if value is None:
        return "not recorded"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _folder(name: str, results: Path) -> Path:
    """The first folder of that name with tables in it, of `results` or of the working directory."""
    folders = [results / name, Path(name)]
    for folder in folders:
        if any((folder / f"{table}.csv").is_file() for table in ("scores", "runs")):
            return folder
    there = [path.parent.relative_to(results).as_posix() for path in results.glob("**/runs.csv")
             if "runs" not in path.relative_to(results).parts[:-1]]  # fmt: skip
    if name in there or _is_experiment(name):
        raise UserError(f"{folders[0]}: has no tables yet; run `snakemake --cores 2 {folders[0]}/table.md`")
    raise UserError(f"{name}: is no folder with scores.csv or runs.csv; {did_you_mean(name, there)}")


def _is_experiment(name: str) -> bool:
    """Whether the study, or cgpt, has an experiment of this name."""
    paths = (layer.root / FOLDERS["experiments"] / f"{name}.{end}" for layer in layers_of(Path()) for end in ENDINGS)
    return "/" not in name and any(path.is_file() for path in paths)


def _read(path: Path, table: str) -> list[Row]:
    """The rows of a table; none where there is no such file."""
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); make it again, or name another folder") from None
    if rows and (missing := [column for column in NEEDED[table] if column not in rows[0]]):
        raise UserError(f"{path}: has no column {', '.join(missing)}; make it again, or name another folder")
    return [{column: _value(cell, column in NUMBERS[table], f"{path}: row {number}: {column}")
             for column, cell in row.items()} for number, row in enumerate(rows, start=2)]  # fmt: skip


def _value(cell: str, is_number: bool, where: str) -> str | float | None:
    if not cell or not is_number:
        return cell or None
    try:
        if math.isfinite(value := float(cell)):
            return value
    except ValueError:
        pass
    raise UserError(f"{where}: '{cell}' is no finite number; make the table again, or delete the row")
