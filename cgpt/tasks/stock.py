"""The tasks that lm-evaluation-harness brings: its own index of them, and the keys of a task's YAML there.

The index of its 13,000 files takes ten seconds, so it is kept in the cache folder. It is read only where a task says
`stock: true`, or a group names what the study itself has not.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cgpt.errors import UserError, did_you_mean, first_line
from cgpt.files.cache import cache_folder
from cgpt.files.whole import write_whole

LONGEST_NAME = 200  # characters that are compared with the names there are


class Entry(NamedTuple):
    """The task, group or tag of a name. `group` is a group's YAML; `members` are the names of a tag's tasks, sorted."""

    kind: Literal["TASK", "PY_TASK", "GROUP", "TAG"]
    path: str | None  # of its YAML, in lm-evaluation-harness's folder of tasks
    group: dict[str, Any] | None
    members: list[str]


def entry(name: str, where: str) -> Entry:
    """The task, group or tag of a name of lm-evaluation-harness. Raises UserError, which begins with `where`, for no
    such name, and for a task that is a Python class."""
    names = index()
    if (name not in names or not _is_there(names[name])) and not _is_current():
        with contextlib.suppress(OSError):
            _index_file().unlink()
        index.cache_clear()
        names = index()
    if name not in names:
        raise UserError(f"{where}: task: lm-evaluation-harness has no task '{name}'; {hint(name)}")
    if names[name].kind == "PY_TASK":
        raise UserError(f"{where}: task: '{name}' is a Python class of lm-evaluation-harness, not YAML, and cannot be "
                        "taken; name another task")  # fmt: skip
    return names[name]


def hint(name: str, more: Iterable[str] = ()) -> str:
    """`did you mean 'x'?` for the nearest name, of lm-evaluation-harness or of `more`; else what lists its 14,000."""
    near = get_close_matches(name[:LONGEST_NAME], [*more, *index()], n=1, cutoff=0.6)
    return did_you_mean(name, near) if near else "`lm-eval ls tasks` lists them"


def config(name: str, where: str) -> dict[str, Any]:
    """The keys of a task's YAML, with what it includes and its functions. Raises UserError as `entry` does, for a group
    or tag, which is no single task, and for one whose Python cannot be imported."""
    task = entry(name, where)
    if task.kind != "TASK" or task.path is None:
        raise UserError(f"{where}: task: '{name}' is a {task.kind.lower()} of tasks; name it in an experiment's tasks")
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        keys = load_yaml(_folder() / task.path)
    except Exception as error:  # of its Python, which is imported
        raise UserError(f"{where}: task: '{name}' of lm-evaluation-harness cannot be made here "
                        f"({first_line(error)}); install what it needs, or name another task") from None  # fmt: skip
    return {key: value for key, value in keys.items() if key not in ("tag", "group", "task_list")}


@functools.cache
def index() -> dict[str, Entry]:
    """Every name that lm-evaluation-harness knows: tasks, groups and tags."""
    try:
        return {name: Entry(*entry) for name, entry in _kept()["names"].items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        state, names = _state(), _read_folder()
    with contextlib.suppress(OSError, UserError):  # without it the next process reads the folder again
        write_whole(_index_file(), json.dumps({"state": state, "names": names}).encode())
    return names


def _kept() -> dict[str, Any]:
    """The kept index: its names, and the state of the folder that they were read from."""
    return json.loads(_index_file().read_text(encoding="utf-8"))


def _is_current() -> bool:
    """Whether the kept index is of the files that there are now."""
    try:
        return _kept()["state"] == _state()
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _state() -> str:
    """A hash of the names, sizes and times of lm-evaluation-harness's files of tasks."""
    paths = (Path(folder, name) for folder, _, names in os.walk(_folder()) for name in names if name.endswith(".yaml"))
    files = sorted((str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _read_folder() -> dict[str, Entry]:
    from lm_eval.tasks._index import Kind, TaskIndex

    names = {}
    for name, listed in TaskIndex.build([_folder()]).items():
        group = json.loads(json.dumps(listed.cfg, default=str)) if listed.kind is Kind.GROUP else None
        path = listed.yaml_path.relative_to(_folder()).as_posix() if listed.yaml_path else None
        names[name] = Entry(listed.kind.name, path, group, sorted(listed.tags) if listed.kind is Kind.TAG else [])
    return names


def _folder() -> Path:
    """The folder of tasks, found without importing the package, which takes seconds."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "tasks"


def _index_file() -> Path:
    version = importlib.metadata.version("lm_eval")
    folder = hashlib.sha256(str(_folder()).encode()).hexdigest()[:8]
    return cache_folder() / f"lm-eval-{version}-tasks-{folder}.json"


def _is_there(task: Entry) -> bool:
    return task.path is None or (_folder() / task.path).is_file()
