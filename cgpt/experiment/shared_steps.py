"""Steps that pretraining runs share: the first ones of runs of schedule wsd that differ only in their length."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgpt.experiment.run import Run
from cgpt.files.whole import is_locked
from cgpt.jobs import STATE_FILE
from cgpt.recipe.schedule import Schedule, without_length
from cgpt.spec import Model, Train

WAIT_S = 0.5  # between two looks at a run that is waited for


def share(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with the shorter ones that it can go on from, and the steps that these did of it."""
    shared_by = {run.id: run for run in runs}
    for group in _group_wsd(runs, without_length):
        group.sort(key=lambda run: run.spec["train"]["steps"])
        for n, run in enumerate(group):
            shorter = group[:n][::-1]
            execution = replace(
                run.execution, is_shared=run is not group[-1], shorter=tuple(other.id for other in shorter),
                shares_with=shorter[0].id if shorter else None,
                shared_steps=_shared_steps(shorter[0]) if shorter else 0,
            )  # fmt: skip
            shared_by[run.id] = replace(run, execution=execution)
    return [shared_by[run.id] for run in runs]


def wait_for_shared_steps(run: Run, state: Path, locks: Path) -> str | None:
    """The longest shorter run that has left what `run` can go on from; one that is under way is waited for.

    `state` is the folder of resume states, `locks` that of the locks of pretraining runs. None where there is none, or
    where the run has a state of its own.
    """
    if (state / run.id / STATE_FILE).is_file():
        return None
    for shorter in run.execution.shorter:
        shared, lock = state / f"{shorter}.shared", locks / shorter
        if shared.is_dir() and not (shared / STATE_FILE).is_file() and is_locked(lock):
            print(f"{run.id}: waits for the steps that it shares with {shorter}, which is under way", file=sys.stderr)
            while shared.is_dir() and not (shared / STATE_FILE).is_file() and is_locked(lock):
                time.sleep(WAIT_S)
        if (shared / STATE_FILE).is_file():
            return shorter
    return None


def count_apart(runs: Sequence[Run]) -> int:
    """Number of runs of schedule wsd that differ in length alone, and share no steps as their warm-up does too."""
    by_fraction = [run for run in runs if run.stage == "pretrain" and not run.spec["train"]["warmup_tokens"]]
    groups = _group_wsd(by_fraction, lambda spec: without_length(spec) | {"warmup_steps": None})
    several = [run for group in groups if len(group) > 1 for run in group]
    return sum(not run.execution.shorter and not run.execution.is_shared for run in several)


def _group_wsd(runs: Sequence[Run], decisive: Callable[[dict[str, Any]], dict[str, Any]]) -> list[list[Run]]:
    """Pretraining runs of schedule wsd in groups whose specs are the same in what is `decisive`."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.stage == "pretrain" and run.spec["train"]["schedule"] == "wsd":
            groups.setdefault(json.dumps(decisive(run.spec), sort_keys=True), []).append(run)
    return list(groups.values())


def _shared_steps(run: Run) -> int:
    return Schedule.of(Train(**run.spec["train"]), Model(**run.spec["model"]).seq_len).first_decaying_step
