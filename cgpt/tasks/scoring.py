"""Keys of a task file that decide scoring: its metrics, filters and repeats, and those that no model of text can use.

Only what the file itself says is looked at, without the engine; `cgpt.tasks.metrics` tries the rest out.
"""

from collections.abc import Mapping
from typing import Any

from cgpt.errors import did_you_mean
from cgpt.files.yaml_file import Keys, YamlFile, as_list
from cgpt.tasks import functions

ENGINE_METRIC_KEYS = ("metric", "aggregation", "higher_is_better", "hf_evaluate")
FILTER_KEYS = ("name", "filter")
EXAMPLES = {"metric": "acc", "name": "strict", "function": "take_first"}
PROGRAM = (
    "runs the program '{}' of a folder or of the Hugging Face hub; take a metric that lm-evaluation-harness has, or "
    "write `process_results: !function <module>.<function>`"
)
UNUSABLE = {  # keys whose effect is none of a model of text
    "doc_to_image": "needs a model that sees; these read text, so remove it",
    "doc_to_audio": "needs a model that hears; these read text, so remove it",
}
UNSAFE_CODE = "the task runs what a model writes as a program, which is not done here; name another task"


def check_lists(task: Mapping[str, Any], keys: Keys, file: YamlFile) -> None:
    """Note what is wrong with the metrics, filters and repeats of a task, or of the member of a group at `keys`."""
    kind = task.get("output_type")
    is_complete = kind is not None and not task.get("stock")  # not the keys that are added to another task's
    known_kind = kind if is_complete and task.get("process_results") is None else None
    _check_metrics(task.get("metric_list"), (*keys, "metric_list"), file, known_kind)
    _check_filters(task.get("filter_list"), (*keys, "filter_list"), file)
    repeats = task.get("repeats")
    if repeats is not None and (type(repeats) is not int or repeats < 1):
        file.problem((*keys, "repeats"), f"must be a whole number of answers above 0, not {repeats!r}; write e.g. 1")
    elif repeats not in (None, 1) and is_complete and kind != "generate_until":
        file.problem((*keys, "repeats"), f"has no effect with output_type {kind}; remove it")
    for key, what in UNUSABLE.items():
        if task.get(key) is not None:
            file.problem((*keys, key), what)
    if task.get("unsafe_code") not in (None, False):
        file.problem((*keys, "unsafe_code"), UNSAFE_CODE)


def _check_metrics(listed: Any, keys: Keys, file: YamlFile, kind: str | None) -> None:
    """`kind` None: a metric's further keys may have an effect that is not known here."""
    names: list[str] = []
    for i, entry in enumerate(_entries(listed, keys, "metric", file)):
        at = (*keys, i)
        name = entry.get("metric")
        if not isinstance(name, str) and not functions.is_function(name):
            file.problem((*at, "metric"), f"must be a name, not {name!r}; write e.g. acc")
        elif entry.get("hf_evaluate") not in (None, False):
            file.problem((*at, "hf_evaluate"), PROGRAM.format(name))
        elif str(name) in names:
            file.problem((*at, "metric"), f"'{name}' is listed twice, and only the last would count; remove one")
        names.append(str(name))
        if not isinstance(entry.get("higher_is_better", True), bool):
            file.problem((*at, "higher_is_better"), "must be true or false; write one of them")
        for key in entry if kind not in (None, "generate_until") else ():
            if key not in ENGINE_METRIC_KEYS:
                file.problem((*at, key), f"has no effect with output_type {kind}; "
                             f"{did_you_mean(str(key), ENGINE_METRIC_KEYS)}")  # fmt: skip


def _check_filters(listed: Any, keys: Keys, file: YamlFile) -> None:
    names: list[Any] = []
    for i, entry in enumerate(_entries(listed, keys, "name", file)):
        at = (*keys, i)
        for key in entry:
            if key not in FILTER_KEYS:
                file.problem((*at, key), f"unknown key; {did_you_mean(str(key), FILTER_KEYS)}")
        if not isinstance(entry.get("name"), str) or entry["name"] in names:
            file.problem((*at, "name"), f"must be text of its own, not {entry.get('name')!r}; write another name")
        names.append(entry.get("name"))
        steps = _entries(entry.get("filter"), (*at, "filter"), "function", file)
        if not steps:
            file.problem((*at, "filter"), "is missing or holds no step; write e.g. `- function: take_first` below it")
        for j, step in enumerate(steps):
            if not isinstance(step.get("function"), str):
                file.problem((*at, "filter", j, "function"), f"must be a name, not {step.get('function')!r}; write "
                             "e.g. take_first")  # fmt: skip


def _entries(listed: Any, keys: Keys, needed: str, file: YamlFile) -> list[dict[str, Any]]:
    """The mappings of a list; anything else is noted."""
    entries = as_list(listed)
    mappings = [entry for entry in entries if isinstance(entry, dict) and entry.get(needed) is not None]
    if len(mappings) < len(entries):
        file.problem(keys, f"has an entry without `{needed}`; write `- {needed}: {EXAMPLES[needed]}` for each")
        return []
    return mappings
