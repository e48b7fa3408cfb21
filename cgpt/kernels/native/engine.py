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
LAYER = {"rows": 1024, "n_in": 512, "n_out": 512, "group_rows": 1024, "activation": 0, "bfloat16": 0}
"""The layer that is measured, forward and backward: LinearDims of native/c/layers.c."""


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
    return named_engine() or ("packed" if speed_up() >= MARGIN else "openblas")


def named_engine() -> str | None:
    """The engine that CGPT_BLAS names; None where it names none. Raises UserError where there is no such engine."""
    named = os.environ.get(ENGINE) or None
    if named and named not in ENGINES:
        raise UserError(f"environment: {ENGINE}: there is no '{named}'; write one of {', '.join(ENGINES)}")
    return named


@cache
def speed_up() -> float:
    """How many times as fast as OpenBLAS our own engine is here, as kept, else measured now."""
    parts = (build_library().name, blas_core(), version("scipy-openblas32"))
    path = cache_folder() / f"engine-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}.json"
    if (kept := _read(path)) is not None:
        return kept
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
    return of_openblas / of_packed if of_packed else 1.0  # a clock that is too coarse to tell


def _layer() -> Callable[[], None]:
    """A function that computes a linear layer, its input's and its weights' gradients."""
    import numpy as np

    rows, n_in, n_out = LAYER["rows"], LAYER["n_in"], LAYER["n_out"]
    shapes = {"y": (rows, n_out), "x": (rows, n_in), "w": (n_in, n_out), "b": (n_out,),
              "dx": (rows, n_in), "dw": (n_in, n_out), "db": (n_out,)}  # fmt: skip
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    dims = (ctypes.c_int64 * len(LAYER))(*LAYER.values())
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
