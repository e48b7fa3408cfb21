"""Prints a plan: what would run, how large it is, and what it will roughly cost, before anything is spent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cgpt.cost.step import training_extrapolated
from cgpt.experiment import shared_steps
from cgpt.experiment.planned_time import TimedPlan
from cgpt.experiment.run import Plan, Run
from cgpt.formats import aligned, count, mebibytes, power
from cgpt.hardware import Hardware
from cgpt.spec import Experiment

if TYPE_CHECKING:
    from cgpt.preview.tasks import TaskPreview

PROMPT_LINES, LINE_WIDTH = 5, 110  # as much of a prompt as is shown, from its start and its end
HEADINGS = ("stage", "run", "parameters", "tokens", "FLOPs", "minutes", "memory")
FAMILY = re.compile(r"cerebras-gpt-\d")  # models that `forecast-family` knows
KEYS = ("threads", "n_parameters", "tokens", "flops_6nd", "flops", "minutes", "memory_bytes", "label", "shares_with",
        "shared_steps")  # fmt: skip


def as_json(experiment: Experiment, timed: TimedPlan, tasks: Sequence[TaskPreview] = ()) -> dict[str, Any]:
    """The plan as one JSON object: each run with its spec, needs and estimates (null: not known), the totals, and the
    tasks with a prompt of each."""
    runs = [
        {"stage": run.stage, "id": run.id, "needs": run.needs, "spec": run.spec}
        | {key: getattr(run.execution, key) for key in KEYS}
        | {"finished": run.key in timed.finished}
        for run in timed.plan.runs
    ]
    plan = {"experiment": experiment.name, "question": experiment.question, "runs": runs, "totals": totals(timed.plan)}
    left = [run.execution.minutes or 0.0 for run in timed.left()]
    return plan | {"finished": len(timed.finished), "minutes_left": sum(left), "cores": timed.cores,
                   "wall_minutes": timed.wall_minutes, "rates": list(timed.sources),
                   "not_tuned": list(timed.plan.not_tuned), "tasks": [asdict(task) for task in tasks]}  # fmt: skip


def totals(plan: Plan) -> dict[str, Any]:
    """Sums over the runs whose cost is known, the largest memory, and how many runs on hardware have no estimate.

    Steps that runs share are counted once; `shared_tokens` and `shared_flops` are what that saves.
    """
    costs = [run.execution for run in plan.runs]
    going_on = [(run.execution, run.execution.shared_steps / run.spec["train"]["steps"])
                for run in plan.runs if run.execution.shares_with]  # fmt: skip
    shared_tokens = sum(round((cost.tokens or 0) * share) for cost, share in going_on)
    shared_flops = sum((cost.flops or 0) * share for cost, share in going_on)
    return {
        "runs": len(plan.runs),
        "tokens": sum(cost.tokens or 0 for cost in costs) - shared_tokens,
        "flops": sum(cost.flops or 0 for cost in costs) - shared_flops,
        "shared_tokens": shared_tokens,
        "shared_flops": shared_flops,
        "runs_that_share": len(going_on),
        "wsd_runs_apart": shared_steps.count_apart(plan.runs),
        "minutes": sum(cost.minutes or 0 for cost in costs),
        "memory_bytes": max((cost.memory_bytes or 0 for cost in costs), default=0),
        "runs_without_minutes": sum(
            run.execution.hardware is not None and run.execution.minutes is None and run.stage != "meter"
            for run in plan.runs
        ),
    }


def as_text(experiment: Experiment, timed: TimedPlan, tasks: Sequence[TaskPreview] = ()) -> str:
    """A table for people: a prompt of each task, one line a run, then the totals and what the estimates rest on."""
    plan, total = timed.plan, totals(timed.plan)
    lines = [*(line for task in tasks for line in _preview(task)), ""] if tasks else []
    lines += aligned([HEADINGS, *(_row(run, run.key in timed.finished) for run in plan.runs)], left=2)
    known = f"about {_minutes(total['minutes'])} minutes one after another"
    minutes = known if total["minutes"] else "minutes not known"
    lines += [
        "",
        f"{experiment.name}: {experiment.question}",
        f"{_runs(total['runs'])}; {count(total['tokens'])} tokens, {power(total['flops'])} FLOPs, {minutes}; "
        f"largest run about {mebibytes(total['memory_bytes'])}",
        *_progress(timed),
    ]
    if total["runs_without_minutes"]:
        lines.append(
            f"not in the minutes: {_runs(total['runs_without_minutes'])} whose length the data decides, once they are "
            "fetched, or whose machine's rate is not known"
        )
    lines += [*timed.sources, *(_forecasts(plan) if not total["minutes"] else [])]
    lines += _sharing(total)
    lines += _starts(plan)
    lines += _modeled(experiment, plan)
    if plan.not_tuned:
        lines.append(f"not fine-tuned, as the experiment has no `finetune:` block: {', '.join(plan.not_tuned)}; write "
                     "`finetune: {}` to train on what the tasks say")  # fmt: skip
    starts = "with" if timed.with_starts else "without"
    lines.append(
        f"FLOPs: 6 N + 12 L S d a token; minutes: of steps and scoring, {starts} the seconds in which each job starts; "
        "memory: of the whole process at its peak"
    )
    return "\n".join(lines)


def _progress(timed: TimedPlan) -> list[str]:
    """A line of what is finished, and one of how long the rest takes on the cores that were named."""
    lines, left = [], timed.left()
    if timed.finished:
        minutes = sum(run.execution.minutes or 0.0 for run in left)
        rest = f"what is left, {_runs(len(left))}, takes about {_minutes(minutes)} minutes one after another" if left \
            else "none is left"  # fmt: skip
        lines.append(f"finished: {_runs(len(timed.finished))}; {rest}")
    if timed.wall_minutes is not None and left:
        cores = f"{timed.cores} core" if timed.cores == 1 else f"{timed.cores} cores"
        lines.append(f"on {cores}: about {_minutes(timed.wall_minutes)} minutes, runs side by side as far as their "
                     "threads and needs allow")  # fmt: skip
    return lines


def _forecasts(plan: Plan) -> list[str]:
    """A line with the command that forecasts, where no profile of the plan says how fast it is."""
    trained = [run.spec["model"]["name"] for run in plan.of("pretrain")]
    family = ", or `cgpt forecast-family` for the seven Cerebras-GPT" * any(map(FAMILY.match, trained))
    command = "cgpt forecast --model <model> --hardware <profile> --tokens <tokens>"
    return [f"`{command}` says what a run takes on a modeled machine{family}"] if trained else []


def _sharing(total: dict[str, Any]) -> list[str]:
    """Lines of what runs of schedule wsd share, or why they do not."""
    lines = []
    if total["runs_that_share"]:
        lines.append(f"shared: {total['runs_that_share']} runs go on from a shorter one, which saves "
                     f"{count(total['shared_tokens'])} tokens and {power(total['shared_flops'])} FLOPs; totals and "
                     "minutes are without these, a run's own tokens and FLOPs with them")  # fmt: skip
    if total["wsd_runs_apart"]:
        lines.append(f"not shared: {total['wsd_runs_apart']} runs of schedule wsd differ in their length alone, but "
                     "warm up over a fraction of it; with `warmup_tokens` longer ones go on from shorter")  # fmt: skip
    return lines


def _starts(plan: Plan) -> list[str]:
    """A line for each checkpoint that pretraining goes on from."""
    starts: dict[str, set[str]] = {}
    for run in plan.of("pretrain"):
        if "start" in run.spec["train"]:
            starts.setdefault(run.spec["train"]["start"], set()).add(run.spec["model"]["name"])
    return [f"pretraining of {', '.join(sorted(models))} starts from the weights of {start}, with a fresh optimizer"
            for start, models in starts.items()]  # fmt: skip


def _modeled(experiment: Experiment, plan: Plan) -> list[str]:
    """A line that names the modeled machines, how many of each, and whether beyond what was measured."""
    widths: dict[str, tuple[Hardware, set[int]]] = {}
    for run in plan.runs:
        hardware = run.execution.hardware
        if hardware and hardware.timing == "modeled" and "model" in run.spec:
            widths.setdefault(hardware.name, (hardware, set()))[1].add(run.spec["model"]["d_model"])
    named = []
    for name, (hardware, d_models) in widths.items():
        beyond = [training_extrapolated(hardware, d_model, hardware.systems) for d_model in d_models]
        notes = [f"{hardware.systems} systems"] if hardware.systems > 1 else []
        notes += ["extrapolated" if all(beyond) else "extrapolated for some"] if any(beyond) else []
        named.append(f"{name} ({', '.join(notes)})" if notes else name)
    weights = f", with the weights of {experiment.weights_from}" if experiment.weights_from else ""
    return [f"modeled: {', '.join(named)}{weights}"] if named else []


def _preview(task: TaskPreview) -> list[str]:
    """Lines of what is known of one task, with its first prompt and the right answer after it."""
    name = f"task {task.task}, {task.n_shot}-shot" if task.n_shot else f"task {task.task}"
    if task.unchecked:
        return [f"{name}: not checked: {task.unchecked}"]
    documents, used = ("labelled documents", "trained on") if task.trained else ("documents", "scored")
    lines = [f"{name}: {task.n_documents:,} {documents}, each of which can be rendered and {used}; the first is"]
    shown = (task.prompt or "").split("\n")
    shown = [*shown[:PROMPT_LINES], f"... {len(shown) - 2 * PROMPT_LINES} lines ...", *shown[-PROMPT_LINES:]] \
        if len(shown) > 2 * PROMPT_LINES else shown  # fmt: skip
    lines += [f"  | {line if len(line) <= LINE_WIDTH else line[:LINE_WIDTH] + ' ...'}" for line in shown]
    lines += [f"  and its answer {task.answer!r}"] if task.answer is not None else []
    are = "are" if task.counted_in == "tokens" else "may be"
    for n_cut in sorted({n_cut for n_cut in task.cut.values() if n_cut}, reverse=True):
        models = ", ".join(model for model, n in task.cut.items() if n == n_cut)
        lines.append(f"  {n_cut:,} of {task.n_documents:,} prompts {are} longer than {models}, and lose their start")
    return lines


def _row(run: Run, finished: bool) -> tuple[str, ...]:
    cost = run.execution
    counts = (count(cost.n_parameters), count(cost.tokens), power(cost.flops))
    minutes = "done" if finished else _minutes(cost.minutes)
    return (run.stage, f"{run.id}  {cost.label}".rstrip(), *counts, minutes, mebibytes(cost.memory_bytes))


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _minutes(number: float | None) -> str:
    return "" if number is None else f"{number:.1f}"
