"""The tinygrad device `WSE`: tensors live and kernels run on this machine's cores, and every kernel is metered.

`WSE`, `WSE:1` ... are the systems of a cluster. The arithmetic is the CPU's, bit for bit; the seconds of a wafer-scale
engine are the cost model's. tinygrad finds the device as one of its runtime modules.
"""

import functools
import sys
from collections import Counter
from types import ModuleType
from typing import Any

from tinygrad.runtime.graph.hcq import HCQGraph
from tinygrad.runtime.ops_cpu import CPUDevice
from tinygrad.uop.ops import Ops, UOp

from cgpt.kernels.native.call import NativeProgram, work_of
from cgpt.kernels.work import Calls, meter

MODULE = "tinygrad.runtime.ops_wse"


def register() -> None:
    """Make `Tensor(..., device="WSE")` work in this process."""
    if MODULE not in sys.modules:
        module = ModuleType(MODULE)
        module.WSEDevice = WSEDevice  # type: ignore[attr-defined]
        sys.modules[MODULE] = module


class WSEDevice(CPUDevice):
    """One system, as tinygrad opens it."""

    def __init__(self, device: str = ""):
        super().__init__(device)
        self.runtime = functools.partial(MeteredProgram, self)
        self.graph = MeteredGraph

    def _is_cpu(self) -> bool:
        return True  # for what tinygrad asks: memory that the host can read, and no queue of its own for copies


class MeteredProgram(NativeProgram):
    """A program that counts its calls, one by one."""

    def __init__(self, dev: Any, name: str, lib: bytes, *aux: Any, prg: UOp, **kwargs: Any):
        super().__init__(dev, name, lib, *aux, prg=prg, **kwargs)
        self.prg = prg

    def __call__(self, *bufs: Any, **kwargs: Any) -> float | None:
        meter(self.dev.device)[work_of(self.prg, [b.size for b in bufs])] += 1
        return super().__call__(*bufs, **kwargs)


class MeteredGraph(HCQGraph):
    """Kernels that TinyJit replays together, past their programs' calls."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.work: dict[str, Calls] = {}
        for _, ast, bufs, _ in self.calls:
            if ast.op is Ops.PROGRAM:
                self.work.setdefault(bufs[0].device, Counter())[work_of(ast, [b.nbytes for b in bufs])] += 1

    def __call__(self, *args: Any, **kwargs: Any) -> float | None:
        for device, calls in self.work.items():
            meter(device).update(calls)
        return super().__call__(*args, **kwargs)
