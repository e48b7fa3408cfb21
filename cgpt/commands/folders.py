"""Folders of results that the commands write to."""

from cgpt.experiment.run import RUNS_FOLDER

RESULTS = RUNS_FOLDER.parent
REFERENCE = RESULTS / "reference"  # the one folder of results that is committed
LOCKS = RUNS_FOLDER / "locks"
