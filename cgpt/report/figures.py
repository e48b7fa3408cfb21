"""Results as figures: loss curves, scores before and after fine-tuning, correct answers and compute against loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.formats import short
from cgpt.records import ANSWER_BITS, read_loss
from cgpt.report import columns
from cgpt.report.columns import Row
from cgpt.report.figure import (
    COLOURS,
    GREY,
    MARKERS,
    Look,
    handle,
    legend_below,
    log_ticks,
    name_log_axis,
    new_figure,
    note,
    styles_of,
    write_figures,
)
from cgpt.report.labels import LABELS
from cgpt.report.rows import collect, output_folder
from cgpt.report.score_table import metric_text
from cgpt.spec import PARAMETRIZATIONS, Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cgpt.experiment.run import Plan

Looks = dict[str, Look]
CHANCE: Look = {"color": GREY, "linestyle": "--", "linewidth": 1.0}
MOST_INSIDE = 6  # entries of a legend, or labels of points, that do not cover what is drawn
MOST_INCHES = 16.0  # of a figure's width
BARS = "bars: sd over seeds, where n=1 the standard error over documents"


def plot(experiment: Experiment, plan: Plan, results: Path, partial: bool = False) -> Path:
    """Write figures/loss, scores, answers and compute of an experiment, each as .svg and .png; return its folder.
    `partial`: of the records that are there. Raises UserError."""
    rows = collect(experiment, plan, results, partial)
    pretrained = [row for row in rows.runs if row["stage"] == "pretrain"]
    curves = {row["run"]: read_loss(results / "runs" / "pretrain" / row["run"] / "loss.csv") for row in pretrained}
    kinds = {run.id: PARAMETRIZATIONS[run.spec["model"]["parametrization"]] for run in plan.of("pretrain")}
    figures: dict[str, Callable[[], Figure]] = {
        "loss": lambda: loss_figure(pretrained, curves),
        "scores": lambda: scores_figure([row for row in rows.scores if row["primary"]], experiment.tasks),
        "answers": lambda: answers_figure(rows.scores, pretrained, experiment.tasks, kinds),
        "compute": lambda: compute_figure(pretrained),
    }
    folder = output_folder(experiment, rows, results)
    write_figures(folder, figures)
    return folder


def loss_figure(runs: list[Row], curves: dict[str, list[dict[str, float | None]]]) -> Figure:
    """Loss against tokens: a thin line for training, a thick one with points for validation, one colour per model."""
    if not runs:
        return note("No model of this experiment is pretrained.")
    names = columns.column_names(runs)
    figure, (axes,) = new_figure()
    styles = styles_of(names)
    for row in runs:
        style = styles[columns.column_key(row)]
        tokens, loss = _points(curves[row["run"]], "train_loss")
        axes.plot(tokens, loss, color=style["color"], linewidth=0.7, alpha=0.45)
        tokens, loss = _points(curves[row["run"]], "validation_loss")
        axes.plot(tokens, loss, **{**style, "markersize": 3.5})
    name_log_axis(axes, LABELS["tokens"])
    axes.set_ylabel("loss (nats per token)")
    handles = []
    for key, name in names.items():
        n_seeds = sum(columns.column_key(row) == key for row in runs)
        seeds = f", n={n_seeds}" if n_seeds > 1 else ""
        handles.append(handle(f"{name}, {short(key[0])} parameters{seeds}", **styles[key]))
    handles += [handle("validation", color=GREY, marker="o"), handle("training", color=GREY, linewidth=0.7)]
    if len(names) > MOST_INSIDE:
        legend_below(figure, handles)
    else:
        axes.legend(handles=handles)
    return figure


def scores_figure(scores: list[Row], task_order: tuple[str, ...]) -> Figure:
    """One panel per task: score against model size, one colour per condition; chance is a dashed line."""
    if not scores:
        return note("This experiment has no tasks.")
    tasks = columns.tasks_of(scores, task_order)
    scores, titles = _labels_to_titles(scores, tasks)
    looks = _looks(scores)
    models = columns.column_names([row for row in scores if not columns.is_baseline(row)])
    wide = max(3.0, 0.3 * len(models))
    across = min(len(tasks), 3 if len(tasks) != 4 else 2, max(1, int(MOST_INCHES / wide)))
    down = math.ceil(len(tasks) / across)
    labels = 0.06 * max(map(len, models.values()), default=0) if len(models) > 3 else 0.0
    figure, panels = new_figure(across, down, max(6.0, wide * across), 3.0 * down + 0.6 + labels, used=len(tasks))
    for axes, task in zip(panels, tasks, strict=False):
        _task_panel(axes, [row for row in scores if row["task"] == task], looks, list(models))
        axes.set_title(titles[task], fontweight="bold")
    turned = 40 if len(models) <= MOST_INSIDE else 90  # steep where slanted names would lie on each other
    slanted: dict[str, Any] = {"rotation": turned, "ha": "right", "rotation_mode": "anchor"} if len(models) > 3 else {}
    slanted |= {"va": "center"} if turned == 90 else {}
    for n, axes in enumerate(panels[: len(tasks)]):
        labels_below = list(models.values()) if n + across >= len(tasks) else [""] * len(models)
        axes.set_xticks(range(len(models)), labels_below, fontsize=9, **slanted)
    handles = _handles(looks, scores)
    ncols = min(len(handles), 5 if across > 2 else 3)
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, title=BARS, title_fontsize=9)
    return figure


def answers_figure(
    scores: list[Row], pretrained: list[Row], task_order: tuple[str, ...], kinds: Mapping[str, str]
) -> Figure:
    """Pretrained models, one column per task: bits per byte of the correct answer, and below it the main metric, both
    against validation loss, which falls to the right. The labels of the upper points hold for those below them.

    `kinds`: each pretraining run's parametrization, which has a colour of its own where there are several.
    """
    losses = {row["run"]: row["validation_loss"] for row in pretrained if row["validation_loss"] is not None}
    scores = [row for row in scores if row["stage"] == "pretrain" and row["pretrain_run"] in losses]
    several = len({kinds[row["pretrain_run"]] for row in scores}) > 1

    def name(row: Row) -> str:
        return f"{columns.series(row)}, {kinds[row['pretrain_run']]}" if several else columns.series(row)

    tasks = columns.tasks_of((row for row in scores if row["metric"] == ANSWER_BITS), task_order)
    if not tasks:
        return note("No pretrained model has bits per byte of a correct answer.")
    across = min(len(tasks), 5)
    down = 2 * math.ceil(len(tasks) / across)
    figure, panels = new_figure(across, down, width=max(6.0, 2.6 * across), height=2.2 * down + 0.8)
    pairs = [(panels[n], panels[n + across]) for n in range(len(panels)) if n // across % 2 == 0]
    first, *others = _looks(scores, name).items()
    looks = dict([first, *((kind, {**look, "fillstyle": "none"}) for kind, look in others)])
    for (upper, lower), task in zip(pairs, tasks, strict=False):
        of_task = [row for row in scores if row["task"] == task]
        answer_bits = [row for row in of_task if row["metric"] == ANSWER_BITS]
        primary = [row for row in of_task if row["primary"]]
        _against_loss(upper, answer_bits, losses, looks, name, labelled=True)
        _against_loss(lower, primary, losses, looks, name, labelled=False)
        upper.set_title(task, fontweight="bold")
        upper.set_ylabel("bits per byte\nof the correct answer")
        upper.tick_params(labelbottom=False)
    for upper, lower in pairs[len(tasks) :]:
        upper.set_axis_off()
        lower.set_axis_off()
    figure.supxlabel(f"{LABELS['validation_loss']}, falling", fontsize=10)
    handles = _handles(looks, [row for row in scores if row["primary"]])
    # Below the panels the legend would hide the label of the axis.
    figure.legend(handles=handles, loc="outside upper center", ncols=5, title=BARS, title_fontsize=9)
    return figure


def compute_figure(runs: list[Row]) -> Figure:
    """Validation loss against training FLOPs: a point per model, its mean over seeds, with their sd as the bar."""
    known = [row for row in runs if row["validation_loss"] is not None]
    if not known:
        return note("No run has a validation loss.")
    figure, (axes,) = new_figure()
    names = columns.column_names(known)
    styles = styles_of(names)
    handles: list[Any] = []
    models = columns.grouped(known, columns.COLUMN_KEYS)
    for key, seeds in models.items():
        flops = columns.mean([row["flops"] for row in seeds]).value
        loss = columns.mean([row["validation_loss"] for row in seeds])
        axes.errorbar(flops, loss.value, yerr=loss.sd, capsize=3, **styles[key])
        label = f"{names[key]}, {short(key[0])}, n={loss.n}"
        handles.append(handle(label, **styles[key]))
        if len(names) <= MOST_INSIDE:
            axes.annotate(label, (flops, loss.value), xytext=(7, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.15)
    low, high = axes.get_xlim()
    if len(names) > MOST_INSIDE:
        legend_below(figure, handles)
    else:
        axes.set_xlim(low, high * (high / low) ** 0.28)  # room for the last point's label
    log_ticks(axes.xaxis)
    axes.set_xlabel(LABELS["flops"])
    axes.set_ylabel(LABELS["validation_loss"])
    if any(len(seeds) > 1 for seeds in models.values()):
        axes.set_title("bars: sd over seeds", loc="right", fontsize=8)
    return figure


def _points(curve: list[dict[str, float | None]], key: str) -> tuple[list[float], list[float]]:
    """Tokens and values of the steps that have one; step 0 has no place on a logarithmic axis."""
    pairs = ((step["tokens"], step[key]) for step in curve)
    kept = [(tokens, value) for tokens, value in pairs if tokens and value is not None]
    return [tokens for tokens, _ in kept], [value for _, value in kept]


def _labels_to_titles(scores: list[Row], tasks: list[str]) -> tuple[list[Row], dict[str, str]]:
    """Say in the panel's title, not in the legend, how many labels a task's models had, where all had the same."""
    counts = {task: {row["n_labels"] for row in scores if row["task"] == task} - {None} for task in tasks}
    titles = {task: f"{task}, {min(counts[task])} labels" if len(counts[task]) == 1 else task for task in tasks}
    return [row | {"n_labels": None} if len(counts[row["task"]]) == 1 else row for row in scores], titles


def _looks(scores: list[Row], name: Callable[[Row], str] = columns.series) -> Looks:
    """The look of each condition, in the order of the legend: models are points, the baseline is a line."""
    looks: Looks = {}
    for row in sorted(scores, key=columns.series_order):
        if name(row) not in looks:
            n = len(looks) % len(COLOURS)
            marks = {"linestyle": ":"} if columns.is_baseline(row) else {"linestyle": "", "marker": MARKERS[n]}
            looks[name(row)] = {"color": COLOURS[n], **marks}
    return looks


def _task_panel(axes: Axes, rows: list[Row], looks: Looks, models: list[tuple]) -> None:
    """One task's scores; conditions stand side by side at each model, so that no error bar hides another."""
    here = [name for name in looks if any(columns.series(row) == name for row in rows)]
    points = [name for name in here if "marker" in looks[name]]
    for name in here:
        of_name = [row for row in rows if columns.series(row) == name]
        if name not in points:
            axes.axhline(columns.mean([row["value"] for row in of_name]).value, **looks[name])
            continue
        shift = min(0.14, 0.7 / len(points)) * (points.index(name) - (len(points) - 1) / 2)
        for key, seeds in columns.grouped(of_name, columns.COLUMN_KEYS).items():
            _point(axes, models.index(key) + shift, seeds, looks[name])
    name_metric(axes, rows[0])
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
    axes.set_xlim(-0.5, max(1, len(models)) - 0.5)


def _against_loss(
    axes: Axes, rows: list[Row], losses: dict[str, float], looks: Looks, name: Callable[[Row], str], labelled: bool
) -> None:
    """One metric of one task against the mean validation loss of each model's seeds, by pretraining run."""
    labels: list[str] = []
    sizes = sorted({row["n_parameters"] for row in rows})
    shown = sizes if len(sizes) <= MOST_INSIDE + 2 else [sizes[0], sizes[-1]]  # more labels would lie on each other
    for kind in dict.fromkeys(map(name, rows)):
        for seeds in columns.grouped((row for row in rows if name(row) == kind), columns.COLUMN_KEYS).values():
            x = columns.mean(losses[row["pretrain_run"]] for row in seeds).value
            y = _point(axes, x, seeds, looks[kind])
            label = f"{short(seeds[0]['n_parameters'])}, n={len(seeds)}"
            # Once for SP and muP of a size; sides take turns.
            if labelled and label not in labels and seeds[0]["n_parameters"] in shown:
                offset, side = (((5, 3), "left"), ((-6, -8), "right"))[len(labels) % 2]
                axes.annotate(label, (x, y), xytext=offset, textcoords="offset points", ha=side, fontsize=7)
                labels.append(label)
    name_metric(axes, rows[0])
    axes.margins(0.12)
    low, high = axes.get_xlim()
    axes.set_xlim(high + 0.45 * (high - low), low - 0.4 * (high - low))  # falling; room for the outer labels


def _point(axes: Axes, x: float, seeds: list[Row], look: Look) -> float:
    """Draw and return the mean over seeds; the bar is their sd, for one seed the standard error over documents."""
    score = columns.mean([row["value"] for row in seeds], [row["stderr"] for row in seeds])
    error = score.sd if score.sd is not None else score.se
    axes.errorbar(x, score.value, yerr=error, capsize=2, elinewidth=1.2, **look)
    return score.value


def _handles(looks: Looks, scores: list[Row]) -> list[Any]:
    """Entries of a legend; chance is one where a panel has its line."""
    chance = {"chance": CHANCE} if any(row["chance"] is not None for row in scores) else {}
    return [handle(label=name, **look) for name, look in {**looks, **chance}.items()]


def name_metric(axes: Axes, row: Row) -> None:
    """Label the axis with the metric, its scale and its direction, and draw the line of chance where there is one."""
    if row["chance"] is not None:
        axes.axhline(row["chance"], **CHANCE)
    lower = {False: ", lower is better", None: ", direction not stated", True: ""}[row["higher_is_better"]]
    axes.set_ylabel(metric_text(row) + lower)
