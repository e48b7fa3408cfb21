"""The line that `snakemake` shows for a whole workflow, over runs whose files the tests write."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import pytest
from project import write_project

from cgpt.experiment import load, plan, progress_line
from cgpt.experiment.progress_line import ProgressLine, log_file
from cgpt.experiment.run import Run, last_file


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[Run]:
    """The runs of a small project, none of which was started: fetch, tokenize, pretrain and those of one task."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    workflow = load.load_workflow(tmp_path)
    return list(plan.make_plan(workflow.experiments["quickstart"], workflow).runs)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def take(line: ProgressLine, run: Run, start: float, end: float) -> None:
    """The run is started and ended at these seconds."""
    write(log_file(*run.key))
    line.look(start)
    write(last_file(*run.key))
    line.look(end)


def of(runs: list[Run], stage: str) -> list[Run]:
    return [run for run in runs if run.stage == stage]


def test_a_run_is_done_when_its_last_file_is_written_and_what_was_there_before_does_not_count(runs):
    first, second = of(runs, "evaluate")[:2]
    write(last_file(*first.key))
    line = ProgressLine([first, second], None)
    line.look(1.0)
    assert line.text(1.0) == "0 of 2 runs done"
    os.utime(last_file(*first.key), (1, 1))  # written again
    line.look(2.0)
    assert line.text(2.0) == "1 of 2 runs done"
    take(line, second, 3.0, 4.0)
    assert line.text(4.0) == "2 of 2 runs done"


def test_a_run_that_is_left_takes_what_those_of_its_stage_took_and_one_under_way_what_is_left_of_that(runs):
    scored = of(runs, "evaluate")
    assert len(scored) == 3
    line = ProgressLine(scored, 1)
    take(line, scored[0], 0.0, 600.0)
    assert line.text(600.0) == "1 of 3 runs done, about 20 min left"
    assert line.text(660.0) == "1 of 3 runs done, about 19 min left"
    write(log_file(*scored[1].key))
    line.look(660.0)
    line.look(900.0)
    assert line.text(900.0) == "1 of 3 runs done, about 16 min left"
    line = ProgressLine(scored[1:], 2)
    take(line, scored[1], 0.0, 30.0)
    assert line.text(30.0) == "1 of 2 runs done, about a minute left"


def test_where_output_is_no_terminal_a_line_comes_once_a_minute_or_a_tenth_of_the_runs(runs, monkeypatch):
    monkeypatch.setattr("sys.stderr", shown := io.StringIO())
    line = ProgressLine(runs, None)
    for second in range(0, 130, 2):
        if second == 70:
            write(last_file(*runs[0].key))
        line._show(float(second))
    line._show(130.0, last=True)  # as the line before
    write(last_file(*runs[1].key))
    line._show(131.0, last=True)
    none, one, two = (f"{n} of {len(runs)} runs done" for n in range(3))
    assert shown.getvalue().splitlines() == [none, none, one, two]


def test_a_terminal_has_one_line_that_is_rewritten_and_ends_without_minutes(runs, monkeypatch):
    monkeypatch.setattr("sys.stderr", shown := io.StringIO())
    monkeypatch.setattr(shown, "isatty", lambda: True)
    scored = of(runs, "evaluate")
    line = ProgressLine(scored, 1)
    take(line, scored[0], 0.0, 600.0)
    line._show(600.0)
    line._show(601.0, last=True)
    assert shown.getvalue() == "\r\x1b[K1 of 3 runs done, about 20 min left\r\x1b[K1 of 3 runs done\n"


def test_messages_about_single_jobs_are_hidden_and_all_others_shown(runs, monkeypatch):
    from snakemake_interface_logger_plugins.common import LogEvent

    monkeypatch.setattr(progress_line, "TERMINAL_EVERY_S", 0.01)
    logger = logging.getLogger("snakemake.logging")
    handler = logging.StreamHandler(shown := io.StringIO())
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr("sys.stderr", line_shown := io.StringIO())
    line = ProgressLine(of(runs, "fetch"), None)
    line.start(hide_jobs=True)
    for event in (LogEvent.JOB_INFO, LogEvent.JOB_FINISHED, LogEvent.PROGRESS, LogEvent.JOB_ERROR, LogEvent.ERROR):
        logger.error(event.name, extra={"event": event})
    logger.error("Select jobs to execute...")
    logger.error("Exiting because a job execution failed.")
    write(last_file(*of(runs, "fetch")[0].key))
    line.end()
    assert shown.getvalue().splitlines() == ["JOB_ERROR", "ERROR", "Exiting because a job execution failed."]
    assert line_shown.getvalue().splitlines()[-1] == "1 of 1 runs done"
