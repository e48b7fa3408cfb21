"""A hardware profile made ready: its devices opened, its kernels compiled, the module of operations that it takes."""

import os
from types import ModuleType

from cgpt.errors import UserError, first_line
from cgpt.files.layers import file_of
from cgpt.hardware import Hardware, unsupported
from cgpt.host import CPU as CPU_LEVEL
from cgpt.host import check_threads, granted_cores, level
from cgpt.kernels.compiler import find_compiler
from cgpt.kernels.native import bfloat16
from cgpt.kernels.native.blas import blas_core
from cgpt.kernels.native.engine import engine

CPU = Hardware("cpu", "", device="CPU", kernels="native")  # where no profile is named


def prepare(hardware: Hardware, threads: int | None = None) -> ModuleType:
    """Set tinygrad up for a hardware profile, before its first tensor; returns `native.ops` or `plain.ops`.

    `threads` None: those that this process runs already, else one per core granted.
    Raises UserError where a compiler or a device is missing, or where the profile asks for what its kernels have not.
    """
    if problem := unsupported(hardware):
        raise UserError(f"{file_of('hardware', hardware.name)}: {problem[0]}: {problem[1]}")
    if threads is not None:
        threads = check_threads(threads)
    open_devices(hardware)
    if hardware.runs_on_host:
        os.environ["DEV"] = "CPU"
        find_compiler()
        from cgpt.kernels.gc_workaround import release_outside_workers  # imports tinygrad, which reads DEV
        from cgpt.kernels.plain.renderer import replace_renderer, set_cache

        set_cache()
        replace_renderer(threads or granted_cores())
        release_outside_workers()
    if hardware.device.startswith("WSE"):
        from cgpt.kernels import wse

        wse.register()
    if hardware.kernels == "native":
        from cgpt.kernels.native import call
        from cgpt.kernels.native import ops as native_ops

        call.start(threads or call.n_threads or granted_cores(), [hardware.device])
        return native_ops
    from tinygrad.helpers import ALLREDUCE_CAST, BEAM

    from cgpt.kernels.plain import ops as plain_ops

    BEAM.value = hardware.beam
    ALLREDUCE_CAST.value = 0  # the devices' shares of a gradient are summed in float32 and rounded once, afterwards
    return plain_ops


def open_devices(hardware: Hardware) -> None:
    """Open the tinygrad devices of a profile, before anything else is done for a run; the host needs none.

    Raises UserError, one line, where one cannot be opened or does not have the profile's type.
    """
    where = file_of("hardware", hardware.name)
    if hardware.runs_on_host:
        if _multiplies_in_bfloat16(hardware) and not bfloat16.instructions():
            raise UserError(
                f"{where}: dtype: bfloat16 is slower here than float32, as {_what_lacks()} has no fast instructions "
                "for it (AMX, or AVX512-BF16 on AMD); write float32, or name another profile under `hardware:`"
            )
        return
    os.environ["DEV"] = hardware.device.split(":")[0]
    from tinygrad import Device, dtypes

    from cgpt.kernels.plain.renderer import set_cache

    set_cache()
    for device in [hardware.placement] if isinstance(hardware.placement, str) else hardware.placement:
        try:
            has_type = getattr(dtypes, hardware.dtype) in Device[device].renderer.supported_dtypes()
        except Exception as error:  # each of tinygrad's devices has its own way to say that it is not there
            why = first_line(error)
            raise UserError(f"{where}: device: {device} cannot be opened here ({why}); {_remedy(hardware)}") from None
        if not has_type:
            raise UserError(f"{where}: dtype: {hardware.dtype} is not what {device} and its compiler here can do; "
                            "write float32, or install one that can (for CUDA: NVRTC)")  # fmt: skip


def _multiplies_in_bfloat16(hardware: Hardware) -> bool:
    return hardware.kernels == "native" and hardware.dtype == "bfloat16"


def _what_lacks() -> str:
    return "this processor" if level() == "native" else f"{CPU_LEVEL}={level()}"


def _remedy(hardware: Hardware) -> str:
    if hardware.timing == "modeled":
        return f"for its modeled times run `cgpt forecast --hardware {hardware.name}`"
    fewer = ", write fewer `systems`" if hardware.systems > 1 else ""
    return f"install its driver and compiler{fewer}, or name another profile under `hardware:`"


def describe_kernels(hardware: Hardware) -> str | None:
    """Compiler, forced level, OpenBLAS core, own products, and with bfloat16 the instructions for it, of the kernels,
    for a run's record; None off the host."""
    if not hardware.runs_on_host:
        return None
    compiler = find_compiler().version + ("" if level() == "native" else f" for {level()}")
    if hardware.kernels != "native":
        return compiler
    products = ", packed products" if engine() == "packed" else ""
    if _multiplies_in_bfloat16(hardware):
        products += f", bfloat16 by {bfloat16.instructions()}"
    return f"{compiler}, OpenBLAS {blas_core()}{products}"
