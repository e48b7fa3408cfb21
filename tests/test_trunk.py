"""A longer run goes on from what a shorter one left, waits for one that is under way, and needs none."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from project import edit, write_project
from test_wholefile import HOLDER, start

from cgpt.experiment import load, plan, plans, shared_steps

QUICKSTART = "workflows/experiments/quickstart.yaml"


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[plan.Run]:
    """Three lengths of schedule wsd, the shortest first."""
    root = write_project(tmp_path)
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [10, 20, 40]}\nmodels:")
    monkeypatch.chdir(root)
    pretraining = [run for run in plans.all_runs(load.load_workflow(root)).values() if run.stage == "pretrain"]
    return sorted(pretraining, key=lambda run: run.spec["train"]["steps"])


def usable(run: plan.Run) -> str | None:
    return shared_steps.usable(run, Path("state"), Path("locks"))


def leave(run: plan.Run, kind: str = ".trunk") -> None:
    """What a run keeps for itself, or for longer ones."""
    folder = Path("state") / f"{run.id}{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / shared_steps.STATE_FILE).write_bytes(b"state")


def test_the_longest_of_the_shorter_runs_that_left_something_is_taken(runs):
    assert [usable(run) for run in runs] == [None, None, None]
    leave(runs[0])
    assert [usable(run) for run in runs] == [None, runs[0].id, runs[0].id]
    leave(runs[1])
    assert [usable(run) for run in runs] == [None, runs[0].id, runs[1].id]


def test_a_run_with_a_state_of_its_own_goes_on_from_that(runs):
    leave(runs[0])
    leave(runs[1], "")
    assert usable(runs[1]) is None


def test_a_run_under_way_is_waited_for_until_it_has_left_the_shared_steps(runs, capsys):
    holder = start(HOLDER, Path("locks").absolute() / runs[0].id)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert usable(runs[1]) is None  # it was told of no longer run, so it leaves nothing
    (Path("state") / f"{runs[0].id}.trunk").mkdir(parents=True)
    later = threading.Timer(0.7, leave, [runs[0]])
    later.start()
    began = time.monotonic()
    assert usable(runs[1]) == runs[0].id and time.monotonic() - began > 0.5
    assert capsys.readouterr().err == (
        f"{runs[1].id}: waits for the steps that it shares with {runs[0].id}, which is under way\n"
    )
    holder.kill()
    holder.communicate()


def test_a_run_that_dies_while_it_is_waited_for_holds_nobody_up(runs):
    holder = start(HOLDER, Path("locks").absolute() / runs[0].id)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    (Path("state") / f"{runs[0].id}.trunk").mkdir(parents=True)
    threading.Timer(0.5, holder.send_signal, [signal.SIGKILL]).start()
    assert usable(runs[1]) is None
    holder.communicate()


def test_a_run_that_is_past_the_shared_steps_is_not_waited_for(runs):
    holder = start(HOLDER, Path("locks").absolute() / runs[0].id)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    folder = Path("state") / f"{runs[0].id}.trunk"
    folder.mkdir(parents=True)
    threading.Timer(0.5, folder.rmdir).start()
    assert usable(runs[1]) is None
    holder.kill()
    holder.communicate()


def test_nothing_is_kept_for_longer_runs_that_are_finished(runs):
    assert [plans.is_awaited(run, runs) for run in runs] == [True, True, False]
    for longer in runs[1:]:
        record = plan.last_file("pretrain", longer.id)
        record.parent.mkdir(parents=True)
        record.write_text("{}")
    assert not any(plans.is_awaited(run, runs) for run in runs)
