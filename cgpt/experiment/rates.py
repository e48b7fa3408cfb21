"""How fast this machine trains: measured by `cgpt measure` and kept in the cache, and by every finished run."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from cgpt.errors import UserError
from cgpt.files.cache import cache_folder
from cgpt.files.json_object import read_object
from cgpt.files.typed import fill
from cgpt.files.whole import write_whole
from cgpt.hardware import Hardware
from cgpt.host import cpu_model


@dataclass(frozen=True)
class Rate:
    """Training FLOPs a second, attention included, of a model that takes `flops_per_token`, with so many threads."""

    device: str
    kernels: str
    dtype: str
    threads: int
    flops_per_token: float
    flops_per_s: float

    def __post_init__(self) -> None:
        """Raises ValueError for what is no rate, as of a damaged file."""
        if not (0 < self.flops_per_token < math.inf and 0 < self.flops_per_s < math.inf):
            raise ValueError(f"{self.flops_per_s} FLOPs a second at {self.flops_per_token} a token are no rate")

    def like(self, hardware: Hardware, threads: int) -> bool:
        """Whether it was measured as a run on this profile computes."""
        return (self.device, self.kernels, self.dtype, self.threads) == (
            hardware.device, hardware.kernels, hardware.dtype, threads)  # fmt: skip


def path() -> Path:
    """The file of this machine's rates, by its processor's name, as a cache may be shared by several machines."""
    return cache_folder() / f"rates-{hashlib.sha256(cpu_model().encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Measured:
    """Rates that `cgpt measure` kept, and by stage the seconds that a job takes before its first step."""

    rates: tuple[Rate, ...] = ()
    start_s: dict[str, float] = field(default_factory=dict)


def read() -> Measured:
    """Rates and starts measured on this machine; none where there is no whole file of them."""
    try:
        kept = read_object(path())
        starts = {stage: float(seconds) for stage, seconds in kept["start_s"].items()}
        return Measured(tuple(fill(Rate, entry, "rates") for entry in kept["rates"]), starts)
    except (UserError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return Measured()


def keep(measured: Measured) -> Path:
    """Add to this machine's, rates in place of older ones of the same kind; return their file."""
    new, before = {_kind(rate) for rate in measured.rates}, read()
    kept = [*(rate for rate in before.rates if _kind(rate) not in new), *measured.rates]
    starts = before.start_s | measured.start_s
    content = {"cpu": cpu_model(), "start_s": starts, "rates": [asdict(rate) for rate in kept]}
    write_whole(path(), (json.dumps(content, indent=1) + "\n").encode())
    return path()


def _kind(rate: Rate) -> tuple[Any, ...]:
    return tuple(value for key, value in asdict(rate).items() if key != "flops_per_s")


def of_record(path: Path, hardware: Hardware) -> Rate | None:
    """The rate of a finished run by its run.json; None where it was not measured on this machine."""
    try:
        record = read_object(path)
        if record["host_cpu"] != cpu_model() or record["timing"] != "measured" or not record["tokens_per_s"]:
            return None
        flops_per_token = record["flops"] / record["tokens"]
        return Rate(hardware.device, hardware.kernels, hardware.dtype, record["threads"], flops_per_token,
                    flops_per_token * record["tokens_per_s"])  # fmt: skip
    except (UserError, ValueError, TypeError, KeyError, ArithmeticError):
        return None


def flops_per_s(known: Iterable[Rate], hardware: Hardware, threads: int, flops_per_token: float) -> float | None:
    """The rate for a model of that many FLOPs a token: between two that were measured on a line of logarithms, beyond
    them that of the nearest. None where none was measured with these kernels and threads."""
    sizes: dict[float, list[float]] = {}
    for rate in known:
        if rate.like(hardware, threads):
            sizes.setdefault(math.log(rate.flops_per_token), []).append(math.log(rate.flops_per_s))
    points = sorted((size, sum(logs) / len(logs)) for size, logs in sizes.items())
    if not points:
        return None
    at = min(max(math.log(flops_per_token), points[0][0]), points[-1][0])
    for (left, low), (right, high) in pairwise(points):
        if left <= at <= right:
            return math.exp(low + (high - low) * (at - left) / (right - left))
    return math.exp(points[0][1])
