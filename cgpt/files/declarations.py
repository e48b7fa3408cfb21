"""The files that a workflow started with, kept below results/: an edit while it runs changes none of its jobs."""

import hashlib
import os
import stat
from pathlib import Path

from cgpt.errors import UserError
from cgpt.files.whole import whole_folder

STARTED_WITH = "CGPT_STARTED_WITH"
"""Set by a workflow for its jobs: the folder that keeps the files it started with."""
KEPT = Path("results/runs/started")
PATTERNS = (
    "workflows/models.yaml", "workflows/pins.yaml", "workflows/data.yaml",
    "workflows/experiments/*.yaml", "workflows/experiments/*.yml",
    "workflows/tasks/**/*yaml", "workflows/tasks/**/*yml", "workflows/tasks/**/*.py", "hardware_profiles/*.yaml",
    "hardware_profiles/*.yml",
)  # fmt: skip


def folder_of(root: Path) -> Path:
    """Where to read the declarations of the project at `root`: its own, or in a workflow's job those it started with.

    Raises UserError where these are gone.
    """
    folder = Path(os.environ.get(STARTED_WITH, ""))
    if not folder.is_relative_to((root / KEPT).resolve()):
        return root
    if not folder.is_dir():
        raise UserError(f"environment: {STARTED_WITH}: there is no folder {folder} any more; start the workflow again")
    return folder


def contents(root: Path) -> dict[str, bytes]:
    """Every declaration below `root` by its path from there, as it is now; what cannot be read is left out."""
    files = {}
    for path in sorted(path for pattern in PATTERNS for path in root.glob(pattern)):
        try:
            if stat.S_ISREG(path.stat().st_mode):
                files[path.relative_to(root).as_posix()] = path.read_bytes()
        except OSError:
            continue
    return files


def keep(files: dict[str, bytes], root: Path) -> Path:
    """Write the files into a folder below `root` that is named by their content; return it. Raises UserError."""
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    folder = (root / KEPT / digest).resolve()
    if folder.is_dir():
        return folder
    try:
        with whole_folder(folder) as part:
            for name, content in files.items():
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_bytes(content)
    except (OSError, UserError):
        if not folder.is_dir():  # otherwise another workflow that started with the same files was first
            raise
    return folder
