"""Groups of tasks: which tasks a name stands for, and a group's scores, as lm-evaluation-harness has them.

A name of an experiment's `tasks` is a file of workflows/tasks: a task, a group of names, or with `stock: true` a task,
group or tag that lm-evaluation-harness brings. Names within a group are files of the study first, as with the engine's
`--include_path`. Each task becomes runs of its own; a group's score is computed of theirs when tables are made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cgpt.errors import UserError, did_you_mean
from cgpt.files.layers import file_of
from cgpt.files.yaml_file import as_list
from cgpt.records import ANSWER_BITS
from cgpt.spec import Experiment
from cgpt.tasks import stock
from cgpt.tasks.definition import is_group
from cgpt.tasks.functions import name_of
from cgpt.tasks.keys import GROUP_KEYS

STRUCTURE = frozenset((*GROUP_KEYS, "tag", "stock"))  # keys of a group that are not meant for its members
LABELS_APART = ("zero-shot", "few-shot")  # conditions that a group may mix, as its members' shots differ

# lm-evaluation-harness's, of a task without a metric_list; a test compares them.
DEFAULT_METRICS = {
    "multiple_choice": ("acc", "acc_norm"),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "generate_until": ("exact_match",),
}

# What makes two scores belong to one model in one condition; a group's members differ in everything else.
SAME = ("experiment", "model", "n_parameters", "data", "setting", "seed", "hardware", "timing", "stage", "n_labels")

Row = dict[str, Any]


class Leaf(NamedTuple):
    """A single task by the name that its runs have."""

    name: str
    task: dict[str, Any]


@dataclass(frozen=True)
class TaskGroup:
    """`members`: the `task` of each of its tasks, those of groups within it too; `metrics`: what is averaged, each
    with `metric`, `filter_list` (None: every filter) and `weight_by_size`."""

    name: str
    version: int | float | str | None
    members: tuple[str, ...]
    metrics: tuple[dict[str, Any], ...]


def expand(experiment: Experiment, tasks: Mapping[str, dict[str, Any]]) -> tuple[list[Leaf], list[TaskGroup]]:
    """The tasks that an experiment's names stand for, each once, and the groups among them that have a score.

    Raises UserError for a name that nobody knows, and for a task that two names give different keys.
    """
    leaves: dict[str, Leaf] = {}
    groups: dict[str, TaskGroup] = {}
    for name in experiment.tasks:
        for leaf in _Expansion(tasks, groups).of_file(name, {}, ()):
            known = leaves.setdefault(leaf.name, leaf)
            if known.task != leaf.task:
                raise UserError(f"{file_of('experiments', experiment.name)}: tasks: {name}: '{leaf.name}' is there "
                                "already, with other keys; take one of the two")  # fmt: skip
    return list(leaves.values()), [group for group in groups.values() if group.metrics]


def scored(task: dict[str, Any], experiment: Experiment) -> list[dict[str, Any]]:
    """The task as the experiment scores it, once for each number of shots: its `num_fewshot` and `limit` win. A text
    that is scored whole has no shots."""
    has_shots = task.get("output_type") != "loglikelihood_rolling"
    limited = task if experiment.limit is None else with_keys(task, {"limit": experiment.limit})
    return [with_shots(limited, n) for n in experiment.num_fewshot if has_shots] or [limited]


def with_shots(task: dict[str, Any], num_fewshot: int) -> dict[str, Any]:
    """The task with this many shots, as it is where it says so itself; a task that lm-eval brings may say another."""
    n_shot = task.get("num_fewshot") or (None if task.get("stock") else 0)
    return task if n_shot == num_fewshot else task | {"num_fewshot": num_fewshot}


def with_keys(task: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """The task with these keys; `limit` and `sample` say the same thing, so that one takes the other's place."""
    void = {"limit": "sample", "sample": "limit"}
    return {key: value for key, value in task.items() if void.get(key) not in keys} | keys


@dataclass(frozen=True)
class _Expansion:
    """The rules by which lm-evaluation-harness's TaskFactory finds the members of a group."""

    tasks: Mapping[str, dict[str, Any]]
    groups: dict[str, TaskGroup]

    def of_file(self, name: str, overrides: Row, above: tuple[str, ...]) -> list[Leaf]:
        """The tasks of a file of workflows/tasks; `overrides` are keys that a group gives it."""
        task, where = self.tasks[name], file_of("tasks", name)
        if name in above:
            raise UserError(f"{where}: task: contains itself, by {' and '.join(above)}; remove one")
        if is_group(task):
            return self.of_group(name, task, overrides, (*above, name), where)
        if not task.get("stock"):
            return [Leaf(name, with_keys(task, overrides))]
        keys = with_keys({key: value for key, value in task.items() if key not in ("task", "stock")}, overrides)
        return self.of_stock(task["task"], keys, (*above, name), where, name)

    def of_stock(self, name: str, overrides: Row, above: tuple[str, ...], where: str, label: str) -> list[Leaf]:
        """The tasks of a name that lm-evaluation-harness brings."""
        entry = stock.entry(name, where)
        if entry.kind == "GROUP" and entry.group:
            return self.of_group(name, entry.group, overrides, above, where)
        if entry.kind == "TAG":
            return [leaf for member in entry.members for leaf in self.of_name(member, overrides, above, where)]
        return [Leaf(label, {"task": name, "stock": True} | overrides)]

    def of_name(self, name: str, overrides: Row, above: tuple[str, ...], where: str) -> list[Leaf]:
        """The tasks of a name within a group: a file of the study, else what lm-evaluation-harness brings."""
        if name in self.tasks and not (name in above and self.tasks[name].get("stock")):
            return self.of_file(name, overrides, above)
        if name not in stock.index():
            raise UserError(f"{where}: task: there is no task '{name}', neither in workflows/tasks nor in "
                            f"lm-evaluation-harness; {stock.hint(name, self.tasks)}")  # fmt: skip
        return self.of_stock(name, overrides, above, where, name)

    def of_group(self, name: str, group: Row, overrides: Row, above: tuple[str, ...], where: str) -> list[Leaf]:
        """The tasks of a group, which is noted. Its own keys hold for its members, and `overrides` win over them."""
        overrides = with_keys({key: value for key, value in group.items() if key not in STRUCTURE}, overrides)
        leaves: list[Leaf] = []
        for item in as_list(group.get("task")):
            leaves += self._of_member(item, name, overrides, above, where)
        metrics = as_list(group.get("aggregate_metric_list"))
        if name in self.tasks:
            _check_averaged(metrics, leaves, where)
        version = (group.get("metadata") or {}).get("version")
        names = tuple(dict.fromkeys(leaf.task["task"] for leaf in leaves))
        self.groups[name] = TaskGroup(name, version, names, tuple(metrics))
        return leaves

    def _of_member(self, item: Any, group: str, overrides: Row, above: tuple[str, ...], where: str) -> list[Leaf]:
        if isinstance(item, str):
            return self.of_name(item, overrides, above, where)
        keys = {key: value for key, value in item.items() if key not in STRUCTURE}
        if "group" in item and item["group"] not in {*self.tasks, *stock.index()}:
            return self.of_group(f"{group}::{item['group']}", item, overrides, above, where)
        name = item.get("group") or item.get("task")
        if not isinstance(name, str):
            raise UserError(
                f"{where}: task: a member of '{group}' has no name, so it cannot be taken; name other tasks"
            )
        return self.of_name(name, with_keys(overrides, keys), above, where)


def _check_averaged(metrics: Iterable[Row], leaves: Iterable[Leaf], where: str) -> None:
    """Refuse what a study's own group averages and no member has; lm-evaluation-harness's tasks say it elsewhere."""
    tasks = [leaf.task for leaf in leaves]
    if any(task.get("stock") or task.get("process_results") is not None for task in tasks):
        return
    known = {ANSWER_BITS}.union(*map(_metrics_of, tasks))
    filters = {entry["name"] for task in tasks for entry in task.get("filter_list") or [{"name": "none"}]}
    problems = []
    for entry in metrics:
        if entry.get("metric") not in known:
            problems.append(f"{where}: aggregate_metric_list: no member has the metric '{entry.get('metric')}'; "
                            f"{did_you_mean(str(entry.get('metric')), known)}")  # fmt: skip
        for name in as_list(entry.get("filter_list") or None):
            if name not in filters:
                problems.append(f"{where}: aggregate_metric_list.filter_list: no member has the filter '{name}'; "
                                f"{did_you_mean(str(name), filters)}")  # fmt: skip
    if problems:
        raise UserError(*problems)


def _metrics_of(task: Row) -> set[str]:
    """The names of a task's metrics; those of a function are its own."""
    listed = task.get("metric_list")
    if listed is None:
        return set(DEFAULT_METRICS.get(task.get("output_type") or "generate_until", ()))
    return {name_of(entry["metric"]) for entry in listed}


def group_rows(groups: Sequence[TaskGroup], rows: Iterable[Row]) -> list[Row]:
    """One score row per group, model, condition and metric, of rows that hold those of all its members.

    A mean is weighted by documents unless `weight_by_size` is false; its standard error follows, as in
    lm-evaluation-harness. A group's chance is the same mean of its members'.
    """
    rows = list(rows)
    return [row for group in groups for alike in _by_model(group, rows) for row in _aggregated(group, alike)]


def _by_model(group: TaskGroup, rows: list[Row]) -> Iterable[list[Row]]:
    """The rows of the group's members for each model and condition that has all of them; where a member is scored with
    several numbers of shots, for each number."""
    members = [row for row in rows if row["task"] in group.members and row["condition"] != "bag of words"]
    shots: dict[tuple, set[int]] = {}
    for row in members:
        shots.setdefault((row["task"], *_of_model(row)), set()).add(row["n_shot"])
    several = any(len(numbers) > 1 for numbers in shots.values())
    models: dict[tuple, list[Row]] = {}
    for row in members:
        models.setdefault((*_of_model(row), row["n_shot"] if several else None), []).append(row)
    return [alike for alike in models.values() if {row["task"] for row in alike} == set(group.members)]


def _of_model(row: Row) -> tuple:
    """The values of a row that two scores of one model in one condition share."""
    return (*(row[key] for key in SAME), None if row["condition"] in LABELS_APART else row["condition"])


def _aggregated(group: TaskGroup, rows: list[Row]) -> Iterable[Row]:
    primary = True
    for entry in group.metrics:
        of_metric = [row for row in rows if row["metric"] == entry["metric"]]
        for name in as_list(entry.get("filter_list") or None) or sorted({row["filter"] for row in of_metric}):
            members = [row for row in of_metric if row["filter"] == name]
            if members:
                yield _group_row(group, rows, members, entry.get("weight_by_size", True)) | {"primary": primary}
                primary = False


def _group_row(group: TaskGroup, rows: list[Row], members: list[Row], weight_by_size: bool) -> Row:
    from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr, unweighted_mean_stderr

    sizes, first = [row["n_samples"] for row in members], members[0]
    errors, chances = ([row[key] for row in members] for key in ("stderr", "chance"))
    stderr = None
    if None not in errors:
        stderr = pooled_sample_stderr(errors, sizes) if weight_by_size else unweighted_mean_stderr(errors)
    shots = {row["n_shot"] for row in rows}
    one_row_a_task = list({row["task"]: row for row in rows}.values())
    documents = {row["documents"] for row in one_row_a_task}
    return first | {
        "task": group.name,
        "task_version": group.version,
        "value": float(aggregate_subtask_metrics([row["value"] for row in members], sizes, weight_by_size)),
        "stderr": None if stderr is None else float(stderr),
        "chance": None if None in chances else float(aggregate_subtask_metrics(chances, sizes, weight_by_size)),
        "n_samples": sum(row["n_samples"] for row in one_row_a_task),
        "n_prompts_cut": sum(row["n_prompts_cut"] for row in one_row_a_task),
        "documents": documents.pop() if documents == {"all"} else "some",
        "n_shot": max(shots),
        "condition": first["condition"] if first["condition"] not in LABELS_APART else LABELS_APART[max(shots) > 0],
        "commonest_answer": None,
        "commonest_answer_share": None,
        "evaluate_run": None,
        "finetune_run": None if first["finetune_run"] is None else "several",
    }
