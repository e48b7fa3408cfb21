"""The command line: `python -m cgpt <verb>`. Progress and problems go to standard error, numbers to standard output."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgpt import jobs
from cgpt.commands import bench, ending, generate, measure
from cgpt.commands import forecast as cost
from cgpt.errors import UserError
from cgpt.experiment import load, plan, plans, shared_steps
from cgpt.experiment.chain import Chain
from cgpt.experiment.run import RUNS_FOLDER, Plan, Run, last_file
from cgpt.files import cache
from cgpt.files.declarations import folder_of
from cgpt.files.whole import lock
from cgpt.hardware import Hardware
from cgpt.host import check_threads
from cgpt.kernels import backend
from cgpt.spec import Experiment

RESULTS = Path("results")
REFERENCE = RESULTS / "reference"  # the one folder of results that is committed
DATA, LOCKS = RUNS_FOLDER / "data", RUNS_FOLDER / "locks"
STAGE_HELP = {
    "fetch": "download or copy a dataset, or make the builtin one, and verify it",
    "tokenize": "train the tokenizer and write the token shards",
    "pretrain": "train a model on token shards; continues where it was stopped",
    "finetune": "train on a task's training split, from a pretrained model or from scratch",
    "meter": "count a pretrained model's kernels and compute what it would take on a modeled machine",
    "baseline": "fit and score a bag-of-words classifier on a task's labels",
    "evaluate": "score a model on a task with lm-evaluation-harness",
}
DRAWING = ("plot", "plot-devices", "fit", "coordinate-check")  # verbs that need matplotlib
COMPUTING = ("pretrain", "finetune", "evaluate")  # stages that need the devices of their hardware profile


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 1 with one line a problem where a user can mend it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no result is lost because a terminal cannot show a character
    chosen = _parser().parse_args(arguments)
    jobs.stop_with_workflow()

    def command() -> None:
        if isinstance(getattr(chosen, "threads", None), int):
            check_threads(chosen.threads)
        if chosen.verb in DRAWING:
            cache.prepare_matplotlib()
        result, text = chosen.run(chosen)
        print(json.dumps(result) if chosen.json else text, end="\n" if chosen.json or text else "", flush=True)

    return ending.run(chosen.verb, command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cgpt", description="Declarative GPT scaling experiments.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")

    show = verbs.add_parser("plan", parents=[shared], help="print an experiment's runs and what they will cost")
    show.add_argument("experiment")
    show.add_argument("--cores", type=int, help="also the time that the runs take on so many, as snakemake --cores")
    show.set_defaults(run=_plan)
    verb = verbs.add_parser(
        "check", parents=[shared], help="check the tasks of runs, as `plan` does, before they start"
    )
    verb.add_argument(
        "ids", nargs="*", help="ids of runs that train or score on tasks; default: lines of standard input"
    )
    verb.set_defaults(run=_check)
    for stage, help_text in STAGE_HELP.items():
        verb = verbs.add_parser(stage, parents=[shared], help=help_text)
        verb.add_argument("id", help="a run id that `plan` prints")
        verb.add_argument("--threads", type=int, help="threads granted; fewer than the plan names stops the run")
        verb.set_defaults(run=_stage)
    for name, help_text in (("tabulate", "write an experiment's scores.csv and tables"),
                            ("plot", "write an experiment's figures"),
                            ("plot-vary", "write the figure of what an experiment varies"),
                            ("plot-devices", "write the figures of an experiment's modeled machines")):  # fmt: skip
        verb = verbs.add_parser(name, parents=[shared], help=help_text)
        verb.add_argument("experiment")
        verb.add_argument(
            "--partial",
            action="store_true",
            help="of the records that are there, in a folder `partial` that says what is missing",
        )
        verb.set_defaults(run=_report)
    verb = verbs.add_parser("fit", parents=[shared], help="fit scaling laws to an experiment's runs, with intervals")
    verb.add_argument("experiment", nargs="?")
    verb.add_argument("--published", action="store_true",
                      help="the published runs, and the experiment's or our reference runs of `scaling`")  # fmt: skip
    verb.set_defaults(run=_fit)
    verb = verbs.add_parser("coordinate-check", parents=[shared],
                            help="measure how activations grow with width under SP and muP")  # fmt: skip
    verb.add_argument("--out", type=Path, default=RESULTS / "coordinate_check", help="the folder of table and figure")
    verb.add_argument("--threads", type=int, help="default: one per core")
    verb.set_defaults(run=_coordinate_check)
    verb = verbs.add_parser("doctor", parents=[shared], help="check this machine and what each hardware profile needs")
    verb.set_defaults(run=_doctor)
    verb = verbs.add_parser("bench", parents=[shared], help="time pretraining, evaluation, generation or tokenization")
    bench.add_arguments(verb)
    verb.set_defaults(run=bench.bench)
    verb = verbs.add_parser(
        "measure", parents=[shared], help="measure how fast this machine trains, for plan's minutes"
    )
    measure.add_arguments(verb)
    verb.set_defaults(run=measure.measure)
    verb = verbs.add_parser("generate", parents=[shared], help="continue a text with a model")
    generate.add_arguments(verb)
    verb.set_defaults(run=generate.generate)
    verb = verbs.add_parser("import-hf", parents=[shared], help="make a checkpoint of a folder of transformers")
    verb.add_argument("folder", type=Path, help="config.json, weights and tokenizer of a GPT-2-type model")
    verb.add_argument("--out", type=Path, required=True, metavar="CHECKPOINT", help="a new folder")
    verb.set_defaults(run=_import_hf)
    verb = verbs.add_parser("export-hf", parents=[shared], help="write a checkpoint so that transformers opens it")
    verb.add_argument("checkpoint", type=Path, help="the folder of a model and its tokenizer")
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    verb.add_argument("--no-verify", action="store_true",
                      help="export files that are not those that the checkpoint's run wrote")  # fmt: skip
    verb.set_defaults(run=_export_hf)
    cost.add_verbs(verbs, shared, RESULTS)
    return parser


def _workflow() -> load.Workflow:
    root = Path.cwd()
    return load.read_workflow(root, folder_of(root))


def _experiment(name: str) -> tuple[Experiment, Plan]:
    return _planned(name, _workflow())


def _planned(name: str, workflow: load.Workflow) -> tuple[Experiment, Plan]:
    experiment = workflow.asked(name)
    if jobs.WORKFLOW_PID not in os.environ:  # in a workflow's job it is said already
        workflow.warn_of_others(name)
    return experiment, plan.make_plan(experiment, workflow)


def _plan(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.experiment import show_plan
    from cgpt.experiment.planned_time import timed

    workflow = _workflow()
    experiment, made = _planned(chosen.experiment, workflow)
    previews = _previews(experiment, made, workflow)
    when = timed(made, chosen.cores)
    return show_plan.as_json(experiment, when, previews), show_plan.as_text(experiment, when, previews)


def _previews(experiment: Experiment, made: Plan, workflow: load.Workflow) -> list[Any]:
    """The previews of a plan's tasks; raises UserError where a document or a corpus cannot be used."""
    from cgpt.preview import corpora, tasks

    corpora.refuse_too_small(experiment.name, made.runs, workflow)
    return tasks.previews(made.runs, {(run.stage, run.id): run for run in made.runs}, workflow)


def _check(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.preview import tasks

    workflow = _workflow()
    known = plans.make_plans(workflow).runs
    ids = set(chosen.ids or sys.stdin.read().split())
    previews = tasks.previews([run for run in known.values() if run.id in ids], known, workflow)
    return {"tasks": [each.task for each in previews]}, ""


def _stage(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Find the run that the id names and call the function of the stage's name."""
    workflow = _workflow()
    planned = plans.make_plans(workflow)
    run = planned.find_run(chosen.verb, chosen.id)
    threads = _granted(chosen.threads, run)
    if chosen.verb in COMPUTING:
        backend.open_devices(_hardware(run, workflow))
    with lock(LOCKS / run.stage / run.id):
        _refuse_upstream(run, planned.runs)
        cost = replace(run.execution, leads_on=planned.is_awaited(run))
        return _CALLS[chosen.verb](replace(run, execution=cost), workflow, threads) or {}, ""


def _refuse_upstream(run: Run, runs: Mapping[tuple[str, str], Run]) -> None:
    """Raise UserError where what a run is made from is missing, or is itself of something that changed since."""
    missing = [(stage, id_) for stage, id_ in run.upstream() if not last_file(stage, id_).is_file()]
    if missing:
        raise UserError(*(f"{last_file(*upstream)}: is missing, and {run.id} needs it; "
                          f"run `python -m cgpt {' '.join(upstream)}`" for upstream in missing))  # fmt: skip
    again = Chain(runs, RUNS_FOLDER, lambda stale: f"run `python -m cgpt {stale.stage} {stale.id}` again first")
    if problems := again.above(run):
        raise UserError(*problems)


def _granted(granted: int | None, run: Run) -> int:
    """The threads that the plan names; with fewer granted, recorded speeds would be a lie."""
    named = run.execution.threads
    if granted is not None and granted < named:
        raise UserError(
            f"{run.id}: the plan names {named} threads, {granted} granted; run snakemake with --cores {named}, "
            f"or write `threads_per_run: {granted}` in the experiment"
        )
    return named


def _fetch(run: Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.stages.fetch import fetch

    record = fetch(workflow.datasets[run.id], _folder(run))
    _warn_of_tasks(run.id, workflow)
    return record


def _warn_of_tasks(data: str, workflow: load.Workflow) -> None:
    """Say what is wrong with tasks over data that have just come, long before a run of them stops for it."""
    from cgpt.preview import tasks

    known = plans.make_plans(workflow).runs
    try:
        tasks.previews([run for run in known.values() if run.spec.get("task", {}).get("data") == data], known, workflow)
    except UserError as error:
        print(*error.problems, sep="\n", file=sys.stderr)


def _tokenize(run: Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.stages.tokenize import tokenize

    return tokenize(run.spec, DATA, _folder(run))


def _pretrain(run: Run, workflow: load.Workflow, threads: int) -> dict:
    if run.execution.leads_on:  # seen by a longer run that starts at the same time, which then waits
        (RUNS_FOLDER / "state" / f"{run.id}.trunk").mkdir(parents=True, exist_ok=True)
    from cgpt.stages.pretrain import pretrain

    hardware, cost = _hardware(run, workflow), run.execution
    shorter = shared_steps.usable(run, RUNS_FOLDER / "state", LOCKS / "pretrain")
    return pretrain(
        run.spec, _upstream(run, "tokenize"), _folder(run), hardware, threads, cost.checkpoint_every_steps,
        _job_cost(hardware), shorter, cost.leads_on,
    )  # fmt: skip


def _finetune(run: Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.stages.finetune import finetune

    checkpoint = _upstream(run, "pretrain") if "pretrain" in run.needs else None
    tokens, hardware = _upstream(run, "tokenize"), _hardware(run, workflow)
    return finetune(run.spec, checkpoint, tokens, DATA, _folder(run), hardware, threads, _job_cost(hardware))


def _meter(run: Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.stages.meter import meter

    return meter(run.spec, _upstream(run, "pretrain"), _folder(run), _hardware(run, workflow))


def _baseline(run: Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.stages.baseline import baseline

    return baseline(run.spec, DATA, _folder(run))


def _evaluate(run: Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.stages.evaluate import evaluate

    checkpoint = _upstream(run, run.spec["checkpoint_stage"])
    return evaluate(run.spec, checkpoint, DATA, _folder(run), _hardware(run, workflow), threads)


def _job_cost(hardware: Hardware) -> Any:
    """What says how long a job takes on a profile that no clock can time."""
    if hardware.timing == "measured":
        return None
    from cgpt.cost.job import job_cost

    return job_cost


def _hardware(run: Run, workflow: load.Workflow) -> Hardware:
    return workflow.hardware[run.spec["hardware"]["name"]]


_CALLS = {
    "fetch": _fetch,
    "tokenize": _tokenize,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "meter": _meter,
    "baseline": _baseline,
    "evaluate": _evaluate,
}


def _folder(run: Run) -> Path:
    return last_file(run.stage, run.id).parent


def _upstream(run: Run, stage: str) -> Path:
    return last_file(stage, run.needs[stage]).parent


def _report(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    experiment, made = _experiment(chosen.experiment)
    write: Callable[..., Path]
    if chosen.verb == "tabulate":
        from cgpt.report.tables import tabulate as write
    elif chosen.verb == "plot-devices":
        from cgpt.report.machines.figures import plot_devices as write
    elif chosen.verb == "plot-vary":
        from cgpt.report.vary_figure import plot_vary as write
    else:
        from cgpt.report.figures import plot as write
    with lock(LOCKS / "tables" / experiment.name, wait=True):
        folder = write(experiment, made, RESULTS, chosen.partial)
    return {"experiment": experiment.name, "folder": str(folder)}, str(folder) if chosen.partial else ""


def _fit(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.commands import fit
    from cgpt.report.rows import refuse_stale
    from cgpt.scaling.points import read_runs

    if chosen.experiment is None and not chosen.published:
        raise UserError("fit: names no experiment; write `fit <experiment>`, or `fit --published`")
    if not chosen.published:
        with lock(LOCKS / "tables" / chosen.experiment, wait=True):
            found = fit.fit(*_experiment(chosen.experiment), RESULTS)
    else:
        experiment, made = _experiment(chosen.experiment or "scaling")
        folder = RESULTS if chosen.experiment else REFERENCE
        if chosen.experiment:
            refuse_stale(experiment, made, RESULTS)
        read = read_runs(folder / experiment.name / "runs.csv", made)
        beside = {", ".join(filter(None, (experiment.name, name))): points for name, points in read.items()}
        found = fit.fit_published(REFERENCE, beside)
    return fit.as_json(found), fit.as_text(found)


def _coordinate_check(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.report.laws.coordinate_check import coordinate_check
    from cgpt.training.coordinate_check import Settings

    return coordinate_check(Settings(), chosen.out, chosen.threads), f"{chosen.out}/coordinate_check.md"


def _doctor(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.commands import doctor

    found = doctor.examine()
    if found["problems"]:
        print(json.dumps(found) if chosen.json else doctor.as_text(found))
        raise UserError(*found["problems"])
    return found, doctor.as_text(found)


def _import_hf(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.commands import huggingface as command

    return command.import_hf(chosen)


def _export_hf(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.commands import huggingface as command

    return command.export_hf(chosen)


if __name__ == "__main__":
    sys.exit(main())
