"""Results as tables: runs.csv, scores.csv and hardware.csv with everything, table.md and table.html for a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cgpt.files.csv_file import write_csv
from cgpt.files.whole import write_whole
from cgpt.formats import score, short
from cgpt.records import ANSWER_BITS
from cgpt.report import flags
from cgpt.report.axes import axes_of
from cgpt.report.columns import COLUMN_KEYS, CONDITIONS, Row, column_key, column_names, grouped
from cgpt.report.labels import LABELS
from cgpt.report.machines.table import finetuning_table, hardware_rows, hardware_table
from cgpt.report.page import Cell, Page, Table, html, markdown
from cgpt.report.printed import printed_table
from cgpt.report.rows import Rows, collect, output_folder
from cgpt.report.score_table import ANY_VALUE, AS_GOOD, loss_table, score_table
from cgpt.scaling.machines import HARDWARE_COLUMNS
from cgpt.scaling.points import RUN_COLUMNS
from cgpt.scaling.seeds import CONFIDENCE
from cgpt.spec import Experiment

if TYPE_CHECKING:
    from cgpt.experiment.run import Plan

SCORE_COLUMNS = ("experiment", "model", "n_parameters", "data", "setting", "seed", "hardware", "timing",
                 "weights_dtype", "stage", "condition", "n_labels", "task", "task_version", "n_shot", "metric",
                 "filter", "primary", "value", "stderr", "higher_is_better", "chance", "n_samples", "documents",
                 "n_prompts_cut", "evaluate_run", "finetune_run", "pretrain_run", "published", "published_z",
                 "reproduced")  # fmt: skip

# The columns of the pretraining table after the model.
_PRETRAINING = (
    "seed", "data", "hardware", "n_parameters", "tokens", "flops", "validation_loss", "validation_bits_per_byte",
    "seconds", "tokens_per_s", "peak_memory_bytes", "energy_j", "host_cpu",
)  # fmt: skip

ANSWERS = "Bits per byte of the correct answer"
MOST_NAMED = 12  # missing records

# What a modeled run does not measure; these cells carry a `~` there.
_MODELED = ("seconds", "tokens_per_s", "peak_memory_bytes", "energy_j")


def tabulate(experiment: Experiment, plan: Plan, results: Path, partial: bool = False) -> Path:
    """Write runs.csv, scores.csv, hardware.csv, table.md and table.html; nothing where it raises UserError. Returns
    their folder.

    `partial`: of the records that are there, in a folder of their own where some are not.
    """
    rows = collect(experiment, plan, results, partial)
    page = make_page(experiment, rows)
    folder = output_folder(experiment, rows, results)
    for name, columns, of_kind in (("runs", RUN_COLUMNS, rows.runs), ("scores", SCORE_COLUMNS, rows.scores),
                                   ("hardware", HARDWARE_COLUMNS, hardware_rows(rows))):  # fmt: skip
        write_csv(folder / f"{name}.csv", columns, [{key: row[key] for key in columns} for row in of_kind])
    write_whole(folder / "table.md", markdown(page).encode())
    write_whole(folder / "table.html", html(page).encode())
    return folder


def make_page(experiment: Experiment, rows: Rows) -> Page:
    """The page of an experiment: its question, what was run when, the scores, the pretraining runs."""
    primary = [row for row in rows.scores if row["primary"]]
    bits = [row for row in rows.scores if row["metric"] == ANSWER_BITS]
    pretrained = [row for row in rows.runs if row["stage"] == "pretrain"]
    diverged = [row for row in rows.diverged if row["stage"] == "pretrain"]
    axes = axes_of(experiment, [*pretrained, *diverged])
    tables = [loss_table(pretrained, diverged, axes[0])] if axes else []
    axis = next(iter(axes_of(experiment, rows.scores)), None)
    tables += [score_table("Scores", primary, experiment.tasks, axis)] if primary else []
    tables += [score_table(ANSWERS, bits, experiment.tasks, axis)] if bits else []
    tables += [table for table in [printed_table(primary)] if table]
    tables += [hardware_table(rows, experiment.tasks)] if any(not row["task"] for row in rows.metered) else []
    tables += [table for table in [finetuning_table(rows)] if table]
    tables += [pretraining_table(pretrained, flagged=not axes)] if pretrained else []
    return Page(experiment.name, experiment.question, _facts(rows, tables), tables)


def pretraining_table(runs: list[Row], flagged: bool = True) -> Table:
    """One row per pretraining run: its size, its cost and its loss. `flagged`: with warnings of losses under it."""
    names = column_names(runs)
    body = [[Cell(names[column_key(row)]), *(_run_cell(row, key) for key in _PRETRAINING)] for row in runs]
    settings = grouped(runs, COLUMN_KEYS).items()
    of_runs = [(names[key], flag) for key, seeds in settings for flag in flags.loss_flags(seeds)] if flagged else []
    labels = [LABELS.get(key, key).removesuffix(")").partition(" (") for key in ("model", *_PRETRAINING)]
    header = [Cell(label, unit) for label, _, unit in labels]
    return Table("Pretraining runs", header, body, notes=flags.notes(of_runs, (flags.LOSS_RULE,)))


def _run_cell(row: Row, key: str) -> Cell:
    value = row[key]
    if value is None:
        return Cell("")
    texts = {
        "n_parameters": short,
        "tokens": short,
        "flops": lambda flops: f"{flops:.2e}".replace("e+", "e"),
        "validation_loss": score,
        "validation_bits_per_byte": score,
        "seconds": lambda seconds: f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}",
        "tokens_per_s": lambda speed: f"{speed:,.0f}",
        "peak_memory_bytes": lambda size: f"{size / 2**30:.2f}",
        "energy_j": lambda energy: f"{energy:,.0f}",
        "host_cpu": lambda host: f"{host}, {row['threads']} threads",
    }
    text = texts.get(key, str)(value)
    return Cell("~" + text if row["timing"] == "modeled" and key in _MODELED else text)


def _facts(rows: Rows, tables: list[Table]) -> list[tuple[str, str]]:
    """Facts that a reader needs before comparing two cells."""
    facts = [("Not complete", _missing(rows))] if rows.missing else []
    if dates := sorted(row["date"][:10] for row in rows.runs):
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        commits = sorted({row["commit"] or "not recorded" for row in rows.runs})
        facts += [("Date", f"runs of {when}"), ("Commit", ", ".join(commits))]
    cells = [cell for table in tables for row in table.rows for cell in row]
    if any(" ± " in cell.text for cell in cells):
        facts.append(("mean ± sd", "mean and sample standard deviation over n training seeds, which is no interval of "
                      "the mean; one seed is given without sd"))  # fmt: skip
    elif any(row["seed"] is not None for row in (*rows.scores, *rows.runs)):
        facts.append(("one seed", "each result is of one training seed: how far seeds differ is not known"))
    if any("se " in cell.note for cell in cells):
        facts.append(("se", "standard error of the metric over the test documents (with several seeds, the mean of "
                      "theirs): one se each way covers about 68 %, and training seeds are no part of it"))  # fmt: skip
    if any(cell.strong for cell in cells):
        facts.append(("best", "the best mean over seeds of its column, on these documents"))
    if any(" ± " in cell.text and cell.strong for cell in cells):
        sure = f"in {100 * CONFIDENCE:.0f} % of experiments"
        facts.append((AS_GOOD, f"with the best they hold the truly best one {sure}, and as often an interval holds the "
                      "best's true mean: by Student's t on the standard deviation of seeds at the better half of a "
                      "column's values (flagged ones left out), with Bonferroni's correction for all"))  # fmt: skip
    if any(cell.text == ANY_VALUE for cell in cells):
        facts.append((ANY_VALUE, "what varies does not touch this result"))
    if rows.diverged:
        facts.append(("diverged", "the training stopped at a loss that rose or was no number; its seed is in no mean"))
    facts += _meanings(rows)
    return [*facts, ("empty cell", "not known, or not run")]


def _missing(rows: Rows) -> str:
    """The number of missing records, and the first names."""
    first, more = rows.missing[:MOST_NAMED], len(rows.missing) - MOST_NAMED
    stopped = {f"{row['stage']} {row['run']}": f" (diverged at step {row['step']})" for row in rows.diverged}
    names = "; ".join(name + stopped.get(name, "") for name in first) + (f"; and {more} more" if more > 0 else "")
    return f"missing are {len(rows.missing)} of {rows.n_records} records: {names}"


def _meanings(rows: Rows) -> list[tuple[str, str]]:
    """The words for what was scored and for what was computed rather than measured, as far as they occur."""
    used = {row["condition"] for row in rows.scores}
    facts = [(word, meaning) for word, meaning in CONDITIONS.items() if word in used]
    if any(row["chance"] is not None for row in rows.scores):
        facts.insert(0, ("chance", "the expected score of guessing"))
    if any(row["metric"] == ANSWER_BITS for row in rows.scores):
        facts.append((ANSWERS.lower(), "-log2 of the probability that the model gives it, over its UTF-8 bytes"))
    if any(row["n_prompts_cut"] for row in rows.scores):
        facts.append(("prompts cut", "were longer than the model, which did not see their first tokens"))
    if shots := sorted({row["n_shot"] for row in rows.scores if row["n_shot"]}):
        words = ", ".join(f"{n}-shot" for n in shots)
        facts.append((words, "scored with as many examples of the task before each question; else with none"))
    if any(row["timing"] == "modeled" for row in (*rows.runs, *rows.metered)):
        facts.append(("~", "computed by a model of the hardware, not measured"))
    if any(row["weights_from"] != row["hardware"] for row in rows.metered):
        facts.append(("weights of", "the machine that trained the model; a modeled one computes the same bits"))
    if any(row["extrapolated"] for row in rows.metered):
        facts.append(("extrapolated", "no absolute rate of that hardware is public for so many systems, or a model so "
                      "narrow or wide; or its constants are another machine's"))  # fmt: skip
    return facts
