"""Tables as CSV: read within bounds, written whole or not at all."""

import csv
import io
from collections.abc import Container, Sequence
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


def read_csv(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file by column; where `columns` are named, it has these and no others.

    Raises OSError where it cannot be read, and ValueError, with one line, as `read_text` does, for other columns and
    where a row has too few or too many cells.
    """
    try:
        lines = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        rows = list(lines)
    except csv.Error as error:
        raise ValueError(f"is no CSV ({error})") from None
    header = lines.fieldnames or []
    if columns and (missing := [column for column in columns if column not in header]):
        raise ValueError(f"has no column {', '.join(missing)}")
    if columns and (unknown := [column for column in header if column not in columns]):
        raise ValueError(f"has the column {', '.join(unknown)}, which is not known")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has too few or too many cells")
    return rows


def read_numbers(path: Path, columns: Sequence[str], texts: Container[str] = ()) -> list[dict[str, Any]]:
    """As `read_csv`, with a float in each cell but those of the columns `texts`; None in an empty cell."""
    return [{key: (cell if key in texts else float(cell)) if cell else None for key, cell in row.items()}
            for row in read_csv(path, columns)]  # fmt: skip
