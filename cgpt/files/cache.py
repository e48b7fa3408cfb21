"""The folder for what can be made again, such as compiled kernels and the list of fonts."""

import functools
import os
import sys
from pathlib import Path

from cgpt.errors import UserError

CACHE = "CGPT_CACHE"
"""The folder of what can be made again, such as compiled kernels; default: cgpt in XDG_CACHE_HOME or ~/.cache, else
results/cache."""
IN_STUDY = Path("results/cache")  # where the usual folder cannot be written


def cache_folder() -> Path:
    """CGPT_CACHE, else cgpt in XDG_CACHE_HOME or ~/.cache, else results/cache; it exists and can be written.

    Raises UserError where there is no such folder.
    """
    if named := os.environ.get(CACHE):
        if problem := _why_not(Path(named)):
            raise UserError(f"environment: {CACHE}: {named} cannot be written ({problem}); name another folder")
        return Path(named)
    try:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cgpt"
    except RuntimeError:  # no home is known
        usual = Path("~/.cache/cgpt")
    return _in_study(usual, problem) if (problem := _why_not(usual)) else usual


@functools.cache
def _in_study(usual: Path, problem: str) -> Path:
    """The folder of the study instead, which is said once."""
    instead = IN_STUDY.absolute()
    if second := _why_not(instead):
        raise UserError(f"cache: neither {usual} ({problem}) nor {instead} ({second}) can be written; name a folder "
                        f"that can with {CACHE}")  # fmt: skip
    print(f"cache: {usual} cannot be written ({problem}); it is {instead} instead, or what {CACHE} names",
          file=sys.stderr)  # fmt: skip
    return instead


def _why_not(cache: Path) -> str | None:
    """Why a folder cannot be made or written; None where it can."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or "it cannot be made"
    return None if os.access(cache, os.W_OK | os.X_OK) else "Permission denied"


def prepare_matplotlib() -> None:
    """Keep matplotlib's list of fonts with the rest, wherever the home folder is; call before it is imported."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
