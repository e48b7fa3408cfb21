"""Which pretraining runs share their first steps: those of schedule wsd that differ in nothing but their length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from cgpt.schedule import Schedule, shared
from cgpt.spec import Model, Train

if TYPE_CHECKING:
    from cgpt.plan import Run


def share(runs: Sequence[Run]) -> list[Run]:
    """The runs, each told of the next shorter one that it goes on from, and charged only for what it does itself."""
    lengths: dict[str, list[Run]] = {}
    for run in runs:
        if run.stage == "pretrain" and run.spec["train"]["schedule"] == "wsd":
            same = json.dumps(shared(run.spec), sort_keys=True)
            lengths.setdefault(same, []).append(run)
    told = {run.id: run for run in runs}
    for group in lengths.values():
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
    lengths: dict[str, list[Run]] = {}
    for run in runs:
        if (
            run.stage == "pretrain"
            and run.spec["train"]["schedule"] == "wsd"
            and not run.spec["train"]["warmup_tokens"]
        ):
            same = shared(run.spec)
            del same["warmup_steps"]
            lengths.setdefault(json.dumps(same, sort_keys=True), []).append(run)
    several = [run for group in lengths.values() if len(group) > 1 for run in group]
    return sum(run.execution.trunk is None and not run.execution.leads_on for run in several)


def _shared_steps(run: Run) -> int:
    return Schedule.of(Train(**run.spec["train"]), Model(**run.spec["model"]).seq_len).first_decaying_step
