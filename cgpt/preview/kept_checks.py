"""Results of checks, kept by the content of all that decides them, so that nothing is checked twice."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from cgpt.errors import UserError
from cgpt.experiment.run import RUNS_FOLDER
from cgpt.files.whole import write_whole

CHECKS = RUNS_FOLDER / "checks"


def remember(name: str, decisive: Any, check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `check`, from an earlier call where all that is `decisive` for it was the same. JSON holds both.

    Raises UserError as `check` does, whose problems are not kept.
    """
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    path = CHECKS / f"{name}-{digest[:16]}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        result = check()
    try:
        write_whole(path, (json.dumps(result) + "\n").encode())
    except (OSError, UserError):  # a folder that cannot be written costs time alone
        pass
    return result
