"""A longer run goes on from what a shorter one left, waits for one that is under way, and needs none."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from project import edit, write_project
from test_wholefile import HOLDER, start

from cgpt.experiment import load, shared_steps
from cgpt.experiment.plans import make_plans
from cgpt.experiment.run import Run, last_file
from cgpt.jobs import STATE_FILE

QUICKSTART = "workflows/experiments/quickstart.yaml"


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[Run]:
    """Three lengths of schedule wsd, the shortest first."""
    root = write_project(tmp_path)
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [10, 20, 40]}\nmodels:")
    monkeypatch.chdir(root)
    planned = make_plans(load.load_workflow(root)).runs.values()
    return sorted((run for run in planned if run.stage == "pretrain"), key=lambda run: run.spec["train"]["steps"])


def usable(run: Run) -> str | None:
    return shared_steps.wait_for_shared_steps(run, Path("state"), Path("locks"))


def leave(run: Run, kind: str = ".shared") -> None:
    """Leave a state as a run keeps it for itself, or for longer ones."""
    folder = Path("state") / f"{run.id}{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STATE_FILE).write_bytes(b"state")


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
    (Path("state") / f"{runs[0].id}.shared").mkdir(parents=True)
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
    (Path("state") / f"{runs[0].id}.shared").mkdir(parents=True)
    threading.Timer(0.5, holder.send_signal, [signal.SIGKILL]).start()
    assert usable(runs[1]) is None
    holder.communicate()


def test_a_run_that_is_past_the_shared_steps_is_not_waited_for(runs):
    holder = start(HOLDER, Path("locks").absolute() / runs[0].id)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    folder = Path("state") / f"{runs[0].id}.shared"
    folder.mkdir(parents=True)
    threading.Timer(0.5, folder.rmdir).start()
    assert usable(runs[1]) is None
    holder.kill()
    holder.communicate()


def test_nothing_is_kept_for_longer_runs_that_are_finished(runs):
    planned = make_plans(load.load_workflow(Path.cwd()))
    assert [planned.is_awaited(run) for run in runs] == [True, True, False]
    for longer in runs[1:]:
        record = last_file("pretrain", longer.id)
        record.parent.mkdir(parents=True)
        record.write_text("{}")
    assert not any(planned.is_awaited(run) for run in runs)
