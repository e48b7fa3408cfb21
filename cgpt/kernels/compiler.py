"""Find a C compiler (clang on the PATH, else the zig of the PyPI package `ziglang`) and build the kernel library."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from cgpt.errors import UserError

SOURCES = ("gpt.c", "common.h", "layers.c", "attention.c", "decode.c", "head.c", "optimizer.c")
FLAGS = (
    "-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-g0",
    # Sums may be reordered so that they vectorise; NaN and infinity keep their meaning, so divergence is seen.
    "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-freciprocal-math",
)  # fmt: skip
# zig is clang with other spellings: tinygrad's arguments on the left become those on the right.
ZIG_WRAPPER = """#!/bin/sh
for arg do
  shift
  case "$arg" in
    --target=*-none-unknown-elf) set -- "$@" -target "$(uname -m)-linux-gnu" ;;
    -march=native) set -- "$@" -mcpu=native ;;
    *) set -- "$@" "$arg" ;;
  esac
done
ZIG_GLOBAL_CACHE_DIR="{cache}/zig" ZIG_LOCAL_CACHE_DIR="{cache}/zig" \\
exec "{zig}" cc -g0 -fno-sanitize=undefined -fno-stack-protector "$@"
"""


@dataclass(frozen=True)
class Compiler:
    """`command` compiles C with clang's arguments; `version` is its first line of `--version`."""

    name: str
    command: str
    version: str


def cache_folder() -> Path:
    """Where compiled kernels are kept: CGPT_CACHE, else ~/.cache/cgpt (or XDG_CACHE_HOME)."""
    base = os.environ.get("CGPT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cgpt"
    folder = Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def find_compiler() -> Compiler:
    """Return the compiler in use: CC, else clang, else zig. Raises UserError where there is none."""
    chosen = os.environ.get("CC") or shutil.which("clang")
    if chosen:
        name = "CC" if os.environ.get("CC") else "clang"
        if not shutil.which(chosen):
            raise UserError(f"environment: CC: '{chosen}' is not a program; name a clang, or unset CC")
        version = _version(chosen)
        if "clang" not in version:
            raise UserError(f"environment: CC: '{chosen}' is not a clang ({version}); name a clang, or unset CC")
        return Compiler(name, chosen, version)
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        raise UserError(
            "hardware profile: kernels: no C compiler was found; install one with `pip install ziglang` "
            "(or put clang on the PATH)"
        )
    zig = Path(package.origin).parent / "zig"
    wrapper = cache_folder() / "cc-zig"
    text = ZIG_WRAPPER.format(cache=cache_folder(), zig=zig)
    if not wrapper.exists() or wrapper.read_text() != text:
        write_atomically(wrapper, text.encode(), mode=0o755)
    return Compiler("zig", str(wrapper), "zig " + metadata.version("ziglang"))


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write `content` under a temporary name beside `path` and move it there, so that no reader sees half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
        part.write(content)
    os.chmod(part.name, mode)
    os.replace(part.name, path)


def build_library() -> Path:
    """Compile the kernels once per source, flags, compiler and CPU; return the shared library's path."""
    folder = Path(__file__).parent
    sources = b"".join((folder / name).read_bytes() for name in SOURCES)
    compiler = find_compiler()
    key = "\0".join([*FLAGS, compiler.name, compiler.version, cpu_model(), cpu_flags()]).encode()
    library = cache_folder() / f"kernels-{hashlib.sha256(sources + key).hexdigest()[:16]}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        part = Path(scratch) / library.name
        native = [] if platform.system() == "Darwin" else ["-march=native"]
        command = [compiler.command, *FLAGS, *native, "-o", str(part), str(folder / "gpt.c"), "-lm", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"compiler: {compiler.command}: could not build the kernels ({last}); try `cgpt doctor`")
        os.replace(part, library)
    return library


def _version(command: str) -> str:
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    return (done.stdout.strip().splitlines() or ["unknown version"])[0]


@cache
def _cpu_info() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_model() -> str:
    """The CPU's name, e.g. `AMD EPYC`, with family and model numbers where the name alone says little."""
    info = _cpu_info()
    name = info.get("model name") or platform.processor() or platform.machine()
    numbers = [info[key] for key in ("cpu family", "model") if key in info]
    return f"{name} ({'/'.join(numbers)})" if numbers else name


def cpu_flags() -> str:
    """The instruction-set flags that decide what `-march=native` means."""
    info = _cpu_info()
    return info.get("flags") or info.get("Features") or platform.machine()
