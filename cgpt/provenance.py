"""Where a result comes from: the code that made it, the commit, the versions, the machine and the day."""

import hashlib
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cgpt import SHIPPED, code_hash
from cgpt.errors import UserError
from cgpt.files.cache import cache_folder
from cgpt.files.digest import sha256_of
from cgpt.files.whole import write_whole
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


@cache
def code_sha256(stage: str) -> str:
    """`code_hash.code_sha256`, kept with the rest of the cache for as long as the package's files are what they are:
    every workflow and every training asks for it, and following a stage through the package takes half a second."""
    decisive = f"{stage} {sys.version} {_sources_sha256()}"
    try:
        kept = cache_folder() / "code" / hashlib.sha256(decisive.encode()).hexdigest()
        text = kept.read_text() if kept.is_file() else ""
        if not re.fullmatch("[0-9a-f]{64}", text):
            text = code_hash.code_sha256(stage)
            write_whole(kept, text.encode())
        return text
    except (OSError, UserError, UnicodeError):  # it cannot be kept
        return code_hash.code_sha256(stage)


@cache
def _sources_sha256() -> str:
    """Hash of all source files of the package, by their paths."""
    sources = sorted(path for path in code_hash.PACKAGE.rglob("*") if path.suffix in (".py", ".c", ".h"))
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.relative_to(code_hash.PACKAGE)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


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
