"""Where a result comes from: the code that made it, the commit, the versions, the machine and the day."""

import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cgpt import SHIPPED
from cgpt.code_hash import code_sha256
from cgpt.host import cpu_flags, cpu_model

PACKAGES = {"tinygrad": "tinygrad", "numpy": "numpy", "lm_eval": "lm-eval", "cgpt": "cgpt"}


def record(stage: str) -> dict[str, Any]:
    """Fields of a run's record that say where it was made, as flat as the record itself, `versions` apart."""
    return {
        "host_cpu": cpu_model(),
        "versions": {"python": platform.python_version()}
        | {key: installed_version(name) for key, name in PACKAGES.items()},
        "code_sha256": code_sha256(stage),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The processor's name and a hash of its instruction sets, which decide the last bits of a run."""
    return f"{cpu_model()} {hashlib.sha256(cpu_flags().encode()).hexdigest()[:12]}"


def commit() -> str | None:
    """The commit of the code, with `-dirty` where files differ from it; None outside a git checkout, also where cgpt is
    installed within another one, such as a study's."""
    if SHIPPED not in Path(__file__).resolve().parents:
        return None
    describe = ["git", "-C", str(SHIPPED), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def installed_version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
