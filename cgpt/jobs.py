"""A workflow and its jobs end together: what stops Snakemake stops them, and they notice when it is gone."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from cgpt.host import is_alive

WORKFLOW_PID = "CGPT_WORKFLOW_PID"  # environment variable of a workflow's jobs: the process that started them
ASKS_FOR_AN_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_S = 1.0
FORWARDERS = ("bash", "sh", "dash", "zsh", "tee")  # end by themselves, and pass the last lines on, when the job ends


def pass_signals_on() -> None:
    """In Snakemake's process: SIGINT and SIGTERM also reach every job, which saves what it can and stops."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _forwarding(signal.getsignal(number)))


def _forwarding(
    before: Callable[[int, FrameType | None], object] | int | None,
) -> Callable[[int, FrameType | None], None]:
    import psutil

    def forward(number: int, frame: FrameType | None) -> None:
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name() not in FORWARDERS:
                    child.send_signal(signal.SIGTERM)
            except psutil.Error:  # it has just ended
                continue
        if callable(before):
            before(number, frame)

    return forward


def stop_with_workflow() -> None:
    """In a job: SIGTERM comes from within when the process that started it is gone, by `kill -9` for instance."""
    pid = os.environ.get(WORKFLOW_PID, "")
    if pid.isdecimal() and is_alive(int(pid)):
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
