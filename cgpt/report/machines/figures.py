"""Figures of an experiment with modeled machines: loss against time and energy, what a step is made of, rooflines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.errors import UserError
from cgpt.formats import with_prefix
from cgpt.records import read_kernels, read_loss
from cgpt.report.columns import COLUMN_KEYS, Row, column_key, column_names, grouped, mean
from cgpt.report.figure import (
    COLOURS,
    handle,
    machine_label,
    machine_styles,
    name_log_axis,
    new_figure,
    note,
    write_figures,
)
from cgpt.report.labels import LABELS, STEP_COST_LABELS
from cgpt.report.machines.roofline import make_roofline, roofline_figure
from cgpt.report.machines.table import anywhere, hardware_rows
from cgpt.report.rows import Rows, collect, output_folder
from cgpt.spec import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cgpt.experiment.run import Plan

Curve = list[dict[str, float | None]]
WHOLE = "measured as a whole"
LEAST_SHARE = 0.005  # of a step; a smaller part cannot be seen


def plot_hardware(experiment: Experiment, plan: Plan, results: Path, partial: bool = False) -> Path:
    """Write figures/time_to_loss, step_time and roofline, each as .svg and .png; return the experiment's folder.
    `partial`: of the records that are there. Raises UserError."""
    rows = collect(experiment, plan, results, partial)
    if not rows.metered:
        raise UserError(f"{experiment.name}: no record of a modeled machine is there; run the stage `meter` first")
    machines, runs = hardware_rows(rows), results / "runs"
    curves = {name: read_loss(runs / "pretrain" / name / "loss.csv") for name in {r["trained_run"] for r in machines}}
    machines += _finetunings(rows)
    specs = {run.id: run.spec for run in plan.of("meter")}
    largest = {row["hardware"]: row for row in rows.metered}  # the last of each, as models go from small to large
    rooflines = [make_roofline(row, specs[row["run"]], read_kernels(runs / "meter" / row["run"] / "kernels.csv"))
                 for row in largest.values()]  # fmt: skip
    figures: dict[str, Callable[[], Figure]] = {
        "time_to_loss": lambda: time_to_loss_figure([row for row in machines if row["trained_run"] in curves], curves),
        "step_time": lambda: step_time_figure(machines),
        "roofline": lambda: roofline_figure(rooflines),
    }
    folder = output_folder(experiment, rows, results)
    write_figures(folder, figures)
    return folder


def time_to_loss_figure(rows: list[Row], curves: dict[str, Curve]) -> Figure:
    """Validation loss against the time, and the energy, of the steps so far: a column per model, a line per machine.

    What a job takes before and after its steps, whatever the number of them, stands in the legend.
    """
    if not rows:
        return note("No model of this experiment is pretrained.")
    names = column_names(map(anywhere, rows))
    looks = machine_styles({row["hardware"]: row["timing"] for row in rows}, dash=3)
    figure, panels = new_figure(len(names), 2, width=max(6.5, 3.0 * len(names)), height=7.0)
    for (key, name), above, below in zip(names.items(), panels, panels[len(names) :]):
        for row in (row for row in rows if column_key(anywhere(row)) == key):
            curve, look = curves[row["trained_run"]], looks[row["hardware"]]
            _loss_line(above, curve, 1 / row["tokens_per_s"] if row["tokens_per_s"] else None, look)
            _loss_line(below, curve, row["energy_j_per_token"], look)
        above.set_title(name, fontweight="bold")
        for axes, cost in ((above, "seconds"), (below, "joules")):
            name_log_axis(axes, STEP_COST_LABELS[cost])
    for axes in (panels[0], panels[len(names)]):
        axes.set_ylabel(LABELS["validation_loss"])
    handles = [_machine_handle([row for row in rows if row["hardware"] == name], look) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=3.2)
    return figure


def _loss_line(axes: Axes, curve: Curve, cost_per_token: float | None, look: dict[str, Any]) -> None:
    """Loss against tokens times what a token costs; no line where that is not known."""
    if cost_per_token is None:
        return
    steps = [(step["tokens"] * cost_per_token, step["validation_loss"]) for step in curve
             if step["tokens"] and step["validation_loss"] is not None]  # fmt: skip
    axes.plot(*zip(*steps, strict=True), **look)


def _machine_handle(rows: list[Row], look: dict[str, Any]) -> Any:
    """`~cs2, modeled, extrapolated; a job takes 52 min more`."""
    row = rows[0]
    remarks = [row["timing"]] + (["energy not known"] if row["energy_j_per_token"] is None else [])
    if any(row["extrapolated"] for row in rows):
        remarks.append("extrapolated" if all(row["extrapolated"] for row in rows) else "extrapolated for some")
    return handle(machine_label(row["hardware"], row["timing"], remarks, row["job_overhead_s"]), **look)


def step_time_figure(rows: list[Row]) -> Figure:
    """The parts of a step, in percent, with its whole time at the end of the bar: a panel per model."""
    groups = grouped([row for row in rows if row["step_s"]], COLUMN_KEYS)
    if not groups:
        return note("No step time is known.")
    names = column_names(map(anywhere, rows))
    machines = list(dict.fromkeys(row["hardware"] for row in rows))
    looks = _part_looks([row["parts_s"] for row in rows if row["parts_s"]])
    width, height = max(6.5, 1.5 + 2.7 * len(names)), 1.8 + 0.42 * len(machines)
    figure, panels = new_figure(len(names), 1, width, height)
    for axes, (key, name) in zip(panels, names.items(), strict=True):
        for seeds in groups.values():
            if column_key(anywhere(seeds[0])) == key:
                _step_bar(axes, machines.index(seeds[0]["hardware"]), seeds, looks)
        axes.set_title(name, fontweight="bold")
        axes.set_yticks(range(len(machines)), machines if axes is panels[0] else [""] * len(machines))
        axes.set_ylim(len(machines) - 0.5, -0.5)
        axes.set_xlim(0, 145)
        axes.set_xticks((0, 50, 100))
        axes.set_xlabel("share of the step (%)")
        axes.spines["bottom"].set_bounds(0, 100)
        axes.grid(axis="y", visible=False)
    from matplotlib.patches import Patch

    handles = [Patch(label=part.replace("_", " "), **look) for part, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
    return figure


def _finetunings(rows: Rows) -> list[Row]:
    """The metered steps of imported models' fine-tunings, of one for each model and machine."""
    tunings = {(row["model"], row["hardware"]): row for row in rows.metered if row["task"]}
    return list(tunings.values())


def _part_looks(steps: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """A colour for each part that is to be seen in some step, and grey for what was measured as a whole."""
    parts = list(dict.fromkeys(part for step in steps for part, seconds in step.items()
                               if seconds > LEAST_SHARE * sum(step.values())))  # fmt: skip
    looks = {part: {"facecolor": COLOURS[n % len(COLOURS)], "hatch": "//" * (n // len(COLOURS))}
             for n, part in enumerate(parts)}  # fmt: skip
    return looks | {WHOLE: {"facecolor": "#c8c8c8", "hatch": ""}}


def _step_bar(axes: Axes, y: int, seeds: list[Row], looks: dict[str, dict[str, Any]]) -> None:
    """One machine's bar; seeds differ only in what was measured."""
    row, step_s = seeds[0], mean([row["step_s"] for row in seeds]).value
    parts, left = row["parts_s"] or {WHOLE: step_s}, 0.0
    for part in (part for part in looks if part in parts):
        width = 100 * parts[part] / sum(parts.values())
        axes.barh(y, width, 0.7, left, edgecolor="white", linewidth=0.5, **looks[part])
        left += width
    mark = "~" if row["timing"] == "modeled" else ""
    axes.annotate(mark + with_prefix(step_s, "s"), (104, y), va="center", fontsize=8.5)
