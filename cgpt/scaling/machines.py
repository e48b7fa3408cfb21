"""Costs of a series' runs on each machine, in seconds, joules and US dollars, from an experiment's hardware.csv; and
the cheapest machine to a loss, by the laws fitted to them.

A cost is that of the steps alone: what a job takes before and after them is the same for a run of any length, so that
no law holds of it. Joules are nameplate power for as long as the steps take, US dollars the profile's price for it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.experiment.run import Plan
from cgpt.files.layers import file_of
from cgpt.hardware import Hardware
from cgpt.scaling import cost_law
from cgpt.scaling.points import Points, read_rows, refuse_strange
from cgpt.scaling.statistics import interval

# Columns of hardware.csv.
HARDWARE_COLUMNS = (
    "experiment", "model", "n_parameters", "data", "setting", "seed", "hardware", "timing", "weights_from", "systems",
    "batch_per_system", "tokens", "validation_loss", "step_s", "tokens_per_s", "utilisation", "energy_j_per_token",
    "seconds", "energy_j", "job_overhead_s", "price_usd", "bound_by", "in_memory", "extrapolated", "metered_flops",
    "metered_bytes", "parts_s", "run",
)  # fmt: skip

COSTS = {"seconds": "s", "joules": "j", "usd": "usd"}  # each with its unit
SECONDS_PER_HOUR = 3600
BEYOND = 0.1  # how far beyond the lowest loss the last one asked for lies, as a share of the range of losses
Fit = Mapping[str, Any]


@dataclass(frozen=True)
class Machine:
    """One machine; `costs`, by their names, are (n,), as the points of its series. `unknown`: why another has none.

    `overhead`: by cost, the most that a job of the series takes beside its steps. `extrapolated`: the cost model is
    used beyond what it was fitted to, for some run at least.
    """

    hardware: str
    timing: str  # measured | modeled
    extrapolated: bool
    costs: Mapping[str, np.ndarray]
    overhead: Mapping[str, float]
    unknown: Mapping[str, str]

    def timing_of(self, cost: str) -> str:
        """Whether a cost was measured; energy never is."""
        return "modeled" if cost == "joules" else self.timing


def read_machines(path: Path, plan: Plan, series: Mapping[str, Points]) -> dict[str, list[Machine]]:
    """The machines of a hardware.csv on which all runs of a series were trained or metered, by series.

    Raises UserError where the file is missing or names a run that the plan does not.
    """
    runs = {run.id: run for stage in ("pretrain", "meter") for run in plan.of(stage)}
    rows = read_rows(path, HARDWARE_COLUMNS)
    refuse_strange(path, rows, runs, plan)
    machines: dict[str, dict[str, dict[str, str]]] = {}  # by machine and the run that trained
    profiles = {}
    for row in rows:
        run = runs[row["run"]]
        machines.setdefault(row["hardware"], {})[run.needs.get("pretrain", run.id)] = row
        profiles[row["hardware"]] = run.execution.hardware
    return {name: [_machine(profiles[hardware], [of_run[run] for run in points.runs])
                   for hardware, of_run in machines.items() if of_run.keys() >= set(points.runs)]
            for name, points in series.items()}  # fmt: skip


def _machine(profile: Hardware | None, rows: list[dict[str, str]]) -> Machine:
    assert profile is not None
    rates, unknown = _rates(profile)
    without = {row["model"]: None for row in rows if not row["tokens_per_s"] or row["in_memory"] == "false"}
    if without:
        rates, unknown = {}, dict.fromkeys(COSTS, f"no time of a step for {', '.join(without)}")
    tokens, speed, overhead_s = (np.array([float(row[key] or "nan") for row in rows])
                                 for key in ("tokens", "tokens_per_s", "job_overhead_s"))  # fmt: skip
    most_s = float(np.nan_to_num(overhead_s).max())
    return Machine(
        profile.name, profile.timing, any(row["extrapolated"] == "true" for row in rows),
        costs={cost: tokens / speed * rate for cost, rate in rates.items()},
        overhead={cost: most_s * rate for cost, rate in rates.items()}, unknown=unknown,
    )  # fmt: skip


def _rates(profile: Hardware) -> tuple[dict[str, float], dict[str, str]]:
    """Each cost of a second, of all systems together, and why the others are not known."""
    keys = {"joules": ("power_w", 1), "usd": ("price_per_hour_usd", SECONDS_PER_HOUR)}
    rates, unknown = {"seconds": 1.0}, {}
    for cost, (key, seconds) in keys.items():
        rate = getattr(profile, key)
        if rate is None:
            unknown[cost] = f"{file_of('hardware', profile.name)} has no {key}"
        else:
            rates[cost] = rate * profile.systems / seconds
    return rates, unknown


def losses_to_reach(losses: Sequence[np.ndarray]) -> list[float]:
    """The middle of the range of the settings' mean losses, its lower end and one just beyond, with two decimals."""
    values = np.concatenate(losses)
    low, high = values.min(), values.max()
    return [round(float(loss), 2) for loss in ((low + high) / 2, low, low - BEYOND * (high - low))]


def ways_to(loss: float, fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """For each machine and cost: what the steps take to the loss, with its 95 % interval, by the offset law, or by the
    power law where the settings are too few for an offset.

    `cheapest`: no other machine takes less, what a job takes beside its steps included. Infinite where a law, or the
    end of its interval, does not reach the loss.
    """
    costs = dict.fromkeys((fit["hardware"], fit["cost"]) for fit in fits)
    decided = (cost_law.decided(fit for fit in fits if (fit["hardware"], fit["cost"]) == cost) for cost in costs)
    laws = [fit for fit in decided if fit]
    ways = [{"loss": loss, **{key: fit[key] for key in ("hardware", "timing", "extrapolated", "cost", "job_overhead")},
             "steps": _with_interval(fit, loss)} for fit in laws]  # fmt: skip
    for cost in COSTS:
        of_cost = [way for way in ways if way["cost"] == cost]
        whole_jobs = [way["steps"][0] + way["job_overhead"] for way in of_cost]
        for way, whole_job in zip(of_cost, whole_jobs):
            way["cheapest"] = whole_job == min(whole_jobs) < math.inf
    return ways


def _with_interval(fit: Fit, loss: float) -> list[float]:
    best, draws = cost_law.law_of(fit), np.array(fit["draws"])
    return [float(cost_law.cost_at(best, loss)), *interval(cost_law.cost_at(draws, loss))]
