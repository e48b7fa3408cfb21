"""Scores that a paper printed of a published model beside those that are measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cgpt.experiment.checkpoint_rows import PUBLISHED
from cgpt.files.csv_file import read_csv
from cgpt.files.layers import shipped_file
from cgpt.formats import score
from cgpt.report.columns import Row, series
from cgpt.report.page import Cell, Table, table_of
from cgpt.report.score_table import metric_text

MOST_Z = 2.0  # standard errors between a score and what was printed that chance may explain
RULE = (f"reproduced: no farther from what was printed than {MOST_Z:g} standard errors of the score over the documents "
        "and half of the last printed digit.")  # fmt: skip
COLUMNS = ("published", "published_z", "reproduced")


def add_printed(scores: Sequence[Row], published_as: Mapping[str, str]) -> None:
    """Add COLUMNS to each score, None where nothing was printed: of a model that `published_as` gives a name of
    published.csv, as it came, on that task with as many shots, in that metric."""
    printed = _read(published_as.values()) if published_as else {}
    for row in scores:
        name = published_as.get(row["model"]) if row["stage"] == "import" and row["filter"] == "none" else None
        line = printed.get((name, row["task"], row["n_shot"], row["metric"]))
        row |= dict.fromkeys(COLUMNS) | (_compared(row, line) if line else {})


def _read(names: Any) -> dict[tuple[str | None, str, int, str], dict[str, str]]:
    """The lines of published.csv by name, task, shots and metric. A name is a model, which stands for the variant that
    is listed first, or `model, variant`."""
    lines: dict[tuple[str | None, str, int, str], dict[str, str]] = {}
    for line in read_csv(shipped_file(PUBLISHED)):
        for name in (line["model"], f"{line['model']}, {line['variant']}"):
            if name in set(names):
                lines.setdefault((name, line["task"], int(line["n_shot"]), line["metric"]), line)
    return lines


def _compared(row: Row, line: Mapping[str, str]) -> Row:
    """The value that was printed, how many standard errors the score is above it, and whether it is reproduced."""
    printed, stderr = float(line["value"]), row["stderr"]
    half_digit = 0.5 * 10.0 ** -len(line["value"].partition(".")[2])
    difference = row["value"] - printed
    return {
        "published": printed,
        "published_z": difference / stderr if stderr else None,
        "reproduced": None if stderr is None else abs(difference) <= MOST_Z * stderr + half_digit,
        "published_source": line["source"],
    }


def printed_table(scores: Sequence[Row]) -> Table | None:
    """One row per score that was printed too; None where none was."""
    rows = [row for row in scores if row["published"] is not None]
    header: list[str | Cell] = ["model", "task", "condition", "here", "printed",
                                Cell("difference", "standard errors"), "reproduced"]  # fmt: skip
    body: list[list[str | Cell]] = []
    for row in rows:
        se = "standard error not known" if row["stderr"] is None else f"se {score(row['stderr'])}"
        documents = [] if row["documents"] == "all" else [f"{row['documents']} documents"]
        z = "" if row["published_z"] is None else f"{row['published_z']:+.1f}"
        answer = {True: "yes", False: "no", None: ""}[row["reproduced"]]
        body.append([row["model"], Cell(row["task"], metric_text(row)), series(row),
                     Cell(score(row["value"]), ", ".join([se, *documents])), score(row["published"]), z,
                     answer])  # fmt: skip
    sources = dict.fromkeys(row["published_source"] for row in rows)
    notes = [RULE, *(f"printed in {source}." for source in sources)]
    return replace(table_of("Beside what was published", header, body, in_groups=True), notes=notes) if rows else None
