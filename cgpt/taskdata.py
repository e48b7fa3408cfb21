"""The data files of a task, as rows: JSON lines, CSV or TSV, or plain text lines. No network, no cache folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cgpt.errors import UserError, did_you_mean

Row = dict[str, Any]
SLICE = re.compile(r"(?P<name>[^\[]+)\[(?P<start>\d*%?):(?P<stop>\d*%?)\]")


def read_split(task: dict[str, Any], data_root: Path, split: str, where: str) -> list[Row]:
    """Return the rows of one split of a task.

    `split` is a key of the task's `dataset_kwargs.data_files`, or a slice of one: `train[:90%]`, `train[5000:]`.
    Raises UserError (each line starts with `where`) for a split or file that is missing, empty, or does not parse.
    """
    options = dict(task.get("dataset_kwargs") or {})
    data_files = options.pop("data_files", None)
    if not isinstance(data_files, dict):
        raise UserError(f"{where}: dataset_kwargs.data_files: is missing; write one line `<split>: <file>` per split")
    sliced = SLICE.fullmatch(split)
    name = sliced["name"] if sliced else split
    if name not in data_files:
        raise UserError(f"{where}: dataset_kwargs.data_files: has no split '{name}'; {did_you_mean(name, data_files)}")
    reader = _READERS.get(task.get("dataset_path", ""))
    if reader is None:
        raise UserError(
            f"{where}: dataset_path: '{task.get('dataset_path')}' is not a file format; write {', '.join(_READERS)}"
        )
    rows: list[Row] = []
    for path in _paths(data_files[name], data_root / task["data"], f"{where}: dataset_kwargs.data_files.{name}"):
        rows += reader(path, options, where)
    if sliced:
        rows = rows[_bound(sliced["start"], len(rows), 0) : _bound(sliced["stop"], len(rows), len(rows))]
    if not rows:
        raise UserError(f"{where}: split '{split}' holds no documents; name a file or a slice that is not empty")
    return rows


def _paths(names: str | list[str], folder: Path, where: str) -> list[Path]:
    paths = [folder / name for name in ([names] if isinstance(names, str) else names)]
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    problems = [
        f"{where}: data set '{folder.name}' has no file '{path.name}'; {did_you_mean(path.name, present)}"
        for path in paths
        if not path.is_file()
    ]
    if problems:
        raise UserError(*problems)
    return paths


def _bound(text: str, n_rows: int, default: int) -> int:
    if not text:
        return default
    return n_rows * int(text[:-1]) // 100 if text.endswith("%") else int(text)


def _read_json(path: Path, options: Row, where: str) -> list[Row]:
    """JSON lines; or, with `field`, one JSON object that holds the list of rows under that key."""
    field = options.get("field")
    text = _text(path, where)
    if field is not None:
        try:
            return json.loads(text)[field]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where}: {path.name}: field '{field}': {error}; give it a list of objects") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError as error:
            raise UserError(f"{where}: {path.name}: line {number}: {error}; write one JSON object per line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: {path.name}: line {number}: is not an object; write one JSON object per line")
        rows += [row] if row else []
    return rows


def _read_csv(path: Path, options: Row, where: str) -> list[Row]:
    """CSV by pandas, with the option names of Hugging Face's `csv` loader. An empty cell is empty text, not 'nan'."""
    import pandas

    arguments = dict(options)
    if "column_names" in arguments:
        arguments["names"] = arguments.pop("column_names")
    try:
        table = pandas.read_csv(path, keep_default_na=False, na_filter=False, encoding="utf-8", **arguments)
    except pandas.errors.EmptyDataError:
        return []
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{where}: {path.name}: {str(error).strip()}; check dataset_kwargs (sep, names, quoting)"
        ) from None
    return [dict(zip(table.columns, values)) for values in table.astype(object).itertuples(index=False)]


def _read_text(path: Path, options: Row, where: str) -> list[Row]:
    """One row {"text": line} per line that is not empty."""
    return [{"text": line} for line in _text(path, where).split("\n") if line.strip()]


def _text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: {path.name}: is not UTF-8 text ({error}); convert the file to UTF-8") from None


_READERS = {"json": _read_json, "csv": _read_csv, "text": _read_text}
