"""Functions of tensors as lists of native kernels, recorded once per shape and replayed in one call of the C library.

tinygrad builds the graph, its gradient, its order and its memory plan; what is left of that is a list of calls, which
needs no Python between two kernels and is kept on disk, so that the next process need not build the graph at all.
"""

import ctypes
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tinygrad import Device, Tensor
from tinygrad.engine.jit import jit_lower
from tinygrad.engine.realize import capturing
from tinygrad.helpers import Context
from tinygrad.uop.ops import Ops, UOp, buffers

from cgpt.files.cache import cache_folder
from cgpt.files.whole import write_whole
from cgpt.kernels.compiler import build_library
from cgpt.kernels.native.arena import PAGE, aligned, shared_arena
from cgpt.kernels.native.call import MAGIC, check_memory, library, one_kernel
from cgpt.kernels.tensors import unwritten
from cgpt.kernels.work import Work, meter

# calls: function, dims, consts, work, positions; temporary_bytes; outputs: position, shape, dtype
Recording = dict[str, Any]
Position = tuple[str, int, int]  # "input", "state" or "temporary"; its index; the offset in bytes


class Captured:
    """Calls functions on arrays, on one device. Each function and shape has its own arrays, which are overwritten.

    `state` holds every tensor that the functions read or write beside their arguments, `identity` what else decides
    what they compute, as JSON: two owners with equal identities and states may share a recording.
    """

    def __init__(self, device: str | None, state: Sequence[Tensor], identity: Any):
        self.device, self.state = device or Device.DEFAULT, list(state)
        self.identity = json.dumps([identity, [(t.shape, str(t.dtype)) for t in self.state]], sort_keys=True)
        self._programs: dict[tuple, Program] = {}

    def __call__(self, function: Callable[..., Sequence[Tensor]], *arrays: np.ndarray) -> list[np.ndarray]:
        """The function's outputs, which the next call with the same shapes overwrites.

        Arrays are contiguous; the function is a method known by its name. Its recording is taken from disk if it is
        there and whole, else made and kept there.
        """
        name = function.__qualname__
        key = (name, *((a.shape, a.dtype.str) for a in arrays))
        if key not in self._programs:
            inputs = [aligned(a.nbytes).view(a.dtype).reshape(a.shape) for a in arrays]
            identity = json.dumps([*_environment(), self.device, self.identity, key])
            path = cache_folder() / f"program-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
            recording = _read(path, identity)
            if recording is None:
                tensors = [unwritten(a, self.device) for a in inputs]
                with listing() as kernels:
                    outputs = function(*tensors)
                    Tensor.realize(*outputs)
                recording = record(name, kernels, tensors, outputs, self.state)
                _keep(path, identity, recording)
            self._programs[key] = Program(recording, inputs, self.state, self.device)
        return self._programs[key](arrays)


@cache
def _environment() -> tuple[str, ...]:
    """Identity that all recordings share: this package's code, the compiled kernels, tinygrad."""
    package = Path(__file__).parents[2]
    code = b"".join(path.read_bytes() for path in sorted(package.rglob("*.py")))
    return hashlib.sha256(code).hexdigest(), build_library().name, version("tinygrad")


def _read(path: Path, identity: str) -> Recording | None:
    """The recording in a file, or None where there is none, it is damaged or it is of another identity."""
    try:
        entry = json.loads(path.read_bytes())
        content = entry["content"]
        whole = entry["key"] == identity and entry["sha256"] == hashlib.sha256(content.encode()).hexdigest()
        return json.loads(content) if whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _keep(path: Path, identity: str, recording: Recording) -> None:
    content = json.dumps(recording)
    entry = {"key": identity, "sha256": hashlib.sha256(content.encode()).hexdigest(), "content": content}
    write_whole(path, json.dumps(entry).encode())


@contextmanager
def listing() -> Iterator[list[UOp]]:
    """Inside, tinygrad lists the kernels that it would run."""
    kernels: list[UOp] = []
    capturing.append(SimpleNamespace(add_linear=lambda linear, var_vals: kernels.append(linear)))
    try:
        yield kernels
    finally:
        capturing.clear()


def record(
    name: str, kernels: Sequence[UOp], inputs: Sequence[Tensor], outputs: Sequence[Tensor], state: Sequence[Tensor]
) -> Recording:
    """The kernels that a function's outputs were listed to need, as calls of native ones."""
    held = set(buffers) | {t.uop.buf_uop for t in (*inputs, *outputs, *state)}
    with Context(JIT=2):  # a flat list of calls
        linear = jit_lower(UOp(Ops.LINEAR, src=tuple(call for each in kernels for call in each.src)), held, [])
    positions = _Positions(inputs, state)
    calls = []
    for call in linear.src:
        if call.src[0].op is Ops.BUFFER_VIEW:
            continue
        binary = call.src[0].src[4].arg if call.src[0].op is Ops.PROGRAM else b""
        assert binary.startswith(MAGIC), f"{name} computes what is no native kernel: {call.src[0].arg}"
        kernel = json.loads(binary[len(MAGIC) :])
        calls.append(kernel | {"positions": [positions.of(b) for b in call.src[1:]]})
    results = [[positions.of(t.uop), list(t.shape), t.dtype.fmt] for t in outputs]
    return {"calls": calls, "outputs": results, "temporary_bytes": positions.temporary_bytes}


class _Positions:
    """Positions of tinygrad's buffers in a recording. No buffer is allocated for it."""

    def __init__(self, inputs: Sequence[Tensor], state: Sequence[Tensor]):
        self.known: dict[int, tuple[str, int]] = {}
        for kind, tensors in (("input", inputs), ("state", state)):
            self.known |= {id(t.uop.base.buffer.base): (kind, i) for i, t in enumerate(tensors)}
        self.temporary_bytes: list[int] = []

    def of(self, uop: UOp) -> Position:
        """Position of a buffer, or of a view of one."""
        buffer: Any = uop.buffer if uop.op is Ops.BUFFER_VIEW else uop.base.buffer
        if id(buffer.base) not in self.known:
            self.known[id(buffer.base)] = ("temporary", len(self.temporary_bytes))
            self.temporary_bytes.append(buffer.base.nbytes)
        return (*self.known[id(buffer.base)], buffer.offset)


class _Call(ctypes.Structure):
    _fields_ = (("function", ctypes.c_void_p), ("bufs", ctypes.c_void_p),
                ("dims", ctypes.c_void_p), ("consts", ctypes.c_void_p))  # fmt: skip


def work_in(recording: Recording) -> list[Work]:
    """Work of each call of a recording, in order."""
    return [Work(**call["work"]) for call in recording["calls"]]


class Program:
    """A recording with its memory: takes arrays, runs every kernel and returns views of its outputs.

    Its outputs lie in memory of its own, what it computes on the way in the arena of the process.
    """

    def __init__(self, recording: Recording, inputs: list[np.ndarray], state: Sequence[Tensor], device: str):
        self.inputs, self.device, self.arena = inputs, Device[device], shared_arena()
        kept = {index for (kind, index, _), *_ in recording["outputs"] if kind == "temporary"}
        sizes = recording["temporary_bytes"]
        on_pages = (0 if i in kept else -(-n // PAGE) * PAGE for i, n in enumerate(sizes))
        *self.offsets, self.arena_bytes = accumulate(on_pages, initial=0)
        self.results = {i: aligned(sizes[i]) for i in kept}
        self.addresses = {
            "input": [a.ctypes.data for a in inputs],
            "state": [t.uop.base.buffer.ensure_allocated()._buf.va_addr + t.uop.base.buffer.offset for t in state],
            "temporary": [self.results[i].ctypes.data if i in kept else 0 for i in range(len(sizes))],
        }
        self.outputs = []
        for (kind, index, offset), shape, dtype in recording["outputs"]:
            n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            memory = (ctypes.c_uint8 * n_bytes).from_address(self.addresses[kind][index] + offset)
            self.outputs.append(np.frombuffer(memory, dtype).reshape(shape))
        self.work = Counter(work_in(recording))
        self.arena_address = 0  # nowhere yet
        self.in_arena: list[tuple[Any, int, int]] = []  # addresses of a call, the one among them, its offset
        self.calls = (_Call * len(recording["calls"]))()
        self.held: list[Any] = [list(state), *(self._bind(*pair) for pair in zip(self.calls, recording["calls"]))]

    def _bind(self, entry: _Call, call: dict[str, Any]) -> list[Any]:
        """Fill in one call; returns what it points to. Its positions in the arena follow when that has an address."""
        bufs = (ctypes.c_uint64 * len(call["positions"]))()
        for i, (kind, index, offset) in enumerate(call["positions"]):
            if kind == "temporary" and index not in self.results:
                self.in_arena.append((bufs, i, self.offsets[index] + offset))
            else:
                bufs[i] = self.addresses[kind][index] + offset
        dims = (ctypes.c_int64 * len(call["dims"]))(*call["dims"])
        consts = (ctypes.c_float * len(call["consts"]))(*call["consts"])
        entry.function = ctypes.cast(library()[call["function"]], ctypes.c_void_p)
        entry.bufs, entry.dims, entry.consts = (ctypes.addressof(array) for array in (bufs, dims, consts))
        return [bufs, dims, consts]

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.device.synchronize()  # what tinygrad still writes into the state
        for kept, array in zip(self.inputs, arrays):
            np.copyto(kept, array)
        with one_kernel:
            address = self.arena.address(self.arena_bytes)
            if address != self.arena_address:
                self.arena_address = address
                for bufs, i, offset in self.in_arena:
                    bufs[i] = address + offset
            library().run_calls(self.calls, len(self.calls))
            check_memory()
        meter(self.device.device).update(self.work)
        return self.outputs
