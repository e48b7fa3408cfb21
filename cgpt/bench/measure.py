"""Times steps, alone or in bursts by which two programs take turns; the peers in workflows/bench use this too."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from cgpt.host import peak_memory_bytes, process_age_s

WARMUP_STEPS = 2  # the first compiles and captures, the second finds memory and caches as all later ones do


class Steps:
    """Calls `step` and keeps the seconds of each call; every call deals with the same number of tokens."""

    def __init__(self, step: Callable[[], object], tokens_per_step: int):
        self.step, self.tokens_per_step = step, tokens_per_step
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []  # of all threads, without what other programs take
        self.first_step_s: float | None = None

    def run(self, n_steps: int) -> float:
        """Do so many steps; return the seconds they took."""
        for _ in range(n_steps):
            start, cpu_start = time.perf_counter(), time.process_time()
            self.step()
            self.seconds.append(time.perf_counter() - start)
            self.cpu_seconds.append(time.process_time() - cpu_start)
            if len(self.seconds) == 1:
                self.first_step_s = process_age_s()
        return sum(self.seconds[-n_steps:])

    def answer_bursts(self, burst_s: float) -> None:
        """For each line `run` on standard input do steps for about `burst_s` seconds and print what was done as one
        JSON line; return at `end`. The number of steps is chosen once, after the warm-up in the first burst."""
        n_steps = 0
        for line in sys.stdin:
            if line.strip() == "end":
                return
            if not n_steps:
                self.run(WARMUP_STEPS)
                n_steps = max(1, round(burst_s / self.run(1)))
            seconds = self.run(n_steps)
            print(
                f'{{"steps": {n_steps}, "tokens": {n_steps * self.tokens_per_step}, "seconds": {seconds}}}', flush=True
            )

    @property
    def step_s(self) -> float:
        """Seconds of the median step after the warm-up."""
        return statistics.median(self.seconds[WARMUP_STEPS:])

    def result(self) -> dict[str, Any]:
        """Measurements of the steps, as every benchmark reports them. first_step_s counts from the start of the process
        to the end of the first step, compile_s is what this step took longer than the median, cpu_step_s the least
        seconds of the processor that a step took, of all threads: it stands where other programs are busy too."""
        return {
            "n_steps": len(self.seconds) - WARMUP_STEPS, "step_s": self.step_s,
            "tokens_per_s": self.tokens_per_step / self.step_s, "first_step_s": self.first_step_s,
            "compile_s": max(0.0, self.seconds[0] - self.step_s),
            "cpu_step_s": min(self.cpu_seconds[WARMUP_STEPS:]), "peak_memory_bytes": peak_memory_bytes(),
        }  # fmt: skip
