"""Results as tables: runs.csv, scores.csv and hardware.csv with everything, table.md and table.html for a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.collect import (
    COLUMN_KEYS,
    Mean,
    Row,
    Rows,
    collect,
    column_key,
    column_names,
    grouped,
    mean,
    series,
    series_order,
    short,
)
from cgpt.devices import device_rows, device_table
from cgpt.page import Cell, Page, Table, html, markdown
from cgpt.records import ANSWER_BITS, HARDWARE_COLUMNS, LABELS, RUN_COLUMNS, SCORE_COLUMNS, write_csv, write_whole
from cgpt.spec import Experiment

if TYPE_CHECKING:
    from cgpt.plan import Plan

# The columns of the pretraining table after the model.
_PRETRAINING = (
    "seed", "data", "hardware", "n_parameters", "tokens", "flops", "validation_loss", "validation_bits_per_byte",
    "seconds", "tokens_per_s", "peak_memory_bytes", "energy_j", "host_cpu",
)  # fmt: skip

ANSWERS = "Bits per byte of the correct answer"

# What a modeled run does not measure; these cells carry a `~` there.
_MODELED = ("seconds", "tokens_per_s", "peak_memory_bytes", "energy_j")


def tabulate(experiment: Experiment, plan: Plan, results: Path) -> None:
    """Write runs.csv, scores.csv, hardware.csv, table.md and table.html; nothing where it raises UserError."""
    rows = collect(experiment, plan, results)
    page = make_page(experiment, rows)
    folder = results / experiment.name
    write_csv(folder / "runs.csv", RUN_COLUMNS, rows.runs)
    write_csv(folder / "scores.csv", SCORE_COLUMNS, rows.scores)
    devices = [{key: row[key] for key in HARDWARE_COLUMNS} for row in device_rows(rows)]
    write_csv(folder / "hardware.csv", HARDWARE_COLUMNS, devices)
    write_whole(folder / "table.md", markdown(page).encode())
    write_whole(folder / "table.html", html(page).encode())


def make_page(experiment: Experiment, rows: Rows) -> Page:
    """The page of an experiment: its question, what was run when, the scores, the pretraining runs."""
    primary = [row for row in rows.scores if row["primary"]]
    bits = [row for row in rows.scores if row["metric"] == ANSWER_BITS]
    tables = [score_table("Scores", primary, experiment.tasks)] if primary else []
    tables += [score_table(ANSWERS, bits, experiment.tasks)] if bits else []
    pretrained = [row for row in rows.runs if row["stage"] == "pretrain"]
    tables += [device_table(rows, experiment.tasks)] if rows.metered else []
    tables += [pretraining_table(pretrained)] if pretrained else []
    return Page(experiment.name, experiment.question, _facts(rows), tables)


def score_table(title: str, scores: list[Row], tasks: tuple[str, ...]) -> Table:
    """One metric of each task: one row per condition, one column per model from small to large."""
    of_models = [row for row in scores if row["condition"] != "bag of words"]
    columns = column_names(of_models)
    header = [Cell("task"), Cell("condition")]
    header += [Cell(name, f"{short(key[0])} parameters") for key, name in columns.items()]
    body = []
    for task in sorted({row["task"] for row in scores}, key=lambda task: (task not in tasks, _place(task, tasks))):
        of_task = sorted((row for row in scores if row["task"] == task), key=series_order)
        heading = _task_cell(of_task[0])
        if of_task[0]["chance"] is not None:
            body.append([heading, Cell("chance"), *[Cell(number(of_task[0]["chance"]))] * len(columns)])
        for name in dict.fromkeys(series(row) for row in of_task):
            cells = _score_cells([row for row in of_task if series(row) == name], list(columns))
            body.append([heading, Cell(name), *cells])
    return Table(title, header, body, in_groups=True)


def pretraining_table(runs: list[Row]) -> Table:
    """One row per pretraining run: its size, its cost and its loss."""
    names = column_names(runs)
    body = [[Cell(names[column_key(row)]), *(_run_cell(row, key) for key in _PRETRAINING)] for row in runs]
    return Table("Pretraining runs", [_label_cell(key) for key in ("model", *_PRETRAINING)], body)


def number(value: float | None) -> str:
    """A score with three decimals, or four digits where it is large; unknown is empty."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def score_cell(summary: Mean) -> Cell:
    """`mean ± sd` and, as the note, n and the metric's own standard error."""
    notes = [f"n {summary.n}"] if summary.n > 1 else []
    notes += [f"se {number(summary.se)}"] if summary.se is not None else []
    spread = f" ± {number(summary.sd)}" if summary.sd is not None else ""
    return Cell(number(summary.value) + spread, ", ".join(notes))


def _place(task: str, tasks: tuple[str, ...]) -> Any:
    return tasks.index(task) if task in tasks else task


def _task_cell(row: Row) -> Cell:
    direction = "higher is better" if row["higher_is_better"] else "lower is better"
    said = {"all": f"{row['n_samples']} documents", "some": f"{row['n_samples']} documents, not all of them"}
    documents = said.get(row["documents"], f"{row['documents']} documents")
    return Cell(row["task"], f"{row['metric']}, {direction}, {documents}")


def _score_cells(rows: list[Row], columns: list[tuple]) -> list[Cell]:
    """One cell per column; the baseline has no model, so that its one value stands in every column."""
    cells = {
        column: _with_cuts(score_cell(mean([row["value"] for row in seeds], [row["stderr"] for row in seeds])), seeds)
        for column, seeds in grouped(rows, COLUMN_KEYS).items()
    }
    if rows[0]["condition"] == "bag of words":
        return list(cells.values()) * len(columns)
    return [cells.get(column, Cell("")) for column in columns]


def _with_cuts(cell: Cell, rows: list[Row]) -> Cell:
    """The cell, noting how many prompts were longer than the model."""
    n_cut = max(row["n_prompts_cut"] for row in rows)
    said = f"{n_cut} of {rows[0]['n_samples']} prompts cut" if n_cut else ""
    return Cell(cell.text, ", ".join(filter(None, (cell.note, said))))


def _label_cell(column: str) -> Cell:
    """A column's label, with its unit as the note."""
    label, _, unit = LABELS[column].removesuffix(")").partition(" (")
    return Cell(label, unit)


def _run_cell(row: Row, key: str) -> Cell:
    value = row[key]
    if value is None:
        return Cell("")
    texts = {
        "n_parameters": short,
        "tokens": short,
        "flops": lambda flops: f"{flops:.2e}".replace("e+", "e"),
        "validation_loss": number,
        "validation_bits_per_byte": number,
        "seconds": lambda seconds: f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}",
        "tokens_per_s": lambda speed: f"{speed:,.0f}",
        "peak_memory_bytes": lambda size: f"{size / 2**30:.2f}",
        "energy_j": lambda energy: f"{energy:,.0f}",
        "host_cpu": lambda host: f"{host}, {row['threads']} threads",
    }
    text = texts.get(key, str)(value)
    return Cell("~" + text if row["timing"] == "modeled" and key in _MODELED else text)


def _facts(rows: Rows) -> list[tuple[str, str]]:
    """What a reader needs to know before comparing two cells."""
    dates = sorted(row["date"][:10] for row in rows.runs)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    commits = sorted({row["commit"] or "not recorded" for row in rows.runs})
    facts = [("Date", f"runs of {when}"), ("Commit", ", ".join(commits))]
    if rows.scores:
        facts += [
            ("mean ± sd", "mean and sample standard deviation over n training seeds; one seed is given without sd"),
            ("se", "standard error of the metric over the test documents (with several seeds, the mean of theirs)"),
            ("chance", "the expected score of guessing"),
            ("from scratch", "random weights, trained on the task alone"),
            ("zero-shot", "the pretrained model, which has seen no example of the task"),
            ("fine-tuned", "the pretrained model, trained further on the task"),
        ]
        if any(row["n_prompts_cut"] for row in rows.scores):
            facts.append(("prompts cut", "were longer than the model, which did not see their first tokens"))
        if any(row["n_shot"] for row in rows.scores):
            facts.append(("3-shot", "scored with as many examples of the task before each question; else with none"))
        if any(row["metric"] == ANSWER_BITS for row in rows.scores):
            facts.append((ANSWERS.lower(), "-log2 of the probability that the model gives it, over its UTF-8 bytes"))
        if any(row["condition"] == "bag of words" for row in rows.scores):
            facts.append(("bag of words", "logistic regression on word counts, trained on the same labels"))
    if any(row["timing"] == "modeled" for row in (*rows.runs, *rows.metered)):
        facts.append(("~", "computed by a model of the hardware, not measured"))
    if any(row["weights_from"] != row["hardware"] for row in rows.metered):
        facts.append(("weights of", "the machine that trained the model; a modeled one computes the same bits"))
    if any(row["extrapolated"] for row in rows.metered):
        no_rate = "no absolute rate of that hardware is public for so many systems, or a model so narrow or wide"
        facts.append(("extrapolated", no_rate))
    facts.append(("empty cell", "not known, or not run"))
    return facts
