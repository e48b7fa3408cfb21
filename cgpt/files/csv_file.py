"""Tables as CSV: read within bounds, written whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgpt.files.user_files import read_text
from cgpt.files.whole import write_whole

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of a cell that spreadsheets compute


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write rows with exactly these columns; None becomes an empty cell, a dict `key value; key value`."""
    lines = [",".join(columns)]
    for row in rows:
        if set(row) != set(columns):
            raise ValueError(f"{path}: columns differ: {sorted(set(row) ^ set(columns))}")
        lines.append(",".join(_csv_cell(row[column]) for column in columns))
    write_whole(path, ("\n".join(lines) + "\n").encode())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        value = "; ".join(f"{key} {value[key]}" for key in sorted(value))
    text = str(value)
    if isinstance(value, str) and text[:1] in FORMULA_STARTS and not _is_number(text):
        text = "'" + text  # so that a spreadsheet shows the text instead of computing it
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n\r') else text


def read_csv(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The columns of a CSV file and its rows by column. Raises OSError and ValueError, as `read_text`, and ValueError
    where a line has too few or too many cells."""
    try:
        lines = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        rows = list(lines)
    except csv.Error as error:
        raise ValueError(f"is no CSV ({error})") from None
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has too few or too many cells")
    return tuple(lines.fieldnames or ()), rows
