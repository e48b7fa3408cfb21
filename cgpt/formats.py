"""Text in columns, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """One line a row, of rows of one length; the first `left` columns begin where their width does, the others end
    there."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) if place < left else cell.rjust(width)
                      for place, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]  # fmt: skip
