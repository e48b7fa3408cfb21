"""What the runs of a series cost on each machine, in seconds, joules and US dollars, from an experiment's hardware.csv.

A cost is that of the steps alone: what a job takes before and after them is the same for a run of any length, so that
no law holds of it. Joules are nameplate power for as long as the steps take, US dollars the profile's price for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgpt.experiment.run import Plan
from cgpt.hardware import Hardware
from cgpt.records import HARDWARE_COLUMNS
from cgpt.scaling.points import Points, read_rows, refuse_strange

COSTS = {"seconds": "s", "joules": "j", "usd": "usd"}  # each with its unit
SECONDS_PER_HOUR = 3600


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
    without = {row["model"]: None for row in rows if not row["tokens_per_s"] or row["fits"] == "false"}
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
            unknown[cost] = f"hardware_profiles/{profile.name}.yaml has no {key}"
        else:
            rates[cost] = rate * profile.systems / seconds
    return rates, unknown
