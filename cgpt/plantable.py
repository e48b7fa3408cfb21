"""Prints a plan: what would run, how large it is, and what it will roughly cost, before anything is spent."""

from __future__ import annotations

from typing import Any

from cgpt.plan import Plan, Run
from cgpt.spec import Experiment

HEADINGS = ("stage", "run", "parameters", "tokens", "FLOPs", "minutes", "memory")
KEYS = ("threads", "n_parameters", "tokens", "flops_6nd", "flops", "minutes", "memory_bytes")


def as_json(experiment: Experiment, plan: Plan) -> dict[str, Any]:
    """The plan as one JSON object: each run with its spec, needs and estimates (null: not known), and the totals."""
    runs = [
        {"stage": run.stage, "id": run.id, "needs": run.needs, "spec": run.spec}
        | {key: getattr(run.execution, key) for key in KEYS}
        for run in plan.runs
    ]
    return {"experiment": experiment.name, "question": experiment.question, "runs": runs, "totals": totals(plan)}


def totals(plan: Plan) -> dict[str, Any]:
    """Sums over the runs whose cost is known, the largest memory, and how many runs on hardware have no estimate."""
    costs = [run.execution for run in plan.runs]
    return {
        "runs": len(plan.runs),
        "tokens": sum(cost.tokens or 0 for cost in costs),
        "flops": sum(cost.flops or 0 for cost in costs),
        "minutes": sum(cost.minutes or 0 for cost in costs),
        "memory_bytes": max((cost.memory_bytes or 0 for cost in costs), default=0),
        "runs_without_minutes": sum(
            run.execution.hardware is not None and run.execution.minutes is None and run.stage != "meter"
            for run in plan.runs
        ),
    }


def as_text(experiment: Experiment, plan: Plan) -> str:
    """A table for people: one line a run, then the totals and what the estimates rest on."""
    rows = [HEADINGS, *(_row(run) for run in plan.runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]  # fmt: skip
    total = totals(plan)
    known = f"about {_minutes(total['minutes'])} minutes one after another"
    minutes = known if total["minutes"] else "minutes not known"
    lines += [
        "",
        f"{experiment.name}: {experiment.question}",
        f"{total['runs']} runs; {_count(total['tokens'])} tokens, {_power(total['flops'])} FLOPs, {minutes}; "
        f"largest run about {_mib(total['memory_bytes'])}",
    ]
    if total["runs_without_minutes"]:
        lines.append(
            f"not in the minutes: {total['runs_without_minutes']} runs whose length their data decides, "
            "or whose hardware profile names no sustained_flops_per_s"
        )
    lines += _modeled(experiment, plan)
    lines.append(
        "FLOPs: 6 N + 12 L S d a token; memory: weights, gradients, Adam moments, one micro batch's activations"
    )
    return "\n".join(lines)


def _modeled(experiment: Experiment, plan: Plan) -> list[str]:
    """Which machines are modeled, and how many of each; no line where none is."""
    used = {run.execution.hardware.name: run.execution.hardware for run in plan.runs if run.execution.hardware}
    named = [f"{name} ({hardware.systems} systems)" if hardware.systems > 1 else name
             for name, hardware in used.items() if hardware.timing == "modeled"]  # fmt: skip
    weights = f", with the weights of {experiment.weights_from}" if experiment.weights_from else ""
    return [f"modeled: {', '.join(named)}{weights}"] if named else []


def _row(run: Run) -> tuple[str, ...]:
    cost = run.execution
    counts = (_count(cost.n_parameters), _count(cost.tokens), _power(cost.flops))
    return (run.stage, run.id, *counts, _minutes(cost.minutes), _mib(cost.memory_bytes))


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _power(number: float | None) -> str:
    return "" if number is None else f"{number:.2e}"


def _minutes(number: float | None) -> str:
    return "" if number is None else f"{number:.1f}"


def _mib(number: int | None) -> str:
    return "" if not number else f"{number / 2**20:,.0f} MiB"
