"""The plans of all experiments, and their runs by stage and id: a run may be part of several experiments."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import shared_steps
from cgpt.experiment.load import Workflow
from cgpt.experiment.plan import make_plan
from cgpt.experiment.run import Key, Plan, Run, last_file


@dataclass(frozen=True)
class Plans:
    """The plan of each experiment that has one, the problems of each other one, and the runs of all plans."""

    by_experiment: Mapping[str, Plan]
    broken: Mapping[str, tuple[str, ...]]
    runs: Mapping[Key, Run]

    def find_run(self, stage: str, run_id: str) -> Run:
        """The run with this id; raises UserError with the nearest id where no experiment has it."""
        if (stage, run_id) in self.runs:
            return self.runs[stage, run_id]
        ids = (known for kind, known in self.runs if kind == stage)
        left_out = [f"left out: {lines[0]}" for lines in self.broken.values()]
        raise UserError(f"{stage}: no experiment has a run '{run_id}'; {did_you_mean(run_id, ids)}", *left_out)

    def scoring(self, trained: Run) -> list[Run]:
        """The evaluations of the model that a run trains."""
        return [run for run in self.runs.values() if run.stage == "evaluate" and trained.key in run.needs.items()]

    def is_awaited(self, run: Run) -> bool:
        """Whether a longer run, which is not finished, can go on from this one."""
        longer = (other for other in self.runs.values() if run.id in other.execution.shorter)
        return any(not last_file(*other.key).is_file() for other in longer)


def make_plans(workflow: Workflow) -> Plans:
    """The plans of a workflow's experiments."""
    plans, broken = {}, dict(workflow.experiments.broken)
    for name, experiment in workflow.experiments.items():
        try:
            plans[name] = make_plan(experiment, workflow)
        except UserError as error:
            broken[name] = error.problems
    return Plans(plans, broken, _collect_runs(plans.values()))


def _collect_runs(plans: Iterable[Plan]) -> dict[Key, Run]:
    """Every run of the plans; a shared one has the fewest threads that are named for it. Runs of any two plans may
    share steps."""
    runs: dict[Key, Run] = {}
    for run in (run for plan in plans for run in plan.runs):
        known = runs.setdefault(run.key, run)
        if run.execution.threads < known.execution.threads:
            runs[run.key] = run
    return {run.key: run for run in shared_steps.share(list(runs.values()))}
