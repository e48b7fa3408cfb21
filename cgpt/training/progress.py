"""The progress line of a training run."""

import sys
import time
from contextlib import suppress

from cgpt.host import peak_memory_bytes
from cgpt.training.resume import Clock

PROGRESS_EVERY_S = 10.0  # where standard error is a file; a terminal is updated every half second


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
