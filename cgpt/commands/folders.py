"""The folder of published numbers and kept results."""

from pathlib import Path

from cgpt.experiment.run import RESULTS
from cgpt.files.layers import shipped_file

KEPT = RESULTS / "reference"  # the one folder of results that is committed


def reference_folder() -> Path:
    """The folder of published numbers and kept results that comes with cgpt."""
    return shipped_file(KEPT)
