"""What a training run keeps while it runs: the state to resume from, its loss.csv, its clock and its progress line."""

from __future__ import annotations

import csv
import io
import resource
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from cgpt.errors import writing
from cgpt.jobs import ASKS_FOR_AN_END
from cgpt.records import LOSS_COLUMNS, write_whole

PROGRESS_EVERY_S = 10.0  # where standard error is a file; a terminal is updated every half second


class Saved(NamedTuple):
    """What a run resumes from: the trainer's arrays, and loss.csv as it was at the same step."""

    arrays: dict[str, np.ndarray]
    log: str


class RunState:
    """What to resume from, in one file that is replaced whole. A file with another key is not ours and not used."""

    def __init__(self, folder: Path, key: str):
        self.folder, self.key, self.path = folder, key, folder / "state.safetensors"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> Saved | None:
        """What was last saved under this key, or None."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                found = file.metadata() or {}
                if found.get("key") != self.key:
                    return None
                return Saved({name: file.get_tensor(name) for name in file.keys()}, found["log"])  # noqa: SIM118
        except (SafetensorError, OSError):
            return None

    def save(self, arrays: dict[str, np.ndarray], log: str) -> None:
        """Replace what is kept. Raises UserError when the disk is full."""
        from safetensors.numpy import save

        with writing(self.folder):
            write_whole(self.path, save(arrays, metadata={"key": self.key, "log": log}))

    def remove(self) -> None:
        """The run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


class LossLog:
    """loss.csv, one line per step, written as the run goes."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def start(self, text: str = "") -> None:
        """Begin the file with the lines of an earlier session; what that did after its last checkpoint is gone."""
        self.rows = list(csv.DictReader(io.StringIO(text)))
        with writing(self.path.parent):
            write_whole(self.path, self.text().encode())

    def text(self) -> str:
        """The whole file."""
        lines = [LOSS_COLUMNS, *(row.values() for row in self.rows)]
        return "".join(",".join(map(str, line)) + "\n" for line in lines)

    def append(self, **row: Any) -> None:
        """Add the line of one step; None is an empty cell."""
        cells = {column: "" if row[column] is None else row[column] for column in LOSS_COLUMNS}
        self.rows.append(cells)
        with writing(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(str(value) for value in cells.values()) + "\n")

    def last(self, column: str) -> float | None:
        """The last value of a column, or None."""
        return next((float(row[column]) for row in reversed(self.rows) if row[column] != ""), None)

    def first(self, column: str) -> float | None:
        """The first value of a column, or None."""
        return float(self.rows[0][column]) if self.rows else None


class Clock:
    """Seconds of a run, over all its sessions, and the speed of its steps once they are captured."""

    N_CAPTURING = 1  # the first call schedules, compiles and captures

    def __init__(self, seconds_before: float = 0.0):
        self._start = time.perf_counter() - seconds_before
        self._steps: list[tuple[int, float]] = []

    @property
    def seconds(self) -> float:
        """Since the run began, the time between sessions left out."""
        return time.perf_counter() - self._start

    def add(self, n_tokens: int, step_s: float) -> None:
        """Note one step."""
        self._steps.append((n_tokens, step_s))

    @property
    def tokens_per_s(self) -> float | None:
        """Of the training steps alone, without those that compile."""
        steady = self._steps[self.N_CAPTURING :]
        return sum(n for n, _ in steady) / sum(s for _, s in steady) if steady else None

    def seconds_for(self, n_steps: int) -> float | None:
        """What so many more steps will take, without evaluations."""
        steady = self._steps[self.N_CAPTURING :]
        return n_steps * sum(s for _, s in steady) / len(steady) if steady else None

    @property
    def compile_s(self) -> float | None:
        """What the first steps took longer than the later ones."""
        if self.tokens_per_s is None:
            return None
        return max(0.0, sum(s - n / self.tokens_per_s for n, s in self._steps[: self.N_CAPTURING]))


class Progress:
    """One line on standard error: rewritten on a terminal, added every ten seconds elsewhere."""

    def __init__(self, name: str):
        self.name, self._last = name, 0.0
        self._terminal = sys.stderr.isatty()

    def show(self, step: int, steps: int, loss: float, clock: Clock, last: bool = False) -> None:
        """Step, loss in nats per token, tokens/s, memory and time left."""
        now = time.perf_counter()
        if not last and now - self._last < (0.5 if self._terminal else PROGRESS_EVERY_S):
            return
        self._last = now
        rate, left_s = clock.tokens_per_s, clock.seconds_for(steps - step)
        left = "-" if left_s is None else f"{int(left_s) // 60}:{int(left_s) % 60:02d}"
        line = (
            f"{self.name}: step {step}/{steps}  loss {loss:.4f}  {f'{rate:,.0f}' if rate else '-'} tokens/s  "
            f"{peak_memory_bytes() / 2**20:,.0f} MiB  {left} left"
        )
        end = "\n" if last or not self._terminal else ""
        with suppress(OSError):  # whoever read it is gone, which is no reason to lose the run
            print(f"\r\x1b[K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


class StopSignal:
    """`with StopSignal() as stop:` what asks for an end sets `stop.requested` instead of ending the process at once."""

    requested: int | None = None  # the signal's number

    def __enter__(self) -> StopSignal:
        asked = [number for number in ASKS_FOR_AN_END if signal.getsignal(number) != signal.SIG_IGN]  # as by nohup
        self._before = {number: signal.signal(number, self._note) for number in asked}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = number


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    try:  # where there is a /proc: ru_maxrss is never below what the process that started this one then had
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
