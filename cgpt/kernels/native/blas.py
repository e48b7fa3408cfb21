"""OpenBLAS (of the PyPI package `scipy-openblas32`), loaded with the kernels that suit the processor."""

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cgpt import host
from cgpt.errors import UserError

BLAS_CORE = "CGPT_BLAS_CORE"
"""One of OpenBLAS's cores by its name there, such as Haswell, whose kernels are taken; default: by the level in use."""
CORES = {"x86-64-v2": "Nehalem", "x86-64-v3": "Haswell", "x86-64-v4": "SkylakeX"}
# OpenBLAS does not ask whether the processor can run the core that it is told to take.
NEEDS = {"sandybridge": "avx", "haswell": "avx2", "zen": "avx2", "skylakex": "avx512vl", "cooperlake": "avx512_bf16",
         "sapphirerapids": "avx512_bf16"}  # fmt: skip


@cache
def openblas() -> ctypes.CDLL:
    """OpenBLAS, with the kernels of the core in use. Raises UserError where it is not installed or has no such core."""
    package = importlib.util.find_spec("scipy_openblas32")  # not imported: that would load the library at once
    if package is None or package.origin is None:
        raise UserError("environment: scipy-openblas32 is not installed; run `pip install scipy-openblas32`")
    folder = Path(package.origin).parent / "lib"
    libraries = [path for path in folder.glob("libscipy_openblas*") if path.suffix != ".a"]
    if not libraries:
        raise UserError(f"environment: scipy-openblas32: there is no library in {folder}; install it anew")
    with _core_type(_core()):
        blas = ctypes.CDLL(str(libraries[0]))
    named = os.environ.get(BLAS_CORE)
    if named and named.lower() != _core_name(blas).lower():
        raise UserError(f"environment: {BLAS_CORE}: OpenBLAS has no kernels for '{named}' here and took those for "
                        f"{_core_name(blas)}; name another core, or unset it")  # fmt: skip
    blas.scipy_openblas_set_num_threads(1)  # the pool cuts the work; OpenBLAS's own threads would compete with it
    return blas


def _core() -> str | None:
    """The core whose kernels OpenBLAS is to take: the one named, else that of a forced level, else AVX-512's where the
    processor has it, else None: OpenBLAS decides.

    Left alone it may take AVX2 kernels on such a processor (on AMD, or as OPENBLAS_CORETYPE is set for the machine's
    other software), at half the speed: 114 against 206 GFLOP/s on one Zen 5 core.
    """
    named = os.environ.get(BLAS_CORE)
    if not named:
        forced = host.level() != "native" or host.machine_level() == "x86-64-v4"
        return CORES[host.level_in_use()] if forced else None
    needed = NEEDS.get(named.lower())
    if needed and needed not in host.cpu_flags().split():
        raise UserError(f"environment: {BLAS_CORE}: kernels for '{named}' need {needed}, which this processor has "
                        "not; name another core, or unset it")  # fmt: skip
    return named


@contextlib.contextmanager
def _core_type(core: str | None) -> Iterator[None]:
    """Have a copy of OpenBLAS that is loaded inside take the kernels of a core."""
    before = os.environ.get("OPENBLAS_CORETYPE")
    if core:
        os.environ["OPENBLAS_CORETYPE"] = core
    yield
    os.environ.pop("OPENBLAS_CORETYPE", None)
    if before is not None:
        os.environ["OPENBLAS_CORETYPE"] = before


def _core_name(blas: ctypes.CDLL) -> str:
    name = blas.scipy_openblas_get_corename
    name.restype = ctypes.c_char_p
    return name().decode()


def blas_core() -> str:
    """The CPU type whose kernels OpenBLAS uses."""
    return _core_name(openblas())
