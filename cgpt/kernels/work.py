"""Work of the kernels on each of tinygrad's devices: calls, floating-point operations and bytes, by layer and phase."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
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


Calls = Mapping[Work, int]
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


class Meter:
    """Counts of the calls on a device since the last reset."""

    def __init__(self) -> None:
        self.calls: Counter[Work] = Counter()

    def add(self, calls: Calls) -> None:
        """Count so many calls more."""
        self.calls.update(calls)

    def reset(self) -> None:
        """Start from 0."""
        self.calls.clear()

    def total(self, quantity: str, **fields: Any) -> float:
        """Sum of `flops`, `bytes_read` or `bytes_written` over the calls with these fields, such as layer=0."""
        return sum(
            n * getattr(work, quantity)
            for work, n in self.calls.items()
            if all(getattr(work, key) == value for key, value in fields.items())
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row per kernel, layer and phase, as in Work, with n_calls and the sums over them."""
        return [
            asdict(work)
            | {"n_calls": n}
            | {key: n * getattr(work, key) for key in ("flops", "bytes_read", "bytes_written")}
            for work, n in self.calls.items()
        ]


@cache
def meter(device: str) -> Meter:
    """The meter of a tinygrad device, such as `WSE:1`."""
    return Meter()
