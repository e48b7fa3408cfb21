"""One line on standard error for all runs of a workflow while it works: how many are done, and the minutes left."""

import logging
import math
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cgpt.experiment.planned_time import minutes_left
from cgpt.experiment.run import RUNS_FOLDER, Key, Run, last_file

TERMINAL_EVERY_S, TEXT_EVERY_S, TEXT_EVERY_SHARE = 2.0, 60.0, 0.1  # a terminal's line is rewritten, others are added
ESTIMATE_EVERY_S = 10.0
# Snakemake's messages about single jobs, which its log file has; what it says of failures and at the end is shown.
OF_ONE_JOB = {"job_info", "job_started", "job_finished", "progress", "resources_info"}


class ProgressLine:
    """The line of a workflow's runs. A run is under way when its log is written, done when its last file is."""

    def __init__(self, runs: Sequence[Run], cores: int | None):
        self.runs, self.cores = {run.key: run for run in runs}, cores
        self._before = {path: _written_ns(path) for key in self.runs for path in (log_file(*key), last_file(*key))}
        self._started: dict[Key, float] = {}
        self._seconds: dict[Key, float] = {}  # of the runs that are done
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._show_until_the_end, daemon=True)
        self._minutes, self._estimated = math.nan, -math.inf
        self._shown, self._shown_share = -math.inf, 0.0

    def start(self, hide_jobs: bool) -> None:
        """Show the line from now on, in a thread, instead of Snakemake's messages about single jobs if so wished."""
        if not self.runs:
            return
        for handler in logging.getLogger("snakemake.logging").handlers if hide_jobs else ():
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not self.hides(record))
        self._thread.start()

    def end(self) -> None:
        """Show the line a last time."""
        if self._thread.is_alive():
            self._ending.set()
            self._thread.join()

    def look(self, now: float) -> None:
        """See which runs have been started and ended by `now`, in seconds."""
        for key in self.runs.keys() - self._seconds.keys():
            if key not in self._started and self._is_new(log_file(*key)):
                self._started[key] = now
            if self._is_new(last_file(*key)):
                self._seconds[key] = now - self._started.get(key, now)
        if self.cores and now - self._estimated >= ESTIMATE_EVERY_S:
            under_way = {key: now - started for key, started in self._started.items() if key not in self._seconds}
            self._minutes = minutes_left(list(self.runs.values()), under_way, self._seconds, self.cores)
            self._estimated = now

    def text(self, now: float) -> str:
        """The line as it is at `now`."""
        n_done, n_runs = len(self._seconds), len(self.runs)
        line = f"{n_done:,} of {n_runs:,} runs done"
        if n_done == n_runs or math.isnan(self._minutes):
            return line
        left = max(0.0, self._minutes - (now - self._estimated) / 60)
        return f"{line}, about {math.ceil(left):,} min left" if left > 1 else f"{line}, about a minute left"

    def hides(self, record: logging.LogRecord) -> bool:
        """Whether a message of Snakemake's is about a single job; another one gets a line for itself."""
        if str(getattr(record, "event", "")) in OF_ONE_JOB or record.getMessage() == "Select jobs to execute...":
            return True
        if sys.stderr.isatty():
            _write("\r\x1b[K")
        return False

    def _show_until_the_end(self) -> None:
        while not self._ending.wait(TERMINAL_EVERY_S):
            self._show(time.monotonic())
        self._show(time.monotonic(), last=True)

    def _show(self, now: float, last: bool = False) -> None:
        self.look(now)
        text = self.text(now).partition(",")[0] if last else self.text(now)
        if sys.stderr.isatty():
            _write(f"\r\x1b[K{text}" + ("\n" if last else ""))
            return
        share = len(self._seconds) / len(self.runs)
        if last and share == self._shown_share:
            return
        if last or now - self._shown >= TEXT_EVERY_S or share - self._shown_share >= TEXT_EVERY_SHARE:
            self._shown, self._shown_share = now, share
            _write(f"{text}\n")

    def _is_new(self, path: Path) -> bool:
        return _written_ns(path) not in (None, self._before[path])


def log_file(stage: str, run_id: str) -> Path:
    """The log of a run, as its rule names it."""
    return RUNS_FOLDER / "logs" / stage / f"{run_id}.log"


def _written_ns(path: Path) -> int | None:
    """When a file was written; None where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # whoever read it is gone
        sys.stderr.write(text)
        sys.stderr.flush()
