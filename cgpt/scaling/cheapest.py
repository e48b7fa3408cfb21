"""The cheapest way to a loss: what each machine takes to it, by its fitted law, in seconds, joules and US dollars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgpt.scaling import cost_law
from cgpt.scaling.machines import COSTS
from cgpt.scaling.statistics import interval

BEYOND = 0.1  # how far beyond the lowest loss the last one asked for lies, as a share of the range of losses
Fit = Mapping[str, Any]


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
        own = [way for way in ways if way["cost"] == cost]
        least = min((_whole_job(way) for way in own), default=math.inf)
        for way in own:
            way["cheapest"] = _whole_job(way) == least < math.inf
    return ways


def _whole_job(way: Mapping[str, Any]) -> float:
    return way["steps"][0] + way["job_overhead"]


def _with_interval(fit: Fit, loss: float) -> list[float]:
    return [
        float(cost_law.cost_at(cost_law.law_of(fit), loss)),
        *interval(cost_law.cost_at(np.array(fit["draws"]), loss)),
    ]
