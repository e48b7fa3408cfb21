"""Folders of results that the commands write to, and of the reference that they read."""

from cgpt import SHIPPED
from cgpt.experiment.run import RUNS_FOLDER

RESULTS = RUNS_FOLDER.parent
LOCKS = RUNS_FOLDER / "locks"
KEPT = RESULTS / "reference"  # the one folder of results that is committed
REFERENCE = SHIPPED / KEPT  # published numbers and kept results, as they come with cgpt
