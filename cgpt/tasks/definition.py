"""A task's YAML as lm-evaluation-harness reads it: with the files that it includes and the Python that it names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cgpt.bounds import Documents
from cgpt.errors import UserError, did_you_mean
from cgpt.files.layers import ENDINGS, FOLDERS, Layer
from cgpt.files.yaml_file import Keys, YamlFile, as_list
from cgpt.spec import HUB_COMMIT, HUB_CONFIG, HUB_NAME, HUB_SPLIT
from cgpt.tasks import decoding, functions, scoring
from cgpt.tasks.keys import GROUP_KEYS

CALLED = ("process_docs", "process_results", "custom_dataset")  # keys whose value can only be a function
BEFORE_AN_ANSWER = ("num_fewshot", "description", "gen_prefix")  # keys of what stands there
# Types of the keys that are looked into before any document is.
TASK_TYPES: tuple[tuple[type | tuple[type, ...], str, tuple[str, ...]], ...] = (
    (dict, "a mapping", ("dataset_kwargs", "fewshot_config", "generation_kwargs", "metadata")),
    (list, "a list", ("metric_list", "filter_list")),
    (int, "a whole number", ("num_fewshot", "repeats")),
    ((str, int), "text or a number", ("doc_to_text",)),
    ((str, int, list), "text, a number or a list", ("doc_to_target",)),
    ((str, list, dict), "text, a list or a mapping", ("doc_to_choice",)),
    (str, "text", ("task", "dataset_path", "output_type", "training_split", "validation_split", "test_split",
                   "fewshot_split", "description", "target_delimiter", "fewshot_delimiter", "gen_prefix")),
)  # fmt: skip
INCLUDE = "include"
"""Other task files, whose keys hold where this one has none itself."""
METRIC_KEYS = ("metric", "filter_list", "aggregation", "weight_by_size")


def read_task(path: Path, layer: Layer, above: tuple[Path, ...] = ()) -> YamlFile:
    """Read a task file of a layer; the keys of files named by its `include:`, relative to it, hold where it has none
    itself. A file that the layer has not, or that would include itself, is the one of the layer below.

    `above` holds the files that include this one.
    """
    file = layer.read(path, functions=True)
    if not isinstance(file.value, dict) or file.problems:
        return file
    names = file.value.pop(INCLUDE, None)
    value: dict[str, Any] = {}
    for i, name in enumerate(as_list(names)):
        keys: Keys = ("include", i) if isinstance(names, list) else ("include",)
        if (target := _included(name, path, layer, above, keys, file)) is not None:
            included = read_task(*target, (*above, path))
            file.problems += included.problems
            value |= included.value
    file.value = value | _located(file.value, (), file, path.parent, layer.root)
    return file


def _included(
    name: Any, path: Path, layer: Layer, above: tuple[Path, ...], keys: Keys, file: YamlFile
) -> tuple[Path, Layer] | None:
    """The file that `include: name` is, and its layer; None where there is none, which is noted."""
    root = layer.root.resolve()
    target = (path.parent / name).resolve() if isinstance(name, str) and name and "\0" not in name else None
    if target is None:
        file.problem(keys, f"must be the name of a file, not {name!r}; write one relative to this file")
        return None
    if not target.is_relative_to(root):
        file.problem(keys, f"'{name}' leads out of the study's folder; copy the file there")
        return None
    if not target.is_relative_to(root / FOLDERS["tasks"]) or not target.name.endswith(ENDINGS):
        file.problem(keys, f"'{name}' is no YAML file of workflows/tasks; keep it there, with an ending such as .yaml")
        return None
    inside = target.relative_to(root)
    first = layer.below if target == path.resolve() else layer
    here = next((each for each in first or () if (each.root / inside).is_file()), None)
    if here and (here.root / inside).resolve() not in {other.resolve() for other in (*above, path)}:
        return here.root / inside, here
    if target.is_file():
        file.problem(keys, f"'{name}' includes this file again; remove one of the two")
    else:
        file.problem(keys, f"there is no file '{name}'; write one relative to this file")
    return None


def _located(value: Any, keys: Keys, file: YamlFile, folder: Path, root: Path) -> Any:
    """The value with every function's file and its hash beside the function's name."""
    if isinstance(value, list):
        return [_located(item, (*keys, i), file, folder, root) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if functions.FUNCTION not in value:
        return {key: _located(item, (*keys, key), file, folder, root) for key, item in value.items()}
    try:
        return functions.locate(str(value[functions.FUNCTION]), folder, root)
    except UserError as error:
        file.problem(keys, str(error))
        return value


def mistyped(task: Mapping[str, Any], keys: Keys, file: YamlFile) -> bool:
    """Whether a key of the task, or of the member of a group that stands at `keys`, holds what nothing can be made of;
    that is noted."""
    before = len(file.problems)
    for kind, wanted, names in TASK_TYPES:
        for key in names:
            if key.startswith("doc_to_") and functions.is_function(task.get(key)):
                continue
            if task.get(key) is not None and (not isinstance(task[key], kind) or isinstance(task[key], bool)):
                file.problem((*keys, key), f"must be {wanted}, not {task[key]!r}; write one")
    scoring.check_lists(task, keys, file)
    return len(file.problems) > before


def check_scoring(task: dict[str, Any], keys: Keys, file: YamlFile) -> None:
    """Note what is wrong with how a task, or the member of a group that stands at `keys`, is scored: its shots, its
    documents and how answers are written."""
    if (task.get("num_fewshot") or 0) < 0:
        file.problem((*keys, "num_fewshot"), f"must not be negative, not {task['num_fewshot']}; write 0 or more")
    if task.get("limit") is not None and (problem := Documents().wrong(task["limit"])):
        file.problem((*keys, "limit"), problem)
    sample = task.get("sample")
    if sample is not None and (type(sample) is not int or sample < 1):
        file.problem((*keys, "sample"), f"must be a whole number of documents, not {sample!r}; write e.g. 1000")
    if sample is not None and task.get("limit") is not None:
        file.problem((*keys, "sample"), "stands beside `limit`; write `limit` for the first documents, or `sample` for "
                     "a fixed random sample")  # fmt: skip
    for key in BEFORE_AN_ANSWER if task.get("output_type") == "loglikelihood_rolling" else ():
        if task.get(key):
            file.problem((*keys, key), "has no effect with output_type loglikelihood_rolling, which scores "
                         "doc_to_target alone; remove it")  # fmt: skip
    options = task.get("generation_kwargs")
    if isinstance(options, dict):
        kind = task.get("output_type")
        if kind not in (None, "generate_until"):
            file.problem((*keys, "generation_kwargs"), f"has no effect with output_type {kind}; remove it")
        for key, what in (*decoding.unsupported(options), *decoding.without_effect(options)):
            file.problem((*keys, "generation_kwargs", key), what)
    elif options is not None:
        file.problem((*keys, "generation_kwargs"), "must be a mapping; write `key: value` lines below it")
    for key in CALLED:
        if task.get(key) is not None and not functions.is_function(task[key]):
            file.problem((*keys, key), "is called, so it must be Python; write `!function <module>.<function>`")
    if task.get("custom_dataset") is not None and task.get("data") is not None:
        file.problem((*keys, "custom_dataset"), "makes the data that `data` names; remove one of the two")


def is_group(task: Mapping[str, Any]) -> bool:
    """Whether a task file names other tasks."""
    return "group" in task or isinstance(task.get("task"), list)


def check_group(
    task: dict[str, Any], name: str, known: Iterable[str], datasets: Iterable[str], file: YamlFile
) -> dict[str, Any]:
    """Note what is wrong with a group of tasks; `known` are the keys that a task can have, which hold for its members.

    Returns the group with its name and its members in lists of mappings.
    """
    if task.get("group", name) != name:
        file.problem(("group",), f"{task['group']!r} is not the file's name; write {name}, or rename the file")
    members = task.get("task")
    members = [members] if isinstance(members, str) else members
    if not isinstance(members, list) or not members:
        file.problem(("task",), "must be a list of tasks; write e.g. [first, second]")
        members = []
    for key in task:
        if key not in (*GROUP_KEYS, *known):
            file.problem((key,), f"unknown key; {did_you_mean(key, {*GROUP_KEYS, *known})}")
    shared = {key: value for key, value in task.items() if key not in GROUP_KEYS}
    if not mistyped(shared, (), file):
        check_scoring(shared, (), file)
    items = [_member(item, ("task", i), known, file) for i, item in enumerate(members)]
    for keys, part in (((), task), *((("task", i), item) for i, item in enumerate(items))):
        if "data" in part and part["data"] not in datasets:
            file.problem((*keys, "data"), f"there is no data set {part['data']!r}; "
                         f"{did_you_mean(str(part['data']), datasets)}")  # fmt: skip
    return task | {"group": name, "task": items,
                   "aggregate_metric_list": _metrics(task.get("aggregate_metric_list"), file)}  # fmt: skip


def _member(item: Any, keys: Keys, known: Iterable[str], file: YamlFile) -> dict[str, Any]:
    """A member as a mapping with its name under `task`."""
    member = {"task": item} if isinstance(item, str) else item
    if not isinstance(member, dict) or not isinstance(member.get("task"), str):
        file.problem(keys, "is no task; write its name, or `task: <name>` and below it keys that hold for it here")
        return {"task": ""}
    for key in member:
        if key not in known:
            file.problem((*keys, key), f"unknown key; {did_you_mean(str(key), known)}")
    if not mistyped(member, keys, file):
        check_scoring(member, keys, file)
    return member


def _metrics(listed: Any, file: YamlFile) -> list[dict[str, Any]]:
    keys: Keys = ("aggregate_metric_list",)
    entries = as_list(listed)
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("metric"), str):
            file.problem((*keys, i), "has no `metric`; write e.g. {metric: acc, weight_by_size: true}")
            continue
        for key in entry:
            if key not in METRIC_KEYS:
                file.problem((*keys, i, key), f"unknown key; {did_you_mean(str(key), METRIC_KEYS)}")
        if entry.get("aggregation", "mean") != "mean":
            file.problem((*keys, i, "aggregation"), "is 'mean' alone in lm-evaluation-harness; write mean")
        if not isinstance(entry.get("weight_by_size", True), bool):
            file.problem((*keys, i, "weight_by_size"), "must be true or false; write one of them")
    return [entry for entry in entries if isinstance(entry, dict)]


def hub_task(task: Mapping[str, Any], file: YamlFile) -> None:
    """Note what is wrong with a data set of the hub that a task names itself."""
    revision = (task.get("dataset_kwargs") or {}).get("revision")
    if not isinstance(revision, str) or HUB_COMMIT.wrong(revision):
        file.problem(("dataset_kwargs", "revision"), "is missing or no commit, which pins a data set of the hub; write "
                     "40 hexadecimal digits")  # fmt: skip
    splits = ("training_split", "validation_split", "test_split", "fewshot_split")
    patterns = {"dataset_path": HUB_NAME, "dataset_name": HUB_CONFIG} | dict.fromkeys(splits, HUB_SPLIT)
    for key, pattern in patterns.items():
        name = task.get(key)
        if name is not None and (not isinstance(name, str) or pattern.wrong(name) or "/.." in name):
            file.problem((key,), "cannot be a name of the hub; write it as the hub does")
