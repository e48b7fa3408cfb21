"""Loads every YAML file of the project and says, all at once, whatever in them is wrong."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cgpt.data import task_rows
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import bases, contradictions, rules
from cgpt.experiment.entries import Entries, Workflow
from cgpt.experiment.from_yaml import Mismatch, convert, field_types, fill, fill_fields, fill_given
from cgpt.files.yaml_file import Keys, YamlFile, read
from cgpt.hardware import Hardware
from cgpt.spec import Data, Dataset, Experiment, Finetune, Model, Train
from cgpt.tasks.definition import check_group, check_scoring, hub_task, is_group, mistyped, read_task

RESERVED_EXPERIMENTS = (
    "runs",
    "reference",
    "bench",
    "cache",
    "coordinate_check",
)  # folders of results/ with another meaning
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # names become parts of paths and of run ids
NAME_RULE = "at most 64 letters, digits, '.', '_' and '-', a letter or digit first"
VARIED = {"model": Model, "data": Data, "train": Train, "finetune": Finetune}  # blocks that `vary` reaches into

# Fields of lm_eval.api.task.TaskConfig, listed so that a plan need not import lm_eval; a test compares them.
LM_EVAL_KEYS = frozenset(
    "task task_alias tag custom_dataset dataset_path dataset_name dataset_kwargs training_split validation_split "
    "test_split fewshot_split process_docs doc_to_text doc_to_target doc_to_image doc_to_audio unsafe_code "
    "doc_to_choice process_results use_prompt description target_delimiter fewshot_delimiter fewshot_config "
    "num_fewshot metric_list output_type generation_kwargs repeats filter_list should_decontaminate "
    "doc_to_decontamination_query gen_prefix metadata".split()
)
OUR_TASK_KEYS = frozenset({"data", "finetune", "limit", "sample", "stock"})
NEEDED_TASK_KEYS = ("task", "data", "output_type", "doc_to_text", "doc_to_target")


@dataclass(frozen=True)
class _Names:
    """What an experiment or a task can refer to; known even where an entry itself is wrong."""

    models: dict[str, Model | None]
    datasets: dict[str, Dataset | None]
    tasks: dict[str, dict[str, Any] | None]
    hardware: dict[str, Hardware | None]


def load_workflow(root: Path) -> Workflow:
    """Load workflows/ and hardware_profiles/ below `root`; raises one UserError that lists every problem found."""
    workflow = read_workflow(root)
    workflow.refuse_broken()
    return workflow


def read_workflow(root: Path, declarations: Path | None = None) -> Workflow:
    """As `load_workflow`, where a wrong entry of a file raises only once it is asked for.

    The files are those below `declarations`, by default those of `root` itself; paths in them are relative to `root`.
    Raises UserError where models.yaml or data.yaml has no entries to read.
    """
    folder = declarations or root
    if not (folder / "workflows").is_dir():
        raise UserError("workflows: there is no such folder here; run from the project's folder")
    models = _rows(folder, "workflows/models.yaml", "models", Model)
    for row in filter(None, models.entries.values()):
        rules.model(row, ("models", row.name), models.yaml)
    datasets = _rows(folder, "workflows/data.yaml", "datasets", Dataset)
    for dataset in filter(None, datasets.entries.values()):
        rules.dataset(dataset, root, ("datasets", dataset.name), datasets.yaml)
    profiles = _folder(folder, "hardware_profiles")
    hardware = {named.name: _hardware(named, profiles) for named in profiles}
    task_files = _folder(folder, "workflows/tasks", read_task)
    tasks = {named.name: _task(named, datasets.entries, root) for named in task_files}
    names = _Names(models.entries, datasets.entries, tasks, hardware)
    experiment_files, named_parts, experiments = _folder(folder, "workflows/experiments"), {}, {}
    for named in experiment_files:
        experiments[named.name], named_parts[named.name] = _experiment(named, names)
    return Workflow(
        models.checked(), datasets.checked(), Entries(tasks, _broken(task_files)),
        Entries(hardware, _broken(profiles)), Entries(experiments, _broken(experiment_files)), named_parts,
    )  # fmt: skip


@dataclass(frozen=True)
class _Named:
    name: str
    yaml: YamlFile


@dataclass(frozen=True)
class _Rows:
    block: str
    yaml: YamlFile
    entries: dict[str, Any]

    def checked(self) -> Entries:
        """The rows, each with the problems at its keys; those of the file raise UserError."""
        by_row: dict[str, tuple[str, ...]] = {}
        of_file = []
        for keys, line in zip(self.yaml.problem_keys, self.yaml.problems, strict=True):
            if len(keys) > 1 and keys[0] == self.block:
                by_row[str(keys[1])] = (*by_row.get(str(keys[1]), ()), line)
            else:
                of_file.append(line)
        if of_file:
            raise UserError(*self.yaml.problems)
        return Entries(self.entries, by_row)


def _broken(files: list[_Named]) -> dict[str, tuple[str, ...]]:
    return {named.name: tuple(named.yaml.problems) for named in files if named.yaml.problems}


def _folder(root: Path, folder: str, reader: Callable = read) -> list[_Named]:
    """Read each YAML file of a folder but hidden ones; a file's name without its ending is the name of what it says.

    Task files whose name starts with `_` are there to be included by others.
    """
    shown = "[!._]*" if reader is read_task else "[!.]*"
    paths = [path for ending in ("yaml", "yml") for path in sorted((root / folder).glob(f"{shown}.{ending}"))]
    files: dict[str, _Named] = {}
    for path in paths:
        named = _Named(path.stem, reader(path, root))
        alike = next((other for other in files.values() if other.name.lower() == path.stem.lower()), None)
        if not NAME.fullmatch(named.name):
            named.yaml.problem((), f"'{named.name}' cannot be a name; name the file with {NAME_RULE}")
        if alike:
            named.yaml.problem((), f"has the name of {alike.yaml.path}; give one of the two another")
        files.setdefault(named.name, named)
        if alike and alike.name == named.name:
            alike.yaml.problem((), f"has the name of {named.yaml.path}; give one of the two another")
    return list(files.values())


def _rows(root: Path, path: str, block: str, cls: type) -> _Rows:
    """Read a file whose one key, `block`, holds a mapping of names to entries."""
    if not (root / path).exists():
        raise UserError(f"{path}: there is no such file; write one with `{block}:` and below it the entries")
    file = read(root / path, root)
    if not file.value and file.problems:
        raise UserError(*file.problems)
    for key in file.value:
        if key != block:
            file.problem((key,), f"unknown key; {did_you_mean(key, [block])}")
    entries = file.value.get(block)
    if not isinstance(entries, dict):
        file.problem((block,), "must be a mapping of names to entries; write `<name>:` and its keys below it")
        raise UserError(*file.problems)
    lower: dict[str, str] = {}
    for name in entries:
        if not NAME.fullmatch(name):
            file.problem((block, name), f"cannot be a name; use {NAME_RULE}")
        if name.lower() in lower:
            file.problem((block, name), f"is the name of '{lower[name.lower()]}' but for its case; write another")
        lower.setdefault(name.lower(), name)
    return _Rows(block, file, {name: fill(cls, entry, (block, name), file, name=name)
                               for name, entry in entries.items()})  # fmt: skip


def _known(name: str, known: dict[str, Any], kind: str, keys: tuple, file: YamlFile) -> None:
    if name not in known:
        hint = did_you_mean(name, known)
        if kind == "task" and hint.startswith("known"):
            hint += f"; for a task of lm-evaluation-harness write a file with `task: {name}` and `stock: true`"
        file.problem(keys, f"there is no {kind} '{name}'; {hint}")


def _hardware(named: _Named, profiles: list[_Named]) -> Hardware | None:
    """One profile; where it has a `base`, that profile's keys hold for those it does not write itself."""
    said, chain = [dict(named.yaml.value)], [named.name]
    others = {other.name: other.yaml.value for other in profiles}
    while "base" in said[0]:
        base = said[0].pop("base")
        if not isinstance(base, str) or base not in others or base in chain:
            what = "leads back to this profile" if base in chain else "is no hardware profile"
            shown = base if isinstance(base, str) else "this"
            named.yaml.problem(("base",), f"'{shown}' {what}; {did_you_mean(shown, set(others) - set(chain))}")
            return None
        if read_wrong := next(other.yaml.problems for other in profiles if other.name == base):
            named.yaml.problem(("base",), f"'{base}' is wrong itself ({read_wrong[0]}); mend that first")
            return None
        chain.append(base)
        said.insert(0, dict(others[base]))
    whole = functools.reduce(bases.with_base, said)
    profile = fill(Hardware, whole, (), named.yaml, name=named.name) if whole else None
    if profile:
        rules.hardware(profile, named.yaml)
    return profile


def _task(named: _Named, datasets: dict[str, Any], root: Path) -> dict[str, Any] | None:
    """Check one task file: lm-evaluation-harness keys, and our `data`, `stock` and `finetune`.

    Files of the study's own folder are part of what the task is, by their content: `files_sha256`.
    """
    file, task = named.yaml, dict(named.yaml.value)
    if file.problems:
        return None
    if is_group(task):
        group = check_group(task, named.name, LM_EVAL_KEYS | OUR_TASK_KEYS, datasets, file)
        for keys, said in (((), group), *((("task", i), member) for i, member in enumerate(group["task"]))):
            if "finetune" in said:
                said["finetune"] = _finetuning(said["finetune"], (*keys, "finetune"), file)
        return group
    for key in task:
        if key not in LM_EVAL_KEYS | OUR_TASK_KEYS:
            file.problem((key,), f"unknown key; {did_you_mean(key, LM_EVAL_KEYS | OUR_TASK_KEYS)}")
    if mistyped(task, (), file):
        return None
    stock = task.get("stock", False)
    if not isinstance(stock, bool):
        file.problem(("stock",), f"must be true or false, not {stock!r}; write true for a task that lm-eval brings")
    from_hub = "data" not in task and "/" in str(task.get("dataset_path"))
    if from_hub:
        hub_task(task, file)
    for key in ("task",) if stock else NEEDED_TASK_KEYS:
        if task.get(key) is None and not (
            key == "data" and (from_hub or task_rows.in_files(task) or "custom_dataset" in task)
        ):
            file.problem((key,), "is missing; write it, or `stock: true` to name a task that lm-eval brings")
    if not stock and isinstance(task.get("task"), str) and task["task"] != named.name:
        file.problem(("task",), f"'{task['task']}' is not the file's name; write {named.name}, or rename the file")
    if "data" in task and isinstance(task["data"], str):
        _known(task["data"], datasets, "dataset", ("data",), file)
    elif task.get("data") is not None:
        file.problem(("data",), f"must be the name of a dataset, not {task['data']!r}; {did_you_mean('', datasets)}")
    if task.get("data") is None and task_rows.in_files(task) and not file.problems:
        try:
            task["files_sha256"] = task_rows.local_hashes(task, root, file.path)
        except UserError as error:
            file.problems += error.problems
    check_scoring(task, file)
    if "finetune" in task:
        task["finetune"] = _finetuning(task["finetune"], ("finetune",), file)
        if not task.get("training_split"):
            file.problem(("training_split",), "is missing, and fine-tuning needs it; name the split, e.g. `train`")
    return task


def _finetuning(given: Any, keys: Keys, file: YamlFile) -> dict[str, Any]:
    """The `finetune:` block of a task, or of a group or its member, for which it holds there."""
    block = fill_given(Finetune, given, keys, file)
    rules.finetuning(block, keys, file)
    return block


def _experiment(named: _Named, names: _Names) -> tuple[Experiment | None, dict[str, tuple[str, ...]]]:
    """Check one experiment: its own keys, every name in it, and what its parts say of each other.

    Returns it, None where it is wrong, and the names of each kind that it uses.
    """
    file = named.yaml
    if named.name.lower() in RESERVED_EXPERIMENTS:
        file.problem((), f"'{named.name}' is kept for a folder of results/; give the file another name")
    if not file.value:
        return None, {}
    parts = fill_fields(Experiment, file.value, (), file, hidden=("name",))
    for key, known, kind in (("models", names.models, "model"), ("hardware", names.hardware, "hardware profile"),
                             ("tasks", names.tasks, "task")):  # fmt: skip
        _check_names(parts.get(key, ()), known, kind, (key,), file)
    if "data" in parts:
        _check_names(parts["data"].corpus, names.datasets, "dataset", ("data", "corpus"), file)
    rules.experiment(parts, names.models, names.hardware, file)
    _check_vary(parts, names, file)
    _check_per_model(parts, file)
    contradictions.note(parts, names.models, names.datasets, names.tasks, file)
    used = {key: tuple(parts.get(key, ())) for key in ("models", "hardware", "tasks")}
    used["hardware"] = used["hardware"] or Experiment.hardware
    used["datasets"] = tuple(_datasets(parts, names))
    return Experiment(name=named.name, **parts) if not file.problems else None, used


def _datasets(parts: dict[str, Any], names: _Names) -> set[str]:
    """The names of an experiment's corpora, also of those that are varied, and of its tasks' data sets."""
    corpora = [parts["data"].corpus] if "data" in parts else []
    corpora += [corpus for corpus in parts.get("vary", {}).get("data.corpus", ()) if corpus]
    data = [(names.tasks.get(name) or {}).get("data") for name in parts.get("tasks", ())]
    return {name for corpus in corpora for name in corpus} | {name for name in data if isinstance(name, str)}


def _check_names(chosen: tuple[str, ...], known: dict[str, Any], kind: str, keys: tuple, file: YamlFile) -> None:
    before: set[str] = set()
    for i, name in enumerate(chosen):
        if name in before:
            file.problem((*keys, i), f"'{name}' is named twice; remove one of the two")
        else:
            _known(name, known, kind, (*keys, i), file)
        before.add(name)


def _check_per_model(parts: dict[str, Any], file: YamlFile) -> None:
    """Each entry is of one of the experiment's models, with keys of `train:` that are not varied."""
    for name, own in parts.get("per_model", {}).items():
        keys = ("per_model", name)
        _known(name, dict.fromkeys(parts.get("models", ())), "model of this experiment", keys, file)
        typed = fill_given(Train, own.train, (*keys, "train"), file)
        rules.values("train", typed, (*keys, "train"), file)
        own.train.update(typed)
        for key in own.train:
            if f"train.{key}" in parts.get("vary", {}):
                file.problem((*keys, "train", key), "is varied by this experiment too; remove one of the two")
        rules.seeds(own.seeds or (), (*keys, "seeds"), file)
        if own.seeds == ():
            file.problem((*keys, "seeds"), "is empty; name at least one")


def _check_vary(parts: dict[str, Any], names: _Names, file: YamlFile) -> None:
    """Each axis is `<block>.<key>` with a list of values that this key could have."""
    known = {f"{block}.{f.name}" for block, cls in VARIED.items() for f in fields(cls) if f.name != "name"}
    known -= {"finetune.num_fewshot"}  # of the scoring, so that training would be the same run
    for axis, values in parts.get("vary", {}).items():
        keys = ("vary", axis)
        block, _, key = axis.partition(".")
        if axis not in known:
            file.problem(keys, f"there is no such key to vary; {did_you_mean(axis, known)}")
        elif key in getattr(VARIED[block], "EXECUTION", ()):
            file.problem(keys, f"changes no result; write `{key}` in `{block}:` instead")
        elif block == "finetune" and "finetune" not in parts:
            file.problem(keys, "the experiment has no `finetune:` block; write one, or remove this axis")
        elif not values:
            file.problem(keys, "has no values; write a list such as [0.001, 0.002]")
        else:
            written = list(values)
            values[:] = [_varied(value, block, key, (*keys, i), file) for i, value in enumerate(values)]
            before = set()
            for i, value in enumerate(values):
                refused = value is None and written[i] is not None
                if value in before and not refused:
                    file.problem((*keys, i), f"{value} is there twice; remove one of the two")
                if axis == "data.corpus":
                    _check_names(value or (), names.datasets, "dataset", (*keys, i), file)
                before.add(value)


def _varied(value: Any, block: str, key: str, keys: tuple, file: YamlFile) -> Any:
    try:
        typed = convert(value, field_types(VARIED[block])[key], keys, file)
    except Mismatch:
        return None
    rules.value(block, key, typed, keys, file)
    return typed
