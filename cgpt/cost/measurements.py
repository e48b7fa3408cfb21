"""Published measurements, one row each with its source: results/reference/accelerator_measurements.csv."""

import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import get_type_hints

from cgpt.cost.shapes import Shape
from cgpt.errors import UserError
from cgpt.files.csv_file import read_csv
from cgpt.files.typed import from_cell

USES = ("fit", "check", "excluded")  # fitted to; predicted, never fitted to; unfit for both, with the reason
COUNTED = ("systems", "n_layer", "d_model", "d_ffn", "n_head", "n_kv_head", "seq_len", "grid",
           "batch_sequences", "micro_batch_sequences")  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One row. `value` is of all systems together; `context` the tokens cached, or answered in group `end to end`."""

    id: str
    group: str
    hardware: str
    model: str
    quantity: str
    value: str
    unit: str
    kind: str  # measured | derived | claimed
    use: str
    reason: str
    source: str
    release: str
    systems: int | None = None
    n_layer: int | None = None
    d_model: int | None = None
    d_ffn: int | None = None
    gated: bool | None = None
    tied: bool | None = None
    n_head: int | None = None
    n_kv_head: int | None = None
    vocab_size: int | None = None
    seq_len: int | None = None
    context: int | None = None
    grid: int | None = None
    batch_sequences: int | None = None
    micro_batch_sequences: int | None = None
    recompute: bool | None = None

    @property
    def shape(self) -> Shape:
        """The model's shape; only of rows whose use is fit or check."""
        sizes = {f.name: getattr(self, f.name) for f in fields(Shape) if f.default is MISSING}
        return Shape(**sizes, gated=bool(self.gated), tied=bool(self.tied))


def read(path: Path) -> list[Measurement]:
    """All rows; raises UserError, one line a problem, where a row is not whole."""
    types = get_type_hints(Measurement)
    try:
        lines = read_csv(path, tuple(types))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it comes with the project: restore it") from None
    problems, rows = [], []
    for number, line in enumerate(lines, start=2):
        try:
            row = Measurement(**{key: from_cell(line[key], types[key]) for key in types})
        except ValueError as error:
            problems.append(f"{path}:{number}: {line['id']}: {error}; write a number, true or false, or nothing")
            continue
        rows.append(row)
        if problem := _problem(row):
            problems.append(f"{path}:{number}: {row.id}: {problem}")
    if problems:
        raise UserError(*problems)
    return rows


def _problem(row: Measurement) -> str | None:
    if row.use not in USES:
        return f"use: '{row.use}' is not one of {', '.join(USES)}; write one of them"
    if row.use != "fit" and not row.reason:
        return "reason: is missing; say why the row is not fitted to"
    if row.use == "excluded":
        return None
    sizes = [f.name for f in fields(Shape) if f.default is MISSING]
    missing = [key for key in ("systems", *sizes) if getattr(row, key) is None]
    if missing:
        return f"{', '.join(missing)}: missing, and a row that is used needs them; write them"
    strange = [key for key in ("value", *COUNTED) if not _is_amount(getattr(row, key))]
    return f"{', '.join(strange)}: no number above 0; write one" if strange else None


def _is_amount(value: int | str | None) -> bool:
    try:
        return value is None or 0 < float(value) < math.inf
    except (ValueError, OverflowError):
        return False
