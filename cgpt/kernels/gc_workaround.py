"""Keep Python's garbage collector from stopping tinygrad's CPU worker threads for good.

The collector runs in whichever thread allocates. In a worker it may find a captured function of a model that is gone;
to free it tinygrad waits until the worker's queue is empty, in the worker itself, which never ends (0.13.0).
"""

import _thread
import functools
import threading
from collections.abc import Callable
from typing import Any

from tinygrad.runtime.graph.hcq import HCQGraph
from tinygrad.runtime.ops_cpu import CPUAllocator, CPUWorker


def release_outside_workers() -> None:
    """Have a worker that frees a graph or a buffer do so in another thread, where it may wait for the device."""
    for owner, name in ((HCQGraph, "__del__"), (CPUAllocator, "_free")):
        function = getattr(owner, name)
        if not hasattr(function, "outside_workers"):
            setattr(owner, name, _outside_workers(function))


def _outside_workers(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*arguments: Any) -> None:
        if isinstance(threading.current_thread(), CPUWorker):
            _thread.start_new_thread(function, arguments)  # not a Thread: its locks may be what this thread holds
        else:
            function(*arguments)

    run.outside_workers = True  # type: ignore[attr-defined]
    return run
