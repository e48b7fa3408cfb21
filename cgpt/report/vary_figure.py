"""The figure of an experiment that varies something: loss and scores against the values of the axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.errors import UserError
from cgpt.files.layers import file_of
from cgpt.report import columns
from cgpt.report.axes import AT, Axis, axes_of, beside, setting_text, value_text
from cgpt.report.columns import Row
from cgpt.report.figure import GREY, Look, handle, legend_below, new_figure, note, same_height, styles_of, write_figures
from cgpt.report.figures import CHANCE, Looks, name_metric
from cgpt.report.flags import loss_flags, score_flags
from cgpt.report.labels import LABELS
from cgpt.report.rows import collect, output_folder
from cgpt.scaling.seeds import CONFIDENCE, best_of
from cgpt.spec import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cgpt.experiment.run import Plan

MOST_PANELS = 6  # side by side; where other axes make more settings than that, these are lines of one panel
RING: Look = {"marker": "o", "markersize": 10, "fillstyle": "none"}
SEED: Look = {"marker": ".", "markersize": 3, "alpha": 0.6}
FLAGGED: Look = {"marker": "x", "markersize": 7}
DIVERGED: Look = {"marker": "^", "markersize": 7, "fillstyle": "none", "clip_on": False}
INTERVAL: Look = {"linewidth": 5.0, "alpha": 0.3, "solid_capstyle": "butt"}
WORDS: Look = {"color": "#000000", "linestyle": ":", "linewidth": 1.0}
LINES = ("-", "--", ":", "-.")  # of a task's conditions


@dataclass(frozen=True)
class Measure:
    """A quantity drawn against the axis, in a row of panels. `key` holds its value; `rows` are beside the axis."""

    name: str
    key: str
    rows: list[Row]
    diverged: list[Row]
    higher_is_better: bool | None
    flags: Callable[[Sequence[Row]], list[str]]


def plot_vary(experiment: Experiment, plan: Plan, results: Path, partial: bool = False) -> Path:
    """Write figures/vary, as .svg and .png; return the experiment's folder. `partial`: of the records that are there.
    Raises UserError, also where the experiment varies nothing."""
    if not experiment.vary:
        raise UserError(f"{file_of('experiments', experiment.name)}: vary: is missing, so there is no axis to draw; "
                        "write e.g. `vary: {train.lr: [0.001, 0.002]}`")  # fmt: skip
    rows = collect(experiment, plan, results, partial)
    pretrained, diverged = ([row for row in kind if row["stage"] == "pretrain"] for kind in (rows.runs, rows.diverged))
    scores = [row for row in rows.scores if row["primary"]]
    folder = output_folder(experiment, rows, results)
    write_figures(folder, {"vary": lambda: vary_figure(experiment, pretrained, diverged, scores)})
    return folder


def vary_figure(experiment: Experiment, runs: list[Row], diverged: list[Row], scores: list[Row]) -> Figure:
    """Loss, then the main metric of each task, in a row of panels each: mean over seeds against the main axis, the best
    mean ringed, with its interval. Other axes are panels beside each other where there are several models, else lines.
    """
    axes_there = axes_of(experiment, [*runs, *diverged, *scores])
    if not axes_there:
        return note("All results have the same value of what varies.")
    axis = axes_there[0]
    measures = _measures(experiment, axis, runs, diverged, scores)
    panels = _layout([row for measure in measures for row in (*measure.rows, *measure.diverged)])
    looks = styles_of(list(dict.fromkeys(line for lines in panels.values() for line in lines)))
    every = [row for measure in measures for row in measure.rows]
    of_models = [row for row in every if "condition" in row and not columns.is_baseline(row)]
    conditions = list(dict.fromkeys(map(columns.series, of_models)))
    across = len(panels) if len(panels) > 1 else min(3, len(measures))
    down = len(measures) if len(panels) > 1 else math.ceil(len(measures) / across)
    pairs = [(measure, panel) for measure in measures for panel in panels]
    figure, boxes = new_figure(across, down, max(6.0, 3.2 * across), 2.7 * down + 0.4, used=len(pairs))
    marks: Looks = {}  # that were drawn, by what they mean
    for box, (measure, panel) in zip(boxes, pairs, strict=False):
        for line, column in panels[panel].items():
            _line(box, measure, axis, column, looks[line], conditions, marks)
        _label(box, measure, axis)
        box.set_title("\n".join([measure.name, *filter(None, panel.split(", "))]), fontweight="bold")
    for n in range(0, len(pairs), len(panels)):
        same_height(boxes[n : n + len(panels)])
    legend_below(figure, _handles(measures, looks, conditions, marks))
    return figure


def _measures(
    experiment: Experiment, axis: Axis, runs: list[Row], diverged: list[Row], scores: list[Row]
) -> list[Measure]:
    known = [row for row in runs if row[axis.loss_key] is not None]
    touched = any(axis.name in row["point"] for row in runs + diverged)
    measures = [Measure("loss", axis.loss_key, beside(known, axis), beside(diverged, axis),
                        False if axis.same_text and axis.has_best else None, loss_flags)]  # fmt: skip
    for task in columns.tasks_of(scores, experiment.tasks):
        of_task = beside(sorted((row for row in scores if row["task"] == task), key=columns.series_order), axis)
        better = of_task[0]["higher_is_better"] if axis.has_best else None
        measures.append(Measure(task, "value", of_task, [], better, score_flags))
    return measures if touched else measures[1:]


def _layout(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """The lines of each panel, by name, with a row of the column that each stands for."""
    every = list(columns.distinct([row for row in rows if not columns.is_baseline(row)]).values())
    plain = columns.column_names([row | {"setting": ""} for row in every])
    models = {id(row): plain[columns.column_key(row | {"setting": ""})] for row in every}
    settings = list(dict.fromkeys(setting_text(row["point"]) for row in every))
    several_models = len(set(models.values())) > 1
    panels: dict[str, dict[str, Row]] = {}
    for row in every:
        model, beside_it = models[id(row)], setting_text(row["point"])
        if several_models and len(settings) <= MOST_PANELS:
            panel, line = beside_it, model
        elif several_models:
            panel, line = model, beside_it
        else:
            panel, line = "", beside_it or model
        panels.setdefault(panel, {})[line] = row
    return panels


def _line(
    box: Axes, measure: Measure, axis: Axis, column: Row, look: Look, conditions: Sequence[str], marks: Looks
) -> None:
    """Draw what one column has, a line for each condition of a task; note in `marks` what was marked."""
    baseline = [row["value"] for row in measure.rows if columns.is_baseline(row)]
    if baseline:
        box.axhline(columns.mean(baseline).value, **WORDS)
    rows = [row for row in measure.rows if not columns.is_baseline(row) and columns.belongs(row, column)]
    names = [columns.series(row) if "condition" in row else "" for row in rows]
    for name in dict.fromkeys(names):
        of_name = [row for row, its_name in zip(rows, names, strict=True) if its_name == name]
        dashes: Look = {"linestyle": LINES[conditions.index(name) % len(LINES)] if name else "-"}
        untouched = [row[measure.key] for row in of_name if row[AT] is None]
        if untouched:
            box.axhline(columns.mean(untouched).value, color=look["color"], linewidth=1.0, **dashes)
        groups = columns.grouped((row for row in of_name if row[AT] is not None), (AT,))
        settings = {value: groups[value,] for value in axis.values if (value,) in groups}
        if settings:
            _points(box, measure, axis, settings, look | dashes, marks)
    for row in measure.diverged:
        if columns.belongs(row, column):
            marks["diverged"] = {"linestyle": ""} | DIVERGED
            box.plot(_x(axis, row[AT]), 0.97, color=look["color"], transform=box.get_xaxis_transform(), **DIVERGED)


def _points(box: Axes, measure: Measure, axis: Axis, settings: dict[Any, list[Row]], look: Look, marks: Looks) -> None:
    """One line: means with their sd, every seed as a dot, a ring and the interval at the best mean, crosses where a
    setting is flagged."""
    values = [[row[measure.key] for row in seeds] for seeds in settings.values()]
    strange = [bool(measure.flags(seeds)) for seeds in settings.values()]
    xs = [_x(axis, value) for value in settings]
    means = [columns.mean(of_setting) for of_setting in values]
    bars = [summary.sd or 0.0 for summary in means] if any(summary.sd for summary in means) else None
    if bars:
        marks["sd over seeds, and single seeds"] = {"marker": "|", "markersize": 9} | {"linestyle": ""}
    if any(strange):
        marks["flagged (see the table)"] = {"linestyle": ""} | FLAGGED
    box.errorbar(xs, [summary.value for summary in means], yerr=bars, capsize=2, elinewidth=1.0, **look)
    for x, of_setting, flagged in zip(xs, values, strange, strict=True):
        mark: Look = FLAGGED if flagged else SEED
        box.plot([x] * len(of_setting), of_setting, linestyle="", color=look["color"], **mark)
    if len(values) < 2 or measure.higher_is_better is None:
        return
    best = best_of(values, measure.higher_is_better, [not flagged for flagged in strange])
    x, y = xs[best.setting], means[best.setting].value
    if best.low is not None and best.high is not None:
        box.plot([x, x], [best.low, best.high], color=look["color"], **INTERVAL)
        marks[f"{100 * CONFIDENCE:.0f} % interval of the best"] = INTERVAL
    marks["best"] = {"linestyle": ""} | RING
    box.plot(x, y, color=look["color"], **RING)


def _label(box: Axes, measure: Measure, axis: Axis) -> None:
    box.set_xlabel(axis.name)
    if axis.logarithmic:
        box.set_xscale("log")
        box.minorticks_off()
    texts = [value_text(value) for value in axis.values]
    xs = sorted(_x(axis, value) for value in axis.values)
    places = [math.log(x) for x in xs] if axis.logarithmic else xs
    closest = min(b - a for a, b in itertools.pairwise(places)) / (places[-1] - places[0])
    if axis.logarithmic or not axis.numeric or closest > 0.06:
        slanted: Look = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        slanted |= {"rotation": 90, "va": "center"} if closest < 0.06 else {}
        crowded = len(texts) > 5 or sum(map(len, texts)) > 30 or closest < 0.15
        box.set_xticks([_x(axis, value) for value in axis.values], texts, fontsize=9, **(slanted if crowded else {}))
    if not axis.numeric:
        box.set_xlim(-0.5, len(axis.values) - 0.5)
    elif axis.logarithmic:
        rim = (axis.values[-1] / axis.values[0]) ** 0.06
        box.set_xlim(axis.values[0] / rim, axis.values[-1] * rim)
    if measure.key == "value":
        name_metric(box, measure.rows[0])
    else:
        box.set_ylabel(LABELS[measure.key].replace(" (", "\n("))


def _x(axis: Axis, value: Any) -> float:
    """Where a value stands: numbers at themselves, words side by side."""
    return float(value) if axis.numeric else float(axis.values.index(value))


def _handles(measures: list[Measure], looks: Looks, conditions: Sequence[str], marks: Looks) -> list[Any]:
    """Entries of the legend: lines, conditions where there are several, and the marks that occur."""
    rows = [row for measure in measures for row in measure.rows]
    handles = [handle(name, **look) for name, look in looks.items()]
    if len(conditions) > 1:
        handles += [handle(name, color=GREY, linestyle=dash) for name, dash in zip(conditions, itertools.cycle(LINES))]
    handles += [handle(columns.BASELINE, **WORDS)] if any(map(columns.is_baseline, rows)) else []
    handles += [handle("chance", **CHANCE)] if any(row.get("chance") is not None for row in rows) else []
    return handles + [handle(meaning, color=GREY, **look) for meaning, look in marks.items()]
