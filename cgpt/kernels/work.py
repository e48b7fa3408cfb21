"""Work of the kernels on each of tinygrad's devices: calls, floating-point operations and bytes, by layer and phase."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any


@dataclass(frozen=True)
class Work:
    """Work of one call of a kernel. `layer` numbers its block; None is embedding, head, optimizer, or not known."""

    kernel: str
    layer: int | None
    phase: str  # forward | backward | update
    flops: float
    bytes_read: int
    bytes_written: int

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # kept, as each step of a decoder counts some hundred calls
        return hash((self.kernel, self.layer, self.phase, self.flops, self.bytes_read, self.bytes_written))


Calls = Counter[Work]
_context: ContextVar[tuple[int | None, str]] = ContextVar("layer and phase", default=(None, "forward"))


@contextlib.contextmanager
def labelled(layer: int | None = None, phase: str | None = None) -> Iterator[None]:
    """Kernels called inside belong to this layer or phase; one that is None stays as it is outside."""
    outer_layer, outer_phase = _context.get()
    token = _context.set((outer_layer if layer is None else layer, phase or outer_phase))
    try:
        yield
    finally:
        _context.reset(token)


def label() -> tuple[int | None, str]:
    """The layer and phase that a kernel called now belongs to."""
    return _context.get()


@cache
def meter(device: str) -> Calls:
    """Counts of the calls on a tinygrad device, such as `WSE:1`, since they were last cleared."""
    return Counter()


def metered(calls: Calls) -> dict[str, Any]:
    """FLOPs, and bytes read and written, of all calls, as a run's record has them."""
    n_bytes = sum(n * (work.bytes_read + work.bytes_written) for work, n in calls.items())
    return {
        "metered_flops": float(sum(n * work.flops for work, n in calls.items())),
        "metered_bytes": float(n_bytes),
    }


def rows(calls: Calls) -> list[dict[str, Any]]:
    """One row per kernel, layer and phase, as in Work, with n_calls and the sums over them."""
    sums = ("flops", "bytes_read", "bytes_written")
    return [asdict(work) | {"n_calls": n} | {key: n * getattr(work, key) for key in sums} for work, n in calls.items()]
