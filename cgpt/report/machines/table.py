"""The same training on several machines in one table: measured and modeled told apart, and never averaged."""

from cgpt.formats import amount, score
from cgpt.report.columns import Row, column_key, column_names, series, series_order
from cgpt.report.page import Cell, Table, table_of
from cgpt.report.rows import Rows
from cgpt.report.score_table import metric_text
from cgpt.scaling.machines import HARDWARE_COLUMNS

# Column, label, unit, format; what is modeled carries a `~`.
_COSTS: tuple[tuple[str, str, str, float], ...] = (
    ("step_s", "step time", "s", 1.0),
    ("tokens_per_s", "tokens per second", "", 1.0),
    ("utilisation", "utilisation", "% of the dense peak", 100.0),
    ("energy_j_per_token", "energy per token", "J", 1.0),
    ("seconds", "time to train", "s", 1.0),
    ("energy_j", "energy to train", "kJ", 1e-3),
)


def hardware_rows(rows: Rows) -> list[Row]:
    """HARDWARE_COLUMNS, and `trained_run` for the scores: each pretrained model on the machine that trained it and on
    every modeled one, models from small to large, the machine that trained first. What trained on a modeled machine has
    one row, from the cost model."""
    of_machines: list[Row] = []
    for run in (row for row in rows.runs if row["stage"] == "pretrain"):
        of_machines += [_measured(run)] if run["timing"] == "measured" else []
        of_machines += [{key: metered[key] for key in (*HARDWARE_COLUMNS, "trained_run")}
                        for metered in rows.metered if metered["trained_run"] == run["run"]]  # fmt: skip
    return of_machines


def _measured(run: Row) -> Row:
    """A training run's row: a step's seconds are its tokens over its speed; of energy nothing was measured."""
    row = {key: run.get(key) for key in HARDWARE_COLUMNS} | {"trained_run": run["run"], "systems": 1}
    if run["tokens_per_s"]:
        row["step_s"] = run["tokens"] / run["steps"] / run["tokens_per_s"]
    return row


def hardware_table(rows: Rows, tasks: tuple[str, ...]) -> Table:
    """One row per model and machine: loss, scores, and what a step and the whole training take."""
    of_machines = hardware_rows(rows)
    names = column_names(map(anywhere, of_machines))
    scores = [(task, *shown) for task in tasks if (shown := _scores(rows.scores, task))]
    header: list[str | Cell] = ["model", "hardware", "seconds", "seed", Cell("validation loss", "nats per token")]
    header += [Cell(task, label) for task, label, _ in scores]
    header += [*(Cell(label, unit) for _, label, unit, _ in _COSTS), "bound by"]
    body = []
    for row in of_machines:
        loss = row["validation_loss"]
        elsewhere = row["weights_from"] not in (None, row["hardware"])
        timing = Cell(row["timing"], f"weights of {row['weights_from']}" if elsewhere else "")
        body.append([
            names[column_key(anywhere(row))], _machine(row), timing, str(row["seed"]),
            "" if loss is None else f"{loss:.3f}", *(by_run.get(row["trained_run"], "") for _, _, by_run in scores),
            *(amount_cell(row[key], factor, row["timing"] == "modeled") for key, _, _, factor in _COSTS),
            (row["bound_by"] or "").replace("_", " "),
        ])  # fmt: skip
    return table_of("Machines", header, body, in_groups=True)


def finetuning_table(rows: Rows) -> Table | None:
    """One row per fine-tuning of an imported model and machine: what a step and the whole take; None where nothing was
    metered."""
    metered: dict[str, list[Row]] = {}
    for row in (row for row in rows.metered if row["task"]):
        metered.setdefault(row["trained_run"], []).append(row)
    tuned = [row for row in rows.runs if row["run"] in metered]
    names = column_names(map(anywhere, tuned))
    header: list[str | Cell] = ["model", "task", "hardware", "seconds", "seed"]
    header += [*(Cell(label, unit) for _, label, unit, _ in _COSTS), "bound by"]
    body = []
    for run in tuned:
        of_machines = [_measured(run)] if run["timing"] == "measured" else []
        start = {"pretrained": "fine-tuned", "scratch": "from scratch"}[run["start"]]
        labels = f", {run['n_labels']} labels" if run["n_labels"] else ""
        for row in [*of_machines, *metered[run["run"]]]:
            weights = f"weights of {row['weights_from']}" if row["weights_from"] not in (None, row["hardware"]) else ""
            body.append([
                names[column_key(anywhere(run))], Cell(run["task"], start + labels), _machine(row),
                Cell(row["timing"], weights), str(row["seed"]),
                *(amount_cell(row[key], factor, row["timing"] == "modeled") for key, _, _, factor in _COSTS),
                (row["bound_by"] or "").replace("_", " "),
            ])  # fmt: skip
    return table_of("Machines, fine-tuning", header, body, in_groups=True) if body else None


def anywhere(row: Row) -> Row:
    """The row as if it were of no machine, so that the same model has the same name and colour on all of them."""
    return row | {"hardware": "", "timing": ""}


def _scores(scores: list[Row], task: str) -> tuple[str, dict[str, str]] | None:
    """Name of a task's main metric, and its value by pretraining run: fine-tuned where there is that."""
    of_task = [row for row in scores if row["task"] == task and row["primary"] and row["pretrain_run"]]
    if not of_task:
        return None
    last = max(of_task, key=series_order)  # fine-tuned before few-shot before zero-shot, many labels before few
    values = {row["pretrain_run"]: score(row["value"]) + row["scale"].unit
              for row in of_task if series(row) == series(last)}  # fmt: skip
    return f"{metric_text(last)}, {series(last)}", values


def _machine(row: Row) -> Cell:
    notes = [f"{row['systems']} systems"] if row["systems"] and row["systems"] > 1 else []
    notes += ["does not fit in memory"] if row["in_memory"] is False else []
    return Cell(row["hardware"], ", ".join([*notes, "extrapolated"] if row["extrapolated"] else notes))


def amount_cell(value: float | None, factor: float = 1.0, modeled: bool = True) -> Cell:
    """Three digits, or all before the point, of the value in the table's unit; empty where it is not known."""
    if value is None:
        return Cell("")
    text = amount(value * factor)
    return Cell("~" + text if modeled else text)
