"""Prints one table of several processors' benchmarks, a column each: our speed, and our ratio to the best peer."""

import argparse
from pathlib import Path
from typing import Any

from columns import COMPARISON, read_rows
from sides import OUR_SIDES, OURS
from table import machine, words

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path, help="table.csv of each processor, in the order of the columns")
    arguments = parser.parse_args()
    print(as_text([row for path in arguments.tables for row in read_rows(path, COMPARISON)]))


def as_text(rows: list[Row]) -> str:
    """A row per benchmark, a column per processor and level; "-" where it was not measured there."""
    ours = [row for row in rows if row["side"] in OUR_SIDES]
    processors = list(dict.fromkeys(machine(row) for row in ours))
    cells = {(_name(row), machine(row)): _cell(row) for row in ours}
    lines = [["tokens/s: against the best of the others", *processors], ["---"] * (1 + len(processors))]
    lines += [[name, *(cells.get((name, one), "-") for one in processors)] for name in dict.fromkeys(map(_name, ours))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(row: Row) -> str:
    return words(row) + row["side"].removeprefix(OURS)


def _cell(row: Row) -> str:
    return f"{row['tokens_per_s']:,.0f}: {row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"


if __name__ == "__main__":
    main()
