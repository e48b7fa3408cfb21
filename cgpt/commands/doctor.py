"""The verb `doctor`: looks at the machine before any job does: compiler, libraries, cores, memory, disk, profiles."""

import argparse
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from cgpt import host
from cgpt.commands.doctor_model import examine_model
from cgpt.errors import UserError
from cgpt.experiment import load
from cgpt.files.cache import cache_folder
from cgpt.files.layers import file_of
from cgpt.hardware import Hardware
from cgpt.kernels import backend
from cgpt.kernels.compiler import build_library, find_compiler
from cgpt.kernels.native import bfloat16
from cgpt.kernels.native.blas import blas_core
from cgpt.kernels.native.engine import engine, speed_up
from cgpt.provenance import installed_version

LIBRARIES = ("tinygrad", "scipy-openblas32", "snakemake", "lm-eval", "tokenizers", "safetensors")
LEAST_DISK_BYTES = 2 * 2**30
T = TypeVar("T")


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line."""
    verb = add_verb("doctor", doctor, "check this machine and what each hardware profile needs", group="start",
                    example="--model gpt2")  # fmt: skip
    verb.add_argument("--model", metavar="ROW", help="a row of models.yaml: whether the memory here is enough for it, "
                                                     "and how long a document takes")  # fmt: skip


def doctor(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Facts of the machine, or of a model on it, as a mapping and as lines. Raises UserError, and prints them, where
    there are problems."""
    if arguments.model:
        return examine_model(arguments.model)
    facts = examine()
    if facts["problems"]:
        print(json.dumps(facts) if arguments.json else as_text(facts))
        raise UserError(*facts["problems"])
    return facts, as_text(facts)


def examine() -> dict[str, Any]:
    """This machine, its software and each hardware profile, by name.

    `problems` holds a line for each thing that will stop a run on this machine's processor.
    """
    problems: list[str] = []
    libraries = {name: installed_version(name) for name in LIBRARIES}
    problems += [f"{name}: is not installed; run `make setup`" for name, version in libraries.items() if not version]
    free = shutil.disk_usage(Path.cwd()).free
    if free < LEAST_DISK_BYTES:
        problems.append(f"disk: only {free / 2**30:.1f} GiB are free here; free at least {LEAST_DISK_BYTES >> 30}")
    mirror = os.environ.get("CGPT_DATA_MIRROR")
    if mirror and not Path(mirror).is_dir():
        problems.append(f"CGPT_DATA_MIRROR: there is no folder {mirror}; name one, or unset it")
    profiles: Iterable[Hardware] = ()
    try:
        workflow = load.read_workflow(Path.cwd())
        profiles = workflow.hardware.values()
        workflow.refuse_broken()
    except UserError as error:
        problems += error.problems
    hardware = {
        profile.name: {key: getattr(profile, key) for key in ("description", "timing", "systems")}
        | {"problem": why_not(profile)}
        for profile in profiles
    }
    if problem := hardware.get("cpu", {}).get("problem"):
        problems.append(problem)
    compiler = _or_none(find_compiler)
    return {
        "python": platform.python_version(),
        "cpu": host.cpu_model(),
        "cpu_level": host.machine_level(),
        "cpu_level_in_use": _or_none(host.level_in_use),
        "cores": host.granted_cores(),
        "memory_bytes": host.memory_bytes(),
        "disk_free_bytes": free,
        "compiler": compiler and {"name": compiler.name, "command": compiler.command[0], "version": compiler.version},
        "openblas": _or_none(blas_core),
        "products": _or_none(engine),
        "packed_speed_up": _or_none(speed_up),
        "bfloat16": _or_none(bfloat16.instructions),
        "cache": str(cache_folder()),
        "libraries": libraries,
        "data_mirror": mirror,
        "hardware": hardware,
        "problems": problems,
    }


def why_not(hardware: Hardware) -> str | None:
    """Why no model can be trained on this hardware profile here, in one line; None where one can."""
    where = file_of("hardware", hardware.name)
    if hardware.timing == "modeled" and not hardware.runs_on_host:
        return (
            f"{where}: is modeled and computes nothing; name it in an experiment beside the profile of "
            f"`weights_from`, or run `cgpt forecast --hardware {hardware.name}`"
        )
    try:
        backend.open_devices(hardware)
        if hardware.runs_on_host:
            find_compiler()
            host.level()
            if hardware.kernels == "native":
                build_library()
                engine()
    except UserError as error:
        return error.problems[0]
    return None


def as_text(machine: dict[str, Any]) -> str:
    """The lines of what `examine` returns, one for each part of the machine, of its software and each profile."""
    compiler, openblas = machine["compiler"], machine["openblas"]
    memory = f", {machine['memory_bytes'] / 2**30:.1f} GiB memory" if machine["memory_bytes"] else ""
    lines = [
        f"python     {machine['python']}",
        f"processor  {machine['cpu']}, {machine['cores']} cores granted{memory}",
        f"level      {_level(machine)}",
        f"disk       {machine['disk_free_bytes'] / 2**30:.1f} GiB free",
        "compiler   " + (f"{compiler['name']}: {compiler['version']} ({compiler['command']})" if compiler else "none"),
        "openblas   " + (f"kernels for {openblas}" if openblas else "none"),
        f"products   {_products(machine)}",
        "bfloat16   " + (f"products by {machine['bfloat16']}" if machine["bfloat16"] else "slower than float32"),
        f"cache      {machine['cache']}",
        f"mirror     {machine['data_mirror'] or 'none (CGPT_DATA_MIRROR is not set)'}",
        "libraries  " + ", ".join(f"{name} {version or 'missing'}" for name, version in machine["libraries"].items()),
    ]
    lines += [f"hardware   {name}: {what['problem'] or _can_run(what)}" for name, what in machine["hardware"].items()]
    return "\n".join([*lines, *([] if machine["problems"] else ["all well"])])


def _can_run(hardware: dict[str, Any]) -> str:
    if hardware["timing"] == "measured":
        return "can run here"
    systems = f"{hardware['systems']} systems, " if hardware["systems"] > 1 else ""
    return f"can run here ({systems}computed by the processor, seconds and joules modeled)"


def _products(machine: dict[str, Any]) -> str:
    if not machine["products"] or not machine["packed_speed_up"]:  # where an engine is named and cannot be built
        return "none"
    return f"{machine['products']}; one thread of packed is {machine['packed_speed_up']:.2f} times as fast as OpenBLAS"


def _level(machine: dict[str, Any]) -> str:
    if machine["cpu_level_in_use"] is None:
        return f"{machine['cpu_level']}, CGPT_CPU asks for another"
    if machine["cpu_level_in_use"] == machine["cpu_level"]:
        return machine["cpu_level"]
    return f"{machine['cpu_level']}, in use {machine['cpu_level_in_use']} (CGPT_CPU)"


def _or_none(function: Callable[[], T]) -> T | None:
    """The function's result; None where it raises UserError, which `why_not` gives for the profile."""
    try:
        return function()
    except UserError:
        return None
