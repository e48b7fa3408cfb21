"""tinygrad's C on the CPU: how it is printed, compiled and kept, so that it is right on every processor.

tinygrad 0.13.0 prints bfloat16 as `__bf16`: without AVX512-BF16, clang narrows such values with a function of its
runtime library, which is not loaded, and clang 14 does not know the type. And its cache tells neither compilers nor
processors apart.
"""

import hashlib
import os
import struct

from tinygrad import Device, helpers
from tinygrad.dtype import dtypes, float_to_bf16
from tinygrad.renderer import cstyle
from tinygrad.runtime import ops_cpu
from tinygrad.runtime.support.compiler_cpu import ClangJITCompiler
from tinygrad.runtime.support.elf import jit_loader
from tinygrad.uop.ops import Ops, PatternMatcher, UOp, UPat

from cgpt import host
from cgpt.errors import UserError
from cgpt.files.cache import cache_folder
from cgpt.files.whole import write_whole
from cgpt.kernels.compiler import find_compiler, target

ARGUMENTS = "-c -x c -O2 -fPIC -ffreestanding -fno-math-errno -nostdlib -fno-ident - -o -".split()


def set_cache() -> None:
    """Put tinygrad's cache below cgpt's, one file per compiler and processor, unless CACHEDB names a file.

    Without effect once tinygrad has opened its cache.
    """
    if "CACHEDB" in os.environ or helpers._db_connection is not None:
        return
    try:
        key = target()
    except UserError:  # no C compiler: on a GPU none is needed
        key = (host.cpu_model(), host.cpu_flags())
    helpers.CACHEDB = str(cache_folder() / f"tinygrad-{_digest(*key)}.db")


def replace_renderer(threads: int) -> None:
    """Have every CPU device, also those already opened, print and compile C by the classes below, for at most so many
    threads."""
    ClangJITRenderer.global_max = (threads, 0, 0)
    if host.machine() not in (host.X86, host.ARM):
        return
    ops_cpu.ClangJITRenderer = ClangJITRenderer
    for device in map(Device.__getitem__, list(Device._opened_devices)):
        if isinstance(device, ops_cpu.CPUDevice):
            device.renderers = [ClangJITRenderer if r is cstyle.ClangJITRenderer else r for r in device.renderers]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _bits_of(constant: UOp) -> str:
    """A bfloat16 constant as the whole number whose bits it has."""
    return f"((unsigned short){struct.unpack('I', struct.pack('f', float_to_bf16(constant.arg)))[0] >> 16})"


class ClangJITRenderer(cstyle.ClangJITRenderer):
    """Keeps bfloat16 as its 16 bits; tinygrad has turned all arithmetic in it into float32's before it prints."""

    type_map = cstyle.ClangJITRenderer.type_map | {dtypes.bfloat16: "unsigned short"}
    string_rewrite = (
        PatternMatcher([(UPat(Ops.CONST, dtypes.bfloat16, name="x"), lambda x: _bits_of(x))])
        + cstyle.ClangJITRenderer.string_rewrite
    )

    def __init__(self, target: helpers.Target):
        super().__init__(target)
        self.compiler = Compiler()


class Compiler(ClangJITCompiler):
    """Compiles with `find_compiler` for the level in use, and keeps each result in a file with its hash."""

    def __init__(self) -> None:
        on_arm, clang = host.machine() == host.ARM, find_compiler()
        super().__init__(["arm64" if on_arm else host.machine(), "native"])
        fixed = ["-ffixed-x18"] if on_arm else []  # a register that macOS keeps for itself
        self.args = [*ARGUMENTS, *clang.object_arguments(), *clang.processor_arguments(host.level()), *fixed]
        key = _digest(*target(), *self.args, str(helpers.VERSION))
        self.folder = cache_folder() / f"tinygrad-{key}" if self.cachekey else None

    def compile(self, src: str) -> bytes:
        """Machine code of a kernel of tinygrad's."""
        return jit_loader(find_compiler().run(*self.args, source=src.encode()))

    def compile_cached(self, src: str) -> bytes:
        """Machine code of a kernel, from its file where that is there and whole."""
        if self.folder is None:
            return self.compile(src)
        path = self.folder / hashlib.sha256(src.encode()).hexdigest()
        kept = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(kept[32:]).digest() != kept[:32]:
            code = self.compile(src)
            kept = hashlib.sha256(code).digest() + code
            write_whole(path, kept)
        return kept[32:]
