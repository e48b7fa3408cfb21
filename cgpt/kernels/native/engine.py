"""The engine of matrix products: OpenBLAS, or our own of native/c/packed.c where that is clearly faster.

Which it is depends on the processor, so it is measured once per machine, level and library and kept in the cache.
Attention's products, of few rows each, are OpenBLAS's in both.
"""

import ctypes
import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

from cgpt.errors import UserError
from cgpt.files.cache import cache_folder
from cgpt.files.whole import lock, write_whole
from cgpt.kernels.compiler import build_library
from cgpt.kernels.native.blas import blas_core, openblas

ENGINE = "CGPT_BLAS"
"""The engine of matrix products: openblas, or packed (cgpt's own); default: what is faster on this machine."""
ENGINES = ("openblas", "packed")  # in the order that common.h numbers them in
MARGIN = 1.05  # least speed-up for which OpenBLAS is left
ROUNDS = 5
ROWS, N_IN, N_OUT = 1024, 512, 512  # of the layer that is measured, forward and backward


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels of native/c/gpt.c."""
    return ctypes.CDLL(str(build_library()))


def start_threads(threads: int) -> int:
    """Have the library compute with so many threads and the engine in use; how many could be started.

    Raises UserError where CGPT_BLAS names no engine.
    """
    library().set_engine(ENGINES.index(engine()))
    return library().start(_sgemm(), threads)


def engine() -> str:
    """The engine in use: the one named, else the one that was measured to be faster. Raises UserError."""
    named = os.environ.get(ENGINE)
    if not named:
        return "packed" if speed_up() >= MARGIN else "openblas"
    if named not in ENGINES:
        raise UserError(f"environment: {ENGINE}: there is no '{named}'; write one of {', '.join(ENGINES)}")
    return named


@cache
def speed_up() -> float:
    """How many times as fast as OpenBLAS our own engine is here, as kept, else measured now."""
    parts = (build_library().name, blas_core(), version("scipy-openblas32"))
    path = cache_folder() / f"engine-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}.json"
    with lock(path.with_suffix(".lock"), wait=True):  # one process measures, and all take what it measured
        kept = _read(path)
        if kept is None:
            kept = _measure()
            write_whole(path, json.dumps({"speed_up": kept}).encode())
    return kept


def _read(path: os.PathLike[str]) -> float | None:
    """The number in a file, or None where there is none or it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            return float(json.load(file)["speed_up"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _measure() -> float:
    """OpenBLAS's seconds to ours: one thread's own time, which other programs hardly change, and the least of rounds in
    turns, as what disturbs only adds."""
    library().start(_sgemm(), 1)
    run = _layer()
    seconds: dict[int, list[float]] = {number: [] for number in range(len(ENGINES))}
    for _ in range(ROUNDS + 1):
        for number, taken in seconds.items():
            library().set_engine(number)
            start = time.thread_time()
            run()
            taken.append(time.thread_time() - start)
    of_openblas, of_packed = (min(taken[1:]) for taken in seconds.values())  # the first round finds memory
    return of_openblas / of_packed


def _layer() -> Callable[[], None]:
    """A function that computes a linear layer, its input's and its weights' gradients."""
    import numpy as np

    shapes = {"y": (ROWS, N_OUT), "x": (ROWS, N_IN), "w": (N_IN, N_OUT), "b": (N_OUT,),
              "dx": (ROWS, N_IN), "dw": (N_IN, N_OUT), "db": (N_OUT,)}  # fmt: skip
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    dims = (ctypes.c_int64 * 5)(ROWS, N_IN, N_OUT, ROWS, 0)
    calls: list[tuple[Any, Any]] = []
    held: list[Any] = [arrays, dims]
    for kernel, names in (("linear", ("y", "x", "w", "b")), ("linear_bwd", ("dx", "dw", "db", "y", "x", "w"))):
        held.append((ctypes.c_uint64 * len(names))(*(arrays[name].ctypes.data for name in names)))
        calls.append((library()[kernel], (ctypes.c_uint64 * 2)(*map(ctypes.addressof, (held[-1], dims)))))

    def run() -> None:
        assert held  # memory lives as long as this function
        for function, call in calls:
            function(call)

    return run


def _sgemm() -> ctypes.c_void_p:
    return ctypes.cast(openblas().scipy_cblas_sgemm, ctypes.c_void_p)
