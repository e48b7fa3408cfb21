"""A job is one run of a stage: what the stage is given, and how a workflow and its jobs end together.

What stops Snakemake stops its jobs, and they notice when it is gone.
"""

import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from cgpt.errors import UserError
from cgpt.hardware import Hardware
from cgpt.host import is_alive
from cgpt.spec import Dataset, Model, PublishedModel, Train

WORKFLOW_PID = "CGPT_WORKFLOW_PID"
"""Set by a workflow for its jobs: the process that started them, with which they end."""
ASKS_FOR_AN_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_S = 1.0
LARGEST_PID = (1 << 31) - 1
STATE_FILE = "state.safetensors"  # that a training run resumes from, in its folder of results/runs/state
FORWARDERS = ("bash", "sh", "dash", "zsh", "tee")  # end by themselves, and pass the last lines on, when the job ends

HOST = Hardware("cpu", "", device="CPU")
Batches = Mapping[tuple[int, int], int]  # number of steps by sequences and by tokens in each
JobCost = Callable[[Model, Hardware, Batches, int], dict[str, float | None]]


@dataclass(frozen=True)
class Job:
    """One run of a stage, as the stage is given it: `stage(job)` writes the run's files and returns its record."""

    spec: dict[str, Any]  # all that decides the result
    folder: Path  # of the run's files; its name is the run's id
    upstream: Mapping[str, Path] = field(default_factory=dict)  # folders of the runs that it is made from, by stage
    data: Path = Path("data")  # holds a folder per fetched data set
    hardware: Hardware = HOST  # that the stage computes on, where it trains or scores
    threads: int = 1
    dataset: Dataset | None = None  # that `fetch` brings
    published: PublishedModel | None = None  # whose checkpoint `import` brings
    checkpoint_every_steps: int = Train.checkpoint_every_steps
    shares_with: str | None = None  # a shorter run, whose state at the end of the stable phase this one can go on from
    is_shared: bool = False  # whether a longer run may go on from this one's
    # Cost of training on a modeled profile; handed in, so that a changed cost model trains nothing again on others.
    cost: JobCost | None = None

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.name


def pass_signals_on() -> None:
    """In Snakemake's process: SIGINT and SIGTERM also reach every job, which saves what it can and stops."""
    if threading.current_thread() is not threading.main_thread():
        return
    import psutil

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def forward(number: int, frame: FrameType | None) -> None:
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name() not in FORWARDERS:
                    child.send_signal(signal.SIGTERM)
            except psutil.Error:  # it has just ended
                continue
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, forward)


@contextmanager
def handling_signals(handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Inside, and in the main thread, signals that ask for an end are handled so, but for ignored ones, as by nohup."""
    asked = [number for number in ASKS_FOR_AN_END if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        asked = []
    before = {number: signal.signal(number, handle) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_with_workflow() -> None:
    """In a job: SIGTERM comes from within when the process that started it is gone, by `kill -9` for instance.

    Raises UserError where the environment names no process.
    """
    pid = os.environ.get(WORKFLOW_PID)
    if not pid:
        return
    if not re.fullmatch("[0-9]{1,10}", pid) or not 0 < int(pid) <= LARGEST_PID:
        raise UserError(f"environment: {WORKFLOW_PID}: must be the number of the process of a workflow, which sets it "
                        f"for its jobs, not '{pid}'; unset it")  # fmt: skip
    if is_alive(int(pid)):
        threading.Thread(target=_stop_after, args=(int(pid),), daemon=True).start()


def _stop_after(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)  # Linux; becomes readable when that process ends
        select.select([descriptor], [], [])
    except (AttributeError, OSError):
        while is_alive(pid):
            time.sleep(POLL_S)
    try:
        print("the workflow that started this run is gone; it saves and stops", file=sys.stderr, flush=True)
    except OSError:  # so is whoever read its messages
        pass
    os.kill(os.getpid(), signal.SIGTERM)
