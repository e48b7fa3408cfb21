"""The verb `fit`: scaling laws of an experiment's runs, or of the published ones, with intervals."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.commands.folders import KEPT, reference_folder
from cgpt.commands.plan import make_plan, read_workflow
from cgpt.errors import UserError
from cgpt.experiment.run import LOCKS, RESULTS, Plan
from cgpt.files.whole import lock, write_whole
from cgpt.report.figure import write_figure, write_figures
from cgpt.report.laws import figure, machines_figure
from cgpt.report.laws import page as report
from cgpt.report.laws.published_figure import published_figure
from cgpt.report.page import markdown
from cgpt.report.rows import refuse_stale
from cgpt.scaling import downstream, published
from cgpt.scaling.machines import Machine, losses_to_reach, read_machines, ways_to
from cgpt.scaling.points import Points, read_runs
from cgpt.scaling.study import study
from cgpt.spec import Experiment

PUBLISHED_QUESTION = "Do the fits give the constants that the papers print, from the papers' own numbers?"


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Fit laws to the runs of an experiment, or to the published ones; the fits as a mapping and as tables."""
    name = arguments.experiment
    if arguments.published:
        experiment, plan = make_plan(name or "scaling", read_workflow())
        if name:
            refuse_stale(experiment, plan, RESULTS)
        series = read_runs((RESULTS if name else reference_folder()) / experiment.name / "runs.csv", plan)
        beside = {", ".join(filter(None, (experiment.name, setting))): points for setting, points in series.items()}
        fits = fit_published(reference_folder(), KEPT, beside)
    elif name is None:
        raise UserError("fit: names no experiment; write `fit <experiment>`, or `fit --published`")
    else:
        with lock(LOCKS / "tables" / name, wait=True):
            fits = fit(*make_plan(name, read_workflow()), RESULTS)
    return json.loads(report.as_json(fits)), as_text(fits)


def fit(experiment: Experiment, plan: Plan, results: Path) -> dict[str, Any]:
    """Write fits.json, fits.md and figures/law of an experiment whose runs.csv is there, figures/hardware_law where it
    asks for laws of machines, which its hardware.csv names. Raises UserError."""
    refuse_stale(experiment, plan, results)
    folder = results / experiment.name
    tried = read_runs(folder / "runs.csv", plan)
    series = {name: points.best_of_each_size() for name, points in tried.items()}
    machines: dict[str, list[Machine]] = {name: [] for name in series}
    if "hardware" in experiment.fit:
        machines = read_machines(folder / "hardware.csv", plan, series)
    studies = {name: study(points, experiment.fit, machines=machines[name], tried=tried[name])
               for name, points in series.items()}  # fmt: skip
    figures = {"law": partial(figure.law_figure, series, studies)}
    if "hardware" in experiment.fit:
        losses = losses_to_reach([points.setting_means(points.loss) for points in series.values()])
        for each in studies.values():
            each["cheapest"] = [way for loss in losses for way in ways_to(loss, each["hardware"])]
        figures["hardware_law"] = partial(machines_figure.hardware_law_figure, series, machines, studies)
    write_figures(folder, figures)
    fits = {"experiment": experiment.name, "series": studies}
    _write(fits, folder / "fits", experiment.question)
    return fits


def fit_published(reference: Path, folder: Path, ours: dict[str, Points]) -> dict[str, Any]:
    """Write published_fits.json and .md into `folder`, and the figure of the published runs of `reference` with `ours`
    beside them. Raises UserError."""
    rows = published.read(reference / published.FAMILY)
    family = {name: published.family_points(rows, name) for name in ("SP", "muP")}
    chinchilla = published.chinchilla_points(published.read(reference / published.CHINCHILLA))
    studies = {f"Cerebras-GPT {name}": study(points, ("compute",), "reported") for name, points in family.items()}
    studies["Chinchilla"] = study(chinchilla, ("parametric",), "6nd")
    drawn = {"paper": studies["Cerebras-GPT SP"]}
    drawn |= {name: study(points, ("compute",), "cerebras") for name, points in ours.items()}
    laws = {name: fit for name, made in drawn.items() for fit in made["compute"]
            if fit["form"] == "offset" and "draws" in fit}  # fmt: skip
    named = {f"Cerebras-GPT {name}": points for name, points in family.items()}
    write_figure(folder / "published", lambda: published_figure(ours, named, _others(rows), laws))
    fits = {"experiment": "published", "series": studies, "downstream": _downstream(rows)}
    _write(fits, folder / "published_fits", PUBLISHED_QUESTION)
    return fits


def as_text(fits: dict[str, Any], question: str = "") -> str:
    """The content of fits.md; on a terminal it has no question."""
    return markdown(report.page(fits["experiment"], question, fits["series"], fits.get("downstream", [])))


def _write(fits: dict[str, Any], path: Path, question: str) -> None:
    write_whole(path.with_suffix(".json"), report.as_json(fits).encode())
    write_whole(path.with_suffix(".md"), as_text(fits, question).encode())


def _others(rows: list[published.Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """FLOPs and losses of the models that the paper compares with."""
    groups = {"Pythia (300 B tokens)": ("Pythia", "Pile, v0 checkpoints"), "GPT-J, GPT-NeoX": ("GPT-", "")}
    models = {name: published.losses(rows, *group) for name, group in groups.items()}
    return {name: (np.array([float(row["flops"]) for row in group]), np.array([float(row["value"]) for row in group]))
            for name, group in models.items()}  # fmt: skip


def _downstream(rows: list[published.Row]) -> list[dict[str, Any]]:
    """By task: errors of the sigmoid of loss at models left out, at the largest, and at another family."""
    tasks = []
    for task in downstream.TASKS:
        names, loss, accuracy = published.accuracies(rows, task, "Cerebras-GPT", ("SP", "muP"))
        _, other_loss, other_accuracy = published.accuracies(rows, task, "Pythia", ("Pile, v0 checkpoints",))
        whole, smaller = downstream.fit(loss, accuracy), loss > loss.min()
        from_smaller = downstream.fit(loss[smaller], accuracy[smaller]).accuracy_at(loss[~smaller])
        tasks.append({
            "task": task, "n_models": len(names), "low": whole.low, "high": whole.high, "slope": whole.slope,
            "middle": whole.middle,
            "left_out_mean_error": float(np.abs(downstream.leave_one_out_errors(loss, accuracy)).mean()),
            "largest_error": float((from_smaller - accuracy[~smaller])[0]),
            "pythia_mean_error": float(np.abs(whole.accuracy_at(other_loss) - other_accuracy).mean()),
        })  # fmt: skip
    return tasks
