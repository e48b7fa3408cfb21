"""State of a training run while it runs: what to resume from, its loss.csv and its clock."""

import csv
import hashlib
import io
import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgpt.csv_columns import LOSS_COLUMNS
from cgpt.files.whole import write_whole, writing
from cgpt.host import peak_memory_bytes
from cgpt.jobs import STATE_FILE


class Saved(NamedTuple):
    """State that a run resumes from: the trainer's arrays, and loss.csv, clock and metered work as they were then."""

    arrays: dict[str, np.ndarray]
    log: str
    clock: dict[str, Any] = {}
    metered: dict[str, Any] = {}


class RunState:
    """A state to resume from, in one file that is replaced whole.

    `key` names all that decides the run's bits; a file with another key, or with another content than was written, is
    not used.
    """

    def __init__(self, folder: Path, key: dict[str, str]):
        self.folder, self.key, self.path = folder, key, folder / STATE_FILE
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> tuple[Saved | None, str]:
        """The state last saved under this key; or None, and why what is there is not used ("" where nothing is)."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None, ""
        try:
            with safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            key, saved = json.loads(metadata["key"]), Saved(arrays, metadata["log"], *json.loads(metadata["measured"]))
            changed = [name for name, value in self.key.items() if key.get(name) != value]
            n_rows = max(0, saved.log.count("\n") - 1)
            whole = metadata["sha256"] == _state_sha256(arrays, metadata) and int(arrays["n_updates"][0]) == n_rows
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            return None, f"cannot be read ({type(error).__name__})"
        if not whole:
            return None, "is damaged"
        return (None, f"is of another {', another '.join(changed)}") if changed else (saved, "")

    def save(self, saved: Saved) -> None:
        """Replace what is kept. Raises UserError when the disk is full."""
        from safetensors.numpy import save

        metadata = {"key": json.dumps(self.key), "log": saved.log, "measured": json.dumps([saved.clock, saved.metered])}
        metadata["sha256"] = _state_sha256(saved.arrays, metadata)
        write_whole(self.path, save(saved.arrays, metadata=metadata))

    def remove(self) -> None:
        """The run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def load_first(states: Iterable[RunState], most_steps: int, run: str) -> Saved | None:
    """The first of the states that a run of `most_steps` can go on from, or None; says why another one is not used."""
    for state in states:
        saved, problem = state.load()
        if saved is not None and int(saved.arrays["n_updates"][0]) > most_steps:
            saved, problem = None, f"has more than the run's {most_steps} steps"
        if saved is not None:
            return saved
        if problem:
            print(f"{run}: {state.path} {problem}, so it is not used", file=sys.stderr)
    return None


def _state_sha256(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """Hash of all that a state file holds but for this hash; the format has no checksum of its own."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in metadata.items() if k != "sha256"}, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class LossLog:
    """loss.csv, one line per step, written as the run goes."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def start(self, text: str = "") -> None:
        """Begin the file with the lines of an earlier session; what that did after its last checkpoint is gone."""
        self.rows = list(csv.DictReader(io.StringIO(text)))
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

    N_CAPTURING = 1  # the first call of a session schedules, compiles and captures

    def __init__(self, before: dict[str, Any] | None = None):
        """`before` is the `state` of an earlier session's clock."""
        before = before or {}
        self._start = time.perf_counter() - float(before.get("seconds", 0.0))
        self._capturing: list[tuple[int, float]] = [(int(n), float(s)) for n, s in before.get("capturing", [])]
        self._n_captured_before, self._peak_bytes_before = len(self._capturing), int(before.get("peak_bytes", 0))
        self._n_steps, self._n_tokens, self._steps_s = before.get("steady", (0, 0, 0.0))

    @property
    def state(self) -> dict[str, Any]:
        """State that the clock of a later session goes on from."""
        steady = (self._n_steps, self._n_tokens, self._steps_s)
        return {"seconds": self.seconds, "capturing": self._capturing, "steady": steady,
                "peak_bytes": self.peak_memory_bytes}  # fmt: skip

    @property
    def seconds(self) -> float:
        """Since the run began, the time between sessions left out."""
        return time.perf_counter() - self._start

    @property
    def peak_memory_bytes(self) -> int:
        """The largest resident size of any of the run's processes."""
        return max(self._peak_bytes_before, peak_memory_bytes())

    def add(self, n_tokens: int, step_s: float) -> None:
        """Note one step."""
        if len(self._capturing) - self._n_captured_before < self.N_CAPTURING:
            self._capturing.append((n_tokens, step_s))
            return
        self._n_steps, self._n_tokens, self._steps_s = (
            self._n_steps + 1, self._n_tokens + n_tokens, self._steps_s + step_s
        )  # fmt: skip

    @property
    def tokens_per_s(self) -> float | None:
        """Of the training steps alone, without those that compile."""
        return self._n_tokens / self._steps_s if self._n_steps else None

    def seconds_for(self, n_steps: int) -> float | None:
        """Seconds that so many more steps will take, without evaluations."""
        return n_steps * self._steps_s / self._n_steps if self._n_steps else None

    @property
    def compile_s(self) -> float | None:
        """Seconds that the first steps took more than later ones."""
        if self.tokens_per_s is None:
            return None
        return max(0.0, sum(s - n / self.tokens_per_s for n, s in self._capturing))
