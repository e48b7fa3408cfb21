"""The verbs that are stages: one table of them, and all that stands between a run's id and its stage's call."""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

from cgpt.commands.plan import read_workflow
from cgpt.errors import UserError, first_line
from cgpt.experiment import shared_steps
from cgpt.experiment.chain import Chain
from cgpt.experiment.load import Workflow
from cgpt.experiment.plans import Plans, make_plans
from cgpt.experiment.run import EARLY, LOCKS, RUNS_FOLDER, STATES, Key, Run, early_folders, last_file
from cgpt.files.layers import file_of
from cgpt.files.whole import lock
from cgpt.hardware import Hardware
from cgpt.host import check_memory
from cgpt.jobs import Job
from cgpt.kernels import backend
from cgpt.provenance import code_sha256


class Stage(NamedTuple):
    """A stage, whose function takes a job and stands in the module of its name."""

    help: str
    computes: bool = False  # on the devices of a hardware profile
    function: str = ""  # the function's name, and the module's, where a stage's is a word of Python


STAGES = {
    "fetch": Stage("download or copy a data set, or make the builtin one, and verify it"),
    "import": Stage("fetch the checkpoint of a row of models.yaml and convert it", function="import_checkpoint"),
    "tokenize": Stage("train the tokenizer and write the token shards"),
    "pretrain": Stage("train a model on token shards; continues where it was stopped", computes=True),
    "finetune": Stage("train on a task's training split, from a pretrained model or from scratch", computes=True),
    "meter": Stage("count a pretrained model's kernels and compute what it would take on a modeled machine"),
    "baseline": Stage("train and score a bag-of-words classifier on a task's labels"),
    "evaluate": Stage("score a model on a task with lm-evaluation-harness", computes=True),
}


def add_verbs(add_verb: Any) -> None:
    """Add a verb for each stage to a command line."""
    for name, stage in STAGES.items():
        verb = add_verb(name, None, stage.help, group="stages", example="RUN --threads 2")
        verb.add_argument("id", help="a run id that `plan` prints")
        verb.add_argument("--threads", type=int, help="threads granted; fewer than the plan names stops the run")


@contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[tuple[Callable[[Job], dict[str, Any]], Job]]:
    """The function of the stage and the job of the run that the id names, whose lock is held inside.

    Raises UserError where the run is unknown, is under way, or cannot be done with what is here.
    """
    name, workflow = arguments.verb, read_workflow()
    plans = make_plans(workflow)
    run = plans.find_run(name, arguments.id)
    _refuse_fewer_threads(arguments.threads, run)
    if STAGES[name].computes:
        hardware = workflow.hardware[run.spec["hardware"]["name"]]
        _refuse_too_large(run, hardware)
        backend.open_devices(hardware)
    with lock(LOCKS / name / run.id):
        _refuse_upstream(run, plans.runs)
        job, scoring = _job(run, plans, workflow), plans.scoring(run) if name == "finetune" else []
        _forget_early_scores([run, *scoring])
        scoring_jobs = _scoring_jobs(scoring, plans, workflow)
        function = STAGES[name].function or name
        yield getattr(import_module(f"cgpt.stages.{function}"), function), job
        if name == "fetch":
            _warn_of_tasks(run.id, plans.runs, workflow)
        _score_early(scoring_jobs)


def _job(run: Run, plans: Plans, workflow: Workflow) -> Job:
    given: dict[str, Any] = {}
    if "hardware" in run.spec:
        given["hardware"] = hardware = workflow.hardware[run.spec["hardware"]["name"]]
        if hardware.timing == "modeled":
            from cgpt.cost.job import job_cost

            given["cost"] = job_cost
    if run.stage == "fetch":
        given["dataset"] = workflow.datasets[run.id]
    if run.stage == "import":
        given["published"] = workflow.published[run.spec["model"]["name"]]
    if run.stage == "pretrain":
        given["is_shared"] = plans.is_awaited(run)
        if given["is_shared"]:  # seen by a longer run that starts at the same time, which then waits
            (STATES / f"{run.id}.shared").mkdir(parents=True, exist_ok=True)
        given["shares_with"] = shared_steps.wait_for_shared_steps(run, STATES, LOCKS / "pretrain")
    return Job(
        spec=run.spec,
        folder=last_file(run.stage, run.id).parent,
        upstream={stage: last_file(stage, id_).parent for stage, id_ in run.needs.items()},
        data=RUNS_FOLDER / "data",
        threads=run.execution.threads,
        checkpoint_every_steps=run.execution.checkpoint_every_steps,
        **given,
    )


def _refuse_fewer_threads(granted: int | None, run: Run) -> None:
    """Raise UserError where fewer threads are granted than the plan names: recorded speeds would be a lie."""
    named = run.execution.threads
    if granted is not None and granted < named:
        raise UserError(
            f"{run.id}: the plan names {named} threads, {granted} granted; run snakemake with --cores {named}, "
            f"or write `threads_per_run: {granted}` in the experiment"
        )


def _refuse_too_large(run: Run, hardware: Hardware) -> None:
    """Raise UserError where a run on this machine's cores takes more memory than it has, by its profile or the plan."""
    asked = hardware.resources.mem_mb
    needed = asked * 10**6 if asked else run.execution.memory_bytes
    if hardware.runs_on_host and needed:
        where = file_of("hardware", hardware.name)
        check_memory(needed, run.id, "write a smaller model, batch_size or seq_len, or, if you know that it takes "
                                     f"less, `resources: {{mem_mb: ...}}` in {where}")  # fmt: skip


def _refuse_upstream(run: Run, runs: Mapping[Key, Run]) -> None:
    """Raise UserError where a run that this one is made from is missing, or is itself of something that changed."""
    missing = [(stage, id_) for stage, id_ in run.upstream() if not last_file(stage, id_).is_file()]
    if missing:
        raise UserError(*(f"{last_file(*upstream)}: is missing, and {run.id} needs it; "
                          f"run `cgpt {' '.join(upstream)}`" for upstream in missing))  # fmt: skip
    chain = Chain(runs, RUNS_FOLDER, lambda stale: f"run `cgpt {stale.stage} {stale.id}` again first")
    if problems := chain.above(run):
        raise UserError(*problems)


def _warn_of_tasks(data: str, runs: Mapping[Key, Run], workflow: Workflow) -> None:
    """Print what is wrong with tasks over data that have just come, long before a run of them stops for it."""
    from cgpt.preview import tasks

    try:
        tasks.preview([run for run in runs.values() if run.spec.get("task", {}).get("data") == data], runs, workflow)
    except UserError as error:
        print(*error.problems, sep="\n", file=sys.stderr)


def _forget_early_scores(runs: Iterable[Run]) -> None:
    """Remove what was scored early for these runs: its model is about to change, or it is about to be scored."""
    for folder in (folder for run in runs for folder in early_folders(run.id)):
        shutil.rmtree(folder, ignore_errors=True)


def _scoring_jobs(scoring: Sequence[Run], plans: Plans, workflow: Workflow) -> list[Job]:
    """The jobs of scoring a model before its process ends, in EARLY. The code is what this process began with: one that
    is changed while it trains does not take its scores for its own."""
    if not scoring:
        return []
    folder = EARLY / code_sha256("stages.evaluate")
    return [replace(_job(run, plans, workflow), folder=folder / run.id) for run in scoring]


def _score_early(scoring_jobs: Iterable[Job]) -> None:
    """Score in the process that has just trained the model, which spares a start each; rule evaluate takes the scores.
    What stops one is no loss of the training, and its run's own job says it when it tries again; a signal stops all."""
    for job in scoring_jobs:
        from cgpt.stages.evaluate import evaluate

        try:
            evaluate(job)
        except KeyboardInterrupt:
            print("finetune: is finished; its scoring was stopped, and is left to `cgpt evaluate`", file=sys.stderr)
            return
        except Exception as error:
            print(
                f"finetune: is finished; its scoring stopped ({first_line(error)}), and is left to `cgpt evaluate`",
                file=sys.stderr,
            )
