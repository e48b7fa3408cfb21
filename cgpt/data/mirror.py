"""The mirror: a folder of files that are taken from there before the web is asked."""

import os
from pathlib import Path

MIRROR = "CGPT_DATA_MIRROR"
"""A folder that holds the files of workflows/data.yaml by their `path`, splits of the hub's data sets, and files of
checkpoints; they are taken from there, with the same checksums, before the web is asked."""


def find_in_mirror(*names: str | Path) -> Path | None:
    """The first of these files that the mirror has; None where it has none, or there is no mirror."""
    mirror = os.environ.get(MIRROR)
    copies = [Path(mirror) / name for name in names] if mirror else []
    return next((copy for copy in copies if copy.is_file()), None)
