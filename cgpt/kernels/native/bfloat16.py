"""Whether, and by which instructions, the processor multiplies matrices in bfloat16 faster than in float32."""

from functools import cache

from cgpt import host
from cgpt.kernels.native.engine import library

INSTRUCTIONS = (None, "AVX512-BF16", "AMX")  # as numbered in native/c/bfloat16.c; without any, operands are rounded


@cache
def instructions() -> str | None:
    """The instructions that multiply in bfloat16 from now on in this process; None where float32 is faster.

    Intel's processors multiply by AVX512-BF16 at half of float32's rate, so it is taken on AMD's alone (Zen 4 on), of
    which others report up to twice that rate. AMX is there where the system grants its registers.
    """
    is_amd = host.cpu_info().get("vendor_id") == "AuthenticAMD"
    return INSTRUCTIONS[library().take_bfloat16(int(is_amd))]
