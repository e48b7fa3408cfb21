"""Folders of results that the commands write to, and of the reference that they read."""

from pathlib import Path

from cgpt.experiment.run import RUNS_FOLDER
from cgpt.files.layers import shipped_file

RESULTS = RUNS_FOLDER.parent
LOCKS = RUNS_FOLDER / "locks"
KEPT = RESULTS / "reference"  # the one folder of results that is committed


def reference_folder() -> Path:
    """The folder of published numbers and kept results that comes with cgpt."""
    return shipped_file(KEPT)
