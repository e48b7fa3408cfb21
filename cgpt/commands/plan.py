"""The verbs `plan` and `check`: an experiment's runs, and their tasks, before anything is spent."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from cgpt import jobs
from cgpt.experiment import checkpoint_rows, load, plan, plans
from cgpt.experiment.run import Plan
from cgpt.files.declarations import folder_of
from cgpt.spec import Experiment


def add_verbs(add_verb: Any) -> None:
    """Add the verbs to a command line."""
    verb = add_verb("plan", show, "print an experiment's runs and what they will cost", group="start",
                    example="quickstart --cores 2")  # fmt: skip
    verb.add_argument("experiment", help="the name of a file of workflows/experiments")
    verb.add_argument("--cores", type=int, help="also the time that the runs take on so many, as snakemake --cores")
    verb = add_verb("check", check, "check the tasks of runs, as `plan` does, before they start", group="stages")
    verb.add_argument(
        "ids", nargs="*", help="ids of runs that train or score on tasks; default: lines of standard input"
    )


def read_workflow() -> load.Workflow:
    """The workflow of the working directory; in a workflow's job, as it was when that started. Raises UserError."""
    return load.read_workflow(Path.cwd(), folder_of(Path.cwd()))


def make_plan(name: str, workflow: load.Workflow) -> tuple[Experiment, Plan]:
    """An experiment and its plan; warns of other experiments that are wrong. Raises UserError."""
    experiment = workflow.asked(name)
    if jobs.WORKFLOW_PID not in os.environ:  # in a workflow's job the warning was given already
        workflow.warn_of_others(name)
    return experiment, plan.make_plan(experiment, workflow)


def show(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """An experiment's plan as a mapping, and as a table. Raises UserError where a document or a corpus is of no use."""
    from cgpt.experiment import show_plan
    from cgpt.experiment.planned_time import time_plan
    from cgpt.preview import corpora, tasks

    workflow = read_workflow()
    if checkpoint_rows.fetch_configs(workflow, [arguments.experiment], Path.cwd()):
        workflow = read_workflow()
    experiment, planned = make_plan(arguments.experiment, workflow)
    corpora.refuse_too_small(experiment.name, planned.runs, workflow)
    previews = tasks.preview(planned.runs, {run.key: run for run in planned.runs}, workflow)
    timed = time_plan(planned, arguments.cores)
    return show_plan.as_json(experiment, timed, previews), show_plan.as_text(experiment, timed, previews)


def check(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The names of the runs' tasks. Raises UserError where a document of theirs is of no use."""
    from cgpt.preview import tasks

    workflow = read_workflow()
    runs = plans.make_plans(workflow).runs
    ids = set(arguments.ids or sys.stdin.read().split())
    previews = tasks.preview([run for run in runs.values() if run.id in ids], runs, workflow)
    return {"tasks": [preview.task for preview in previews]}, ""
