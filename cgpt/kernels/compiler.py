"""Find a C compiler (clang on the PATH, else the zig of the PyPI package `ziglang`) and build the kernel library."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from cgpt import host
from cgpt.errors import UserError
from cgpt.files.cache import cache_folder
from cgpt.files.whole import write_whole
from cgpt.host import cpu_flags, cpu_model

SOURCES = ("gpt.c", "common.h", "layers.c", "attention.c", "bfloat16.c", "decode.c", "head.c", "optimizer.c",
           "packed.c", "rounded.c")  # fmt: skip
FLAGS = (
    "-std=gnu2x", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-g0",
    # Sums may be reordered so that they vectorise; NaN and infinity keep their meaning, so divergence is seen.
    "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-freciprocal-math",
)  # fmt: skip


@dataclass(frozen=True)
class Compiler:
    """A clang. `command` starts it and takes clang's arguments; `version` is the first line of its `--version`."""

    name: str  # CC, clang or zig
    command: tuple[str, ...]
    version: str

    def run(self, *arguments: str, source: bytes = b"") -> bytes:
        """Its standard output for these arguments and `source` on standard input. Raises UserError where it fails."""
        folder = str(cache_folder() / "zig")
        environment = {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder} if self.name == "zig" else {}
        done = subprocess.run(
            [*self.command, *arguments], input=source, capture_output=True, env=os.environ | environment
        )
        if done.returncode:
            raise UserError(f"compiler: {self.command[0]}: could not build the kernels ({_error(done.stderr)}); "
                            "try `cgpt doctor`")  # fmt: skip
        return done.stdout

    def processor_arguments(self, level: str) -> list[str]:
        """Arguments to compile for a level of x86-64, or for this very processor where that is `native`."""
        if host.machine() == host.ARM:
            return ["-mcpu=native"]  # older clangs refuse -march=native on ARM
        if host.machine() != host.X86:
            return []
        return [f"-mcpu={level.replace('-', '_')}" if self.name == "zig" else f"-march={level}"]

    def object_arguments(self) -> list[str]:
        """Arguments to write ELF for this architecture, on any system."""
        if self.name != "zig":
            return [f"--target={host.machine()}-none-unknown-elf"]
        return ["-target", f"{host.machine()}-linux-gnu"]


@cache
def find_compiler() -> Compiler:
    """Return the compiler in use: CC, else clang, else zig. Raises UserError where there is none."""
    clang = os.environ.get("CC") or shutil.which("clang")
    if clang:
        if not shutil.which(clang):
            raise UserError(f"environment: CC: '{clang}' is not a program; name a clang, or unset CC")
        version = _version(clang)
        if "clang" not in version:
            raise UserError(f"environment: CC: '{clang}' is not a clang ({version}); name a clang, or unset CC")
        return Compiler("CC" if os.environ.get("CC") else "clang", (clang,), version)
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        raise UserError(
            "hardware profile: kernels: no C compiler was found; install one with `pip install ziglang` "
            "(or put clang on the PATH)"
        )
    # zig is a clang with another default: what it guards against with traps, C leaves undefined.
    flags = ("cc", "-g0", "-fno-sanitize=undefined", "-fno-stack-protector")
    zig = str(Path(package.origin).parent / "zig")
    return Compiler("zig", (zig, *flags), "zig " + metadata.version("ziglang"))


def target() -> tuple[str, ...]:
    """Compiler, processor and level: machine code may be used where all of them are the same."""
    compiler = find_compiler()
    return (compiler.name, compiler.version, cpu_model(), cpu_flags(), host.level())


def build_library() -> Path:
    """Compile the kernels once per source, flags and target; return the shared library's path.

    One that is damaged, by the hash in the file beside it, is compiled anew.
    """
    folder = Path(__file__).parent / "native" / "c"
    sources = b"".join((folder / name).read_bytes() for name in SOURCES)
    key = hashlib.sha256(sources + "\0".join([*FLAGS, *target()]).encode()).hexdigest()[:16]
    library = cache_folder() / f"kernels-{key}.so"
    beside = library.with_suffix(".sha256")
    if not _is_whole(library, beside):
        # On macOS clang's own default suits all processors that there are.
        arguments = [] if host.is_macos() else find_compiler().processor_arguments(host.level())
        content = compile_library(folder / "gpt.c", arguments)
        write_whole(library, content)
        write_whole(beside, hashlib.sha256(content).hexdigest().encode())
    return library


def _is_whole(path: Path, beside: Path) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == beside.read_text()
    except (OSError, ValueError):
        return False


def compile_library(source: Path, arguments: Sequence[str]) -> bytes:
    """The shared library of a C file. Raises UserError with the compiler's message."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        part = Path(scratch) / "kernels.so"
        find_compiler().run(*FLAGS, *arguments, "-o", str(part), str(source), "-lm", "-lpthread")
        return part.read_bytes()


def _error(message: bytes) -> str:
    """The first line that calls itself an error, else the last one."""
    lines = message.decode(errors="replace").strip().splitlines() or ["no message"]
    return next((line for line in lines if "error:" in line), lines[-1])


def _version(command: str) -> str:
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    return (done.stdout.strip().splitlines() or ["unknown version"])[0]
