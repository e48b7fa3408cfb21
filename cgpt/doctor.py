"""Looks at the machine before any job does: Python, compiler, libraries, cores, memory, disk and data mirror."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from cgpt.errors import UserError
from cgpt.kernels.compiler import cache_folder, cpu_model, find_compiler

LIBRARIES = ("tinygrad", "scipy-openblas32", "snakemake", "lm-eval", "tokenizers", "safetensors")
LEAST_DISK_BYTES = 2 * 2**30


def examine() -> dict[str, Any]:
    """What was found; `problems` holds a line for each thing that will stop a run."""
    problems: list[str] = []
    compiler = None
    try:
        found = find_compiler()
        compiler = {"name": found.name, "command": found.command, "version": found.version}
    except UserError as error:
        problems += error.problems
    libraries = {name: _version(name) for name in LIBRARIES}
    problems += [f"{name}: is not installed; run `make setup`" for name, version in libraries.items() if not version]
    free = shutil.disk_usage(Path.cwd()).free
    if free < LEAST_DISK_BYTES:
        problems.append(f"disk: only {free / 2**30:.1f} GiB are free here; free at least 2")
    mirror = os.environ.get("CGPT_DATA_MIRROR")
    if mirror and not Path(mirror).is_dir():
        problems.append(f"CGPT_DATA_MIRROR: there is no folder {mirror}; name one, or unset it")
    return {
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "disk_free_bytes": free,
        "compiler": compiler,
        "cache": str(cache_folder()),
        "libraries": libraries,
        "data_mirror": mirror,
        "problems": problems,
    }


def as_text(found: dict[str, Any]) -> str:
    """One line for each thing found, problems last."""
    compiler = found["compiler"]
    memory = f", {found['memory_bytes'] / 2**30:.1f} GiB memory" if found["memory_bytes"] else ""
    lines = [
        f"python     {found['python']}",
        f"processor  {found['cpu']}, {found['cores']} cores{memory}",
        f"disk       {found['disk_free_bytes'] / 2**30:.1f} GiB free",
        f"compiler   {compiler['name']}: {compiler['version']} ({compiler['command']})"
        if compiler
        else "compiler   none",
        f"cache      {found['cache']}",
        f"mirror     {found['data_mirror'] or 'none (CGPT_DATA_MIRROR is not set)'}",
        "libraries  " + ", ".join(f"{name} {version or 'missing'}" for name, version in found["libraries"].items()),
    ]
    problems = [f"problem    {problem}" for problem in found["problems"]]
    return "\n".join(lines + (problems or ["all well"]))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
