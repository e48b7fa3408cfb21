"""The plans of all experiments, and their runs by what they are called: a run may be part of several experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import shared_steps
from cgpt.experiment.load import Workflow
from cgpt.experiment.plan import make_plan
from cgpt.experiment.run import Plan, Run, last_file


def make_plans(workflow: Workflow) -> tuple[dict[str, Plan], dict[str, tuple[str, ...]]]:
    """The plan of each experiment that has one, and the problems of each other one."""
    plans, broken = {}, dict(workflow.experiments.broken)
    for name, experiment in workflow.experiments.items():
        try:
            plans[name] = make_plan(experiment, workflow)
        except UserError as error:
            broken[name] = error.problems
    return plans, broken


def all_runs(workflow: Workflow) -> dict[tuple[str, str], Run]:
    """Every run of every experiment that has a plan, by (stage, id)."""
    return runs_of(make_plans(workflow)[0].values())


def runs_of(plans: Iterable[Plan]) -> dict[tuple[str, str], Run]:
    """Every run of the plans by (stage, id); a shared one has the fewest threads that are named for it.

    Runs of any two plans may share steps.
    """
    runs: dict[tuple[str, str], Run] = {}
    for plan in plans:
        for run in plan.runs:
            known = runs.get((run.stage, run.id))
            if known is None or run.execution.threads < known.execution.threads:
                runs[run.stage, run.id] = run
    return {(run.stage, run.id): run for run in shared_steps.share(list(runs.values()))}


def is_awaited(run: Run, runs: Iterable[Run]) -> bool:
    """Whether a longer run of `runs`, which is not finished, can go on from this one."""
    longer = (other for other in runs if run.id in other.execution.shorter)
    return any(not last_file(other.stage, other.id).is_file() for other in longer)


def find_run(stage: str, run_id: str, workflow: Workflow) -> Run:
    """The run with this id; raises UserError with the nearest id where no experiment has it."""
    plans, broken = make_plans(workflow)
    return pick(stage, run_id, runs_of(plans.values()), broken)


def pick(stage: str, run_id: str, runs: dict[tuple[str, str], Run], broken: Mapping[str, Sequence[str]]) -> Run:
    """The run with this id out of `runs_of`; raises UserError as `find_run` does."""
    if (stage, run_id) not in runs:
        problem = (f"{stage}: no experiment has a run '{run_id}'; "
                   f"{did_you_mean(run_id, (id_ for kind, id_ in runs if kind == stage))}")  # fmt: skip
        left_out = [f"left out: {lines[0]}" for lines in broken.values()]
        raise UserError(problem, *left_out)
    return runs[stage, run_id]
