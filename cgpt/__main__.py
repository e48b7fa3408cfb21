"""The command line: `python -m cgpt <verb>`. Progress and problems go to standard error, numbers to standard output."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgpt import generate_command, kernels, load, plan, trunk
from cgpt.bench import command as bench
from cgpt.chain import Chain
from cgpt.errors import UserError, did_you_mean
from cgpt.spec import Experiment, Hardware
from cgpt.wholefile import lock

RESULTS = Path("results")
REFERENCE = RESULTS / "reference"  # the one folder of results that is committed
DATA, LOCKS = plan.RUNS_FOLDER / "data", plan.RUNS_FOLDER / "locks"
STAGE_HELP = {
    "fetch": "download or copy a dataset, or make the builtin one, and verify it",
    "tokenize": "train the tokenizer and write the token shards",
    "pretrain": "train a model on token shards; continues where it was stopped",
    "finetune": "train on a task's training split, from a pretrained model or from scratch",
    "meter": "count a pretrained model's kernels and compute what it would take on a modeled machine",
    "baseline": "fit and score a bag-of-words classifier on a task's labels",
    "evaluate": "score a model on a task with lm-evaluation-harness",
}
COMPUTING = ("pretrain", "finetune", "evaluate")  # stages that need the devices of their hardware profile


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 1 with one line a problem where a user can mend it."""
    chosen = _parser().parse_args(arguments)
    try:
        result, text = chosen.run(chosen)
    except UserError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        resumes = chosen.verb == "pretrain"
        print("stopped" + ("; the same command goes on from the last checkpoint" if resumes else ""), file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)  # as a shell reports a signal's number
    try:
        print(json.dumps(result) if chosen.json else text, end="\n" if chosen.json or text else "", flush=True)
    except BrokenPipeError:  # whoever read it, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cgpt", description="Declarative GPT scaling experiments.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")

    show = verbs.add_parser("plan", parents=[shared], help="print an experiment's runs and what they will cost")
    show.add_argument("experiment")
    show.set_defaults(run=_plan)
    for stage, help_text in STAGE_HELP.items():
        verb = verbs.add_parser(stage, parents=[shared], help=help_text)
        verb.add_argument("id", help="a run id that `plan` prints")
        verb.add_argument("--threads", type=int, help="threads granted; fewer than the plan names stops the run")
        verb.set_defaults(run=_stage)
    for name, help_text in (("tabulate", "write an experiment's scores.csv and tables"),
                            ("plot", "write an experiment's figures"),
                            ("plot-devices", "write the figures of an experiment's modeled machines")):  # fmt: skip
        verb = verbs.add_parser(name, parents=[shared], help=help_text)
        verb.add_argument("experiment")
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
    verb = verbs.add_parser("generate", parents=[shared], help="continue a text with a model")
    generate_command.add_arguments(verb)
    verb.set_defaults(run=generate_command.generate)
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
    _add_cost_verbs(verbs, shared)
    return parser


def _add_cost_verbs(verbs: Any, shared: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("forecast", parents=[shared], help="compute what a model takes on a hardware profile")
    verb.add_argument("--model", help="a row of workflows/models.yaml")
    verb.add_argument(
        "--shape", help="instead of --model: n_layer=32,d_model=4096,d_ffn=11008,gated=true,n_head=32,..."
    )
    verb.add_argument("--hardware", required=True, nargs="+", help="a profile of hardware_profiles/")
    verb.add_argument("--systems", type=int, help="default: the profile's")
    verb.add_argument("--batch-per-system", type=int, help="sequences; default: the most that fit in one micro-batch")
    verb.add_argument("--tokens", type=float, help="of a whole training run")
    verb.add_argument("--sparsity", type=float, default=0.0, help="share of weights that are zero, on a wafer")
    task = verb.add_mutually_exclusive_group()
    task.add_argument("--decode", action="store_true", help="one token of one sequence, not training")
    task.add_argument("--prefill", action="store_true", help="a prompt of seq_len tokens, not training")
    verb.add_argument("--context", type=int, help="tokens cached, with --decode; default: seq_len")
    verb.add_argument("--grid", type=int, help="cores along a side of the square that decodes or prefills")
    verb.add_argument("--target-loss", type=float, help="instead of a model: the cheapest way to this loss, by a law")
    verb.add_argument("--budget-hours", type=float, help="with --target-loss: the loss that these hours buy too")
    verb.add_argument("--budget-kwh", type=float, help="with --target-loss: the loss that this energy buys too")
    verb.add_argument("--law", type=Path, default=REFERENCE / "published_fits.json", help="a fits.json")
    verb.add_argument("--series", help="of the law's file; default: its first")
    verb.set_defaults(run=_forecast)
    verb = verbs.add_parser("forecast-family", parents=[shared], help="the same for all Cerebras-GPT on every profile")
    verb.add_argument("--out", type=Path, default=RESULTS / "devices" / "cerebras-gpt",
                      help="the table's path without .md and .csv")  # fmt: skip
    verb.set_defaults(run=_forecast_family)
    verb = verbs.add_parser("calibrate", parents=[shared], help="fit the cost model's constants to published rows")
    verb.set_defaults(run=_calibrate)


def _experiment(name: str) -> tuple[Experiment, plan.Plan]:
    workflow = load.load_workflow(Path.cwd())
    if name not in workflow.experiments:
        raise UserError(f"workflows/experiments: there is no experiment '{name}'; "
                        f"{did_you_mean(name, workflow.experiments)}")  # fmt: skip
    experiment = workflow.experiments[name]
    return experiment, plan.make_plan(experiment, workflow)


def _plan(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt import plantable

    experiment, made = _experiment(chosen.experiment)
    return plantable.as_json(experiment, made), plantable.as_text(experiment, made)


def _stage(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Find the run that the id names and call the function of the stage's name."""
    workflow = load.load_workflow(Path.cwd())
    runs = plan.all_runs(workflow)
    run = plan.pick(chosen.verb, chosen.id, runs)
    threads = _granted(chosen.threads, run)
    with lock(LOCKS / run.stage / run.id):
        if chosen.verb in COMPUTING:
            kernels.open_devices(_hardware(run, workflow))
        _refuse_upstream(run, runs)
        cost = replace(run.execution, leads_on=plan.is_awaited(run, runs.values()))
        return _CALLS[chosen.verb](replace(run, execution=cost), workflow, threads) or {}, ""


def _refuse_upstream(run: plan.Run, runs: dict[tuple[str, str], plan.Run]) -> None:
    """Raise UserError where what a run is made from is missing, or is itself of something that changed since."""
    missing = [(stage, id_) for stage, id_ in run.upstream() if not plan.last_file(stage, id_).is_file()]
    if missing:
        raise UserError(*(f"{plan.last_file(*upstream)}: is missing, and {run.id} needs it; "
                          f"run `python -m cgpt {' '.join(upstream)}`" for upstream in missing))  # fmt: skip
    again = Chain(runs, plan.RUNS_FOLDER, lambda stale: f"run `python -m cgpt {stale.stage} {stale.id}` again first")
    if problems := again.above(run):
        raise UserError(*problems)


def _granted(granted: int | None, run: plan.Run) -> int:
    """The threads that the plan names; with fewer granted, recorded speeds would be a lie."""
    named = run.execution.threads
    if granted is not None and granted < named:
        raise UserError(
            f"{run.id}: the plan names {named} threads, {granted} granted; run snakemake with --cores {named}, "
            f"or write `threads_per_run: {granted}` in the experiment"
        )
    return named


def _fetch(run: plan.Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.fetch import fetch

    return fetch(workflow.datasets[run.id], _folder(run))


def _tokenize(run: plan.Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.tokenize import tokenize

    return tokenize(run.spec, DATA, _folder(run))


def _pretrain(run: plan.Run, workflow: load.Workflow, threads: int) -> dict:
    if run.execution.leads_on:  # seen by a longer run that starts at the same time, which then waits
        (plan.RUNS_FOLDER / "state" / f"{run.id}.trunk").mkdir(parents=True, exist_ok=True)
    from cgpt.pretrain import pretrain

    hardware, cost = _hardware(run, workflow), run.execution
    shorter = trunk.usable(run, plan.RUNS_FOLDER / "state", LOCKS / "pretrain")
    return pretrain(
        run.spec, _upstream(run, "tokenize"), _folder(run), hardware, threads, cost.checkpoint_every_steps,
        _job_cost(hardware), shorter, cost.leads_on,
    )  # fmt: skip


def _finetune(run: plan.Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.finetune import finetune

    checkpoint = _upstream(run, "pretrain") if "pretrain" in run.needs else None
    tokens, hardware = _upstream(run, "tokenize"), _hardware(run, workflow)
    return finetune(run.spec, checkpoint, tokens, DATA, _folder(run), hardware, threads, _job_cost(hardware))


def _meter(run: plan.Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.meter import meter

    return meter(run.spec, _upstream(run, "pretrain"), _folder(run), _hardware(run, workflow))


def _baseline(run: plan.Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.baseline import baseline

    return baseline(run.spec, DATA, _folder(run))


def _evaluate(run: plan.Run, workflow: load.Workflow, threads: int) -> dict:
    from cgpt.evaluate import evaluate

    checkpoint = _upstream(run, run.spec["checkpoint_stage"])
    return evaluate(run.spec, checkpoint, DATA, _folder(run), _hardware(run, workflow), threads)


def _job_cost(hardware: Hardware) -> Any:
    """What says how long a job takes on a profile that no clock can time."""
    if hardware.timing == "measured":
        return None
    from cgpt.cost.training import job_cost

    return job_cost


def _hardware(run: plan.Run, workflow: load.Workflow) -> Hardware:
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


def _folder(run: plan.Run) -> Path:
    return plan.last_file(run.stage, run.id).parent


def _upstream(run: plan.Run, stage: str) -> Path:
    return plan.last_file(stage, run.needs[stage]).parent


def _report(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    experiment, made = _experiment(chosen.experiment)
    if chosen.verb == "tabulate":
        from cgpt.tabulate import tabulate as write
    elif chosen.verb == "plot-devices":
        from cgpt.plot_devices import plot_devices as write
    else:
        from cgpt.plot import plot as write
    with lock(LOCKS / "tables" / experiment.name, wait=True):
        write(experiment, made, RESULTS)
    return {"experiment": experiment.name, "folder": str(RESULTS / experiment.name)}, ""


def _fit(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt import fit
    from cgpt.collect import refuse_stale
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
    from cgpt.coordinate_report import coordinate_check
    from cgpt.coordinates import Settings

    return coordinate_check(Settings(), chosen.out, chosen.threads), f"{chosen.out}/coordinate_check.md"


def _doctor(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt import doctor

    found = doctor.examine()
    if found["problems"]:
        print(json.dumps(found) if chosen.json else doctor.as_text(found))
        raise UserError(*found["problems"])
    return found, doctor.as_text(found)


def _import_hf(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.hf import command

    return command.import_hf(chosen)


def _export_hf(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.hf import command

    return command.export_hf(chosen)


def _forecast(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.cost import forecast

    workflow = load.load_workflow(Path.cwd())
    if chosen.target_loss is not None:
        return _target(chosen, workflow)
    if len(chosen.hardware) > 1 or chosen.budget_hours or chosen.budget_kwh or chosen.series:
        raise UserError(
            "forecast: several profiles, a budget and a law go with --target-loss; write it, or one profile"
        )
    chosen.hardware = chosen.hardware[0]
    task = "decode" if chosen.decode else "prefill" if chosen.prefill else "training"
    given = {name: getattr(chosen, name) for name in forecast.Request.__dataclass_fields__ if name != "task"}
    found = forecast.forecast(forecast.Request(task=task, **given), workflow.models, workflow.hardware)
    return found, forecast.as_text(found)


def _forecast_family(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.cost import family

    workflow = load.load_workflow(Path.cwd())
    stretches = family.read(REFERENCE / "cerebras_gpt_runs.csv")
    rows = family.forecast_family(stretches, workflow.models, workflow.hardware)
    family.write(rows, chosen.out)
    return {"rows": rows, "table": f"{chosen.out}.md"}, f"{chosen.out}.md"


def _target(chosen: argparse.Namespace, workflow: load.Workflow) -> tuple[dict[str, Any], str]:
    from cgpt.cost import target
    from cgpt.scaling import law, published

    alone = ("model", "shape", "tokens", "systems", "batch_per_system", "context", "grid", "decode", "prefill")
    if given := [name for name in alone if getattr(chosen, name)]:
        raise UserError(
            f"--{given[0].replace('_', '-')}: has no meaning with --target-loss, which finds it; leave it out"
        )
    asked = target.Target(chosen.target_loss, tuple(chosen.hardware), chosen.budget_hours, chosen.budget_kwh)
    batch = published.batch_tokens_law(published.read(REFERENCE / published.FAMILY))
    found = target.target(asked, law.read(chosen.law, chosen.series), batch, workflow.hardware)
    return found, target.as_text(found)


def _calibrate(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cgpt.cost import calibrate, fidelity, measurements

    rows = measurements.read(REFERENCE / "accelerator_measurements.csv")
    found = calibrate.calibrate(rows, load.load_workflow(Path.cwd()).hardware)
    fidelity.write(found, rows, REFERENCE)
    return fidelity.as_json(found), fidelity.as_text(found)


if __name__ == "__main__":
    sys.exit(main())
