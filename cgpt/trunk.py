"""Which pretraining runs share their first steps: those of schedule wsd that differ in nothing but their length."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cgpt.schedule import Schedule, shared
from cgpt.spec import Model, Train

if TYPE_CHECKING:
    from cgpt.plan import Run


def share(runs: Sequence[Run]) -> list[Run]:
    """The runs, each told of the next shorter one that it goes on from, and charged only for what it does itself."""
    told = {run.id: run for run in runs}
    for group in _of_wsd_alike(runs, shared):
        group.sort(key=lambda run: run.spec["train"]["steps"])
        for shorter, longer in pairwise(group):
            told[shorter.id] = replace(told[shorter.id], execution=replace(told[shorter.id].execution, leads_on=True))
            cost = told[longer.id].execution
            trunk_steps = _shared_steps(shorter)
            own = 1 - trunk_steps / longer.spec["train"]["steps"]
            minutes = None if cost.minutes is None else cost.minutes * own
            execution = replace(cost, trunk=shorter.id, trunk_steps=trunk_steps, minutes=minutes)
            told[longer.id] = replace(told[longer.id], execution=execution)
    return [told[run.id] for run in runs]


def apart(runs: Sequence[Run]) -> int:
    """How many runs of schedule wsd differ in their length alone, and share no steps as their warm-up does too."""

    def but_for_warmup(spec: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in shared(spec).items() if key != "warmup_steps"}

    by_fraction = [run for run in runs if run.stage == "pretrain" and not run.spec["train"]["warmup_tokens"]]
    several = [run for group in _of_wsd_alike(by_fraction, but_for_warmup) if len(group) > 1 for run in group]
    return sum(run.execution.trunk is None and not run.execution.leads_on for run in several)


def _of_wsd_alike(runs: Sequence[Run], decisive: Callable[[dict[str, Any]], dict[str, Any]]) -> list[list[Run]]:
    """Pretraining runs of schedule wsd whose specs are the same in what is `decisive`."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.stage == "pretrain" and run.spec["train"]["schedule"] == "wsd":
            groups.setdefault(json.dumps(decisive(run.spec), sort_keys=True), []).append(run)
    return list(groups.values())


def _shared_steps(run: Run) -> int:
    return Schedule.of(Train(**run.spec["train"]), Model(**run.spec["model"]).seq_len).first_decaying_step
