"""The operations of a GPT, in two forms: `native` (C and OpenBLAS, for the CPU) and `tinygrad` (any device)."""

from __future__ import annotations

import os
from types import ModuleType

from cgpt.errors import UserError
from cgpt.spec import Hardware


def prepare(hardware: Hardware, threads: int | None = None) -> ModuleType:
    """Set tinygrad up for a hardware profile, before its first tensor, and return the module of operations to use.

    `threads` None: those that this process runs already, else one per core.
    Raises UserError where there is no compiler, or where the profile names unknown kernels.
    """
    os.environ["DEV"] = "CPU" if on_host(hardware) else hardware.device
    if on_host(hardware):
        from cgpt.kernels.compiler import find_compiler

        os.environ["CC"] = find_compiler().command
        from cgpt.kernels.release import release_outside_workers  # imports tinygrad, which reads DEV and CC

        release_outside_workers()
    if hardware.device.startswith("WSE"):
        from cgpt.kernels import wse

        wse.register()
    if hardware.kernels == "native":
        from cgpt.kernels import native, native_ops

        native.start(threads or native.n_threads or os.cpu_count() or 1, [hardware.device])
        return native_ops
    if hardware.kernels == "tinygrad":
        from cgpt.kernels import plain_ops

        return plain_ops
    raise UserError(
        f"hardware_profiles/{hardware.name}.yaml: kernels: '{hardware.kernels}' is unknown; "
        "write 'native' or 'tinygrad'"
    )


def on_host(hardware: Hardware) -> bool:
    """Whether a profile's kernels run on this machine's cores: a CPU, or a device that is modeled on one."""
    return hardware.device.split(":")[0] in ("CPU", "WSE")


def description(hardware: Hardware) -> str | None:
    """What compiled the kernels, for a run's record; None off the CPU."""
    if not on_host(hardware):
        return None
    from cgpt.kernels.compiler import find_compiler

    if hardware.kernels != "native":
        return find_compiler().version
    from cgpt.kernels.native import blas_core

    return f"{find_compiler().version}, OpenBLAS {blas_core()}"
