"""Calls of the C library's functions from inside a tinygrad program.

A kernel is a ready PROGRAM whose "binary" is a small JSON text: the function's name, sizes, constants and work. The
device's program class is replaced by one that knows such binaries, and binds the function when the program is loaded,
so nothing that is cached or pickled holds an address.
"""

import ctypes
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from tinygrad import Device, Tensor, dtypes
from tinygrad.dtype import DType
from tinygrad.renderer import Estimates
from tinygrad.runtime.ops_cpu import CPUProgram
from tinygrad.runtime.support.hcq import HCQArgsState, HCQProgram
from tinygrad.uop.ops import KernelInfo, Ops, ProgramInfo, UOp

from cgpt.errors import UserError
from cgpt.host import check_threads
from cgpt.kernels.native import bfloat16
from cgpt.kernels.native.engine import library, start_threads
from cgpt.kernels.work import Work, label, labelled

MAGIC = b"cgpt-kernel:"
SIZES = 1 << 31  # OpenBLAS takes each as a C int
n_threads: int | None = None  # set once per process by `start`
one_kernel = threading.Lock()  # kernels share the pool and its scratch, and each device calls from a thread of its own


def start(threads: int, devices: Sequence[str] = ("CPU",)) -> None:
    """Load the library with a pool of `threads` threads and make the tinygrad devices understand its kernels.

    Raises UserError where they cannot be started, or the process already runs another number of them.
    """
    global n_threads
    if n_threads not in (None, threads):
        raise UserError(
            f"kernels: threads: this process already runs {n_threads} threads, not {threads}; start a new one"
        )
    if n_threads is None:
        bfloat16.instructions()
        n_threads = start_threads(check_threads(threads))
        if n_threads != threads:
            raise UserError(f"kernels: threads: {threads} threads could not be started; ask for {n_threads} or fewer")
    for device in map(Device.__getitem__, devices):
        if not isinstance(device.runtime.func, type) or not issubclass(device.runtime.func, NativeProgram):
            device.runtime = partial(NativeProgram, device)


def check_memory() -> None:
    """Raise UserError where a kernel called since the last check got no memory to work in."""
    if library().take_out_of_memory():
        raise UserError("kernels: memory: there is not enough for what a kernel works in; write a smaller "
                        "micro_batch_size, batch_size or seq_len")  # fmt: skip


def gemm_s(run: Callable[[], object]) -> float:
    """Seconds in matrix products while `run` runs, the mean over the threads."""
    seconds = library().gemm_s
    seconds.restype = ctypes.c_double
    library().time_gemm(1)
    run()
    total = seconds()
    library().time_gemm(0)
    return total


def work_of(program: UOp, buffer_bytes: Sequence[int]) -> Work:
    """Work of one call of a PROGRAM with buffers of these sizes, which is labelled now if the kernel is tinygrad's."""
    binary = program.src[4].arg
    if binary.startswith(MAGIC):
        return Work(**json.loads(binary[len(MAGIC) :])["work"])
    info, estimates = program.arg, program.src[0].arg.estimates or Estimates()
    read, written = (sum(buffer_bytes[i] for i in indices) for indices in (info.ins, info.outs))
    return Work(info.function_name, *label(), int(estimates.ops), read, written)


class NativeProgram(CPUProgram):
    """A tinygrad CPU program, or one call of the C library where the binary says so."""

    def __init__(self, dev: Any, name: str, lib: bytes, runtimevars: dict[str, int] | None = None, **kwargs: Any):
        if not lib.startswith(MAGIC):
            super().__init__(dev, name, lib, runtimevars, **kwargs)
            return
        self.runtimevars: dict[str, int] = {}
        call = json.loads(lib[len(MAGIC) :])
        function = library()[call["function"]]
        function.restype = None
        dims = (ctypes.c_int64 * len(call["dims"]))(*call["dims"])
        consts = (ctypes.c_float * max(1, len(call["consts"])))(*call["consts"])

        def run(*addresses: ctypes.c_uint64) -> None:
            bufs = (ctypes.c_uint64 * len(addresses))(*addresses)
            with one_kernel:
                function((ctypes.c_uint64 * 3)(*(ctypes.addressof(array) for array in (bufs, dims, consts))))
                check_memory()

        self.fxn = run
        HCQProgram.__init__(self, HCQArgsState, dev, name, kernargs_alloc_size=0)


def native_call(
    function: str,
    outs: Sequence[Tensor],
    ins: Sequence[Tensor],
    dims: Sequence[int],
    consts: Sequence[float] = (),
    flops: int = 0,
    grad: Callable[..., tuple[Tensor | None, ...]] | None = None,
    reads_outs: bool = False,
) -> list[Tensor]:
    """Call the C kernel `function` on `outs` and `ins`; returns the outputs as tensors of the graph.

    `dims` and `consts` are the fields, in order, of the structs in which the kernel sees them.
    `grad(outs, grads, ins)` returns one gradient (or None) per input; `grads` has a tensor per output that is used.
    `flops` and the bytes go into meters and tinygrad's counters; `reads_outs` where outputs are updated in place.
    Raises ValueError for a size that OpenBLAS cannot take.
    """
    if not all(0 <= size < SIZES for size in dims):
        raise ValueError(f"{function}: a size is not from 0 to {SIZES - 1:,}: {list(dims)}")
    n_outs = len(outs)
    read, written = (sum(int(t.nbytes()) for t in tensors) for tensors in (ins, outs))
    layer, phase = label()
    work = Work(function, layer, phase, flops, read + written * reads_outs, written)
    kernel = {"function": function, "dims": list(dims), "consts": list(consts), "work": asdict(work)}
    program = partial(_program, kernel, outs[0].device, n_outs, Estimates(flops, read + written, read + written))

    def grad_fxn(*args: UOp, call: UOp | None = None) -> tuple[UOp | None, ...]:
        # tinygrad calls this as (gradient, call) for one used output, and as (*gradients, call=call) for more.
        grads, call = (args, call) if call is not None else (args[:-1], args[-1])
        assert grad is not None
        after = [Tensor(buffer.after(call)) for buffer in call.src[1 : 1 + n_outs]]
        operands = [Tensor(u) for u in call.src[1 + n_outs :]]
        with labelled(layer, "backward"):
            of_ins = grad(after, [Tensor(g) for g in grads], operands)
        return (*[None] * n_outs, *[g.uop if g is not None else None for g in of_ins])

    first, *rest = (*outs, *ins)
    return Tensor.custom_kernel(first, *rest, fxn=program, grad_fxn=grad_fxn if grad else None)[:n_outs]


def _program(kernel: dict[str, Any], device: str, n_outs: int, estimates: Estimates, *params: UOp) -> UOp:
    """The ready PROGRAM of a kernel, whose `params` are its outputs and then its inputs."""
    name, binary = kernel["function"], MAGIC + json.dumps(kernel).encode()
    sink = UOp.sink(*params, arg=KernelInfo(name=name, estimates=estimates))
    indices = tuple(range(len(params)))
    info = ProgramInfo(name, globals=indices, outs=indices[:n_outs], ins=indices[n_outs:])
    src = (
        sink,
        UOp(Ops.DEVICE, arg=device),
        UOp(Ops.LINEAR, src=(sink,)),
        UOp(Ops.SOURCE, arg=binary.decode()),
        UOp(Ops.BINARY, arg=binary),
    )
    return UOp(Ops.PROGRAM, src=src, arg=info)


def empty(*shape: int, like: Tensor, dtype: DType = dtypes.float32) -> Tensor:
    """An uninitialised output on the device of `like`."""
    return Tensor.empty(*shape, dtype=dtype, device=like.device)


def scaled(tensor: Tensor, factor: Tensor) -> Tensor:
    """tensor * factor (one number), and the tensor itself, not a copy, where the factor is the constant 1."""
    constant = factor.uop.base
    return tensor if constant.op is Ops.CONST and constant.arg == 1 else tensor * factor.reshape([1] * tensor.ndim)
