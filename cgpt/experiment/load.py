"""Loads every YAML file of the project and names all at once whatever is wrong in them."""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from cgpt.bounds import Distinct, NotEmpty, field_types
from cgpt.data import task_rows
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import bases, contradictions, rules
from cgpt.experiment.entries import Entered, Entries, Workflow
from cgpt.experiment.from_yaml import Mismatch, convert, fill, fill_fields, fill_given
from cgpt.files.yaml_file import Keys, YamlFile, read
from cgpt.hardware import Hardware
from cgpt.spec import Data, Dataset, Experiment, Finetune, Model, Train
from cgpt.tasks.definition import check_group, check_scoring, hub_task, is_group, mistyped, read_task
from cgpt.tasks.keys import TASK_KEYS

RESERVED_EXPERIMENTS = ("runs", "reference", "bench", "cache", "coordinate_check")  # other folders of results/
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # names become parts of paths and of run ids
NAME_RULE = "at most 64 letters, digits, '.', '_' and '-', a letter or digit first"
VARIED = {"model": Model, "data": Data, "train": Train, "finetune": Finetune}  # blocks that `vary` reaches into

NEEDED_TASK_KEYS = ("task", "data", "output_type", "doc_to_text", "doc_to_target")


def load_workflow(root: Path) -> Workflow:
    """Load workflows/ and hardware_profiles/ below `root`; raises one UserError that lists every problem found."""
    workflow = read_workflow(root)
    workflow.refuse_broken()
    return workflow


def read_workflow(root: Path, declarations: Path | None = None) -> Workflow:
    """Load as `load_workflow` does, where a wrong entry of a file raises only once it is asked for.

    The files are those below `declarations`, by default those of `root` itself; paths in them are relative to `root`.
    Raises UserError where models.yaml or data.yaml has no entries to read.
    """
    folder = declarations or root
    if not (folder / "workflows").is_dir():
        raise UserError("workflows: there is no such folder here; run from the project's folder")
    models = _rows(folder, "workflows/models.yaml", "models", Model)
    for row in filter(None, models.entries.values()):
        if problem := rules.uneven_heads(row):
            models.yaml.problem(("models", row.name, "d_model"), problem)
    datasets = _rows(folder, "workflows/data.yaml", "datasets", Dataset)
    for dataset in filter(None, datasets.entries.values()):
        rules.check_dataset(dataset, root, ("datasets", dataset.name), datasets.yaml)
    profiles = _folder(folder, "hardware_profiles")
    hardware = {name: _hardware(name, profiles) for name in profiles}
    task_files = _folder(folder, "workflows/tasks", read_task)
    tasks = {name: _task(name, file, datasets.entries, root) for name, file in task_files.items()}
    entered = Entered(models.right(), datasets.right(), tasks, hardware)
    experiment_files, named_parts, experiments = _folder(folder, "workflows/experiments"), {}, {}
    for name, file in experiment_files.items():
        experiments[name], named_parts[name] = _experiment(name, file, entered)
    return Workflow(
        models.checked(), datasets.checked(), Entries(tasks, _broken(task_files)),
        Entries(hardware, _broken(profiles)), Entries(experiments, _broken(experiment_files)), named_parts,
    )  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    block: str
    yaml: YamlFile
    entries: dict[str, Any]

    def right(self) -> dict[str, Any]:
        """The rows by name, None for one that is wrong."""
        wrong = {str(keys[1]) for keys in self.yaml.problem_keys if keys[:1] == (self.block,) and len(keys) > 1}
        return {name: None if name in wrong else entry for name, entry in self.entries.items()}

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


def _broken(files: Mapping[str, YamlFile]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(file.problems) for name, file in files.items() if file.problems}


def _folder(root: Path, folder: str, reader: Callable = read) -> dict[str, YamlFile]:
    """Each YAML file of a folder but hidden ones, by its name without its ending, which is that of what it says.

    Task files whose name starts with `_` are there to be included by others.
    """
    shown = "[!._]*" if reader is read_task else "[!.]*"
    paths = [path for ending in ("yaml", "yml") for path in sorted((root / folder).glob(f"{shown}.{ending}"))]
    files: dict[str, YamlFile] = {}
    for path in paths:
        file = reader(path, root)
        alike = next((other for name, other in files.items() if name.lower() == path.stem.lower()), None)
        if not NAME.fullmatch(path.stem):
            file.problem((), f"'{path.stem}' cannot be a name; name the file with {NAME_RULE}")
        if alike:
            file.problem((), f"has the name of {alike.path}; give one of the two another")
            if alike is files.get(path.stem):
                alike.problem((), f"has the name of {file.path}; give one of the two another")
        files.setdefault(path.stem, file)
    return files


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


def _hardware(name: str, profiles: Mapping[str, YamlFile]) -> Hardware | None:
    """One profile; where it has a `base`, that profile's keys hold for those it does not write itself."""
    file = profiles[name]
    layers, chain = [dict(file.value)], [name]
    while "base" in layers[0]:
        base = layers[0].pop("base")
        if not isinstance(base, str) or base not in profiles or base in chain:
            what = "leads back to this profile" if base in chain else "is no hardware profile"
            known = did_you_mean(base if isinstance(base, str) else "", set(profiles) - set(chain))
            file.problem(("base",), f"{base!r} {what}; {known}")
            return None
        if profiles[base].problems:
            file.problem(("base",), f"'{base}' is wrong itself ({profiles[base].problems[0]}); mend that first")
            return None
        chain.append(base)
        layers.insert(0, dict(profiles[base].value))
    whole = functools.reduce(bases.with_base, layers)
    profile = fill(Hardware, whole, (), file, name=name) if whole else None
    if profile:
        rules.check_hardware(profile, file)
    return None if file.problems else profile


def _task(name: str, file: YamlFile, datasets: dict[str, Any], root: Path) -> dict[str, Any] | None:
    """Check one task file: lm-evaluation-harness keys, and our `data`, `stock` and `finetune`."""
    if file.problems:
        return None
    task = dict(file.value)
    if is_group(task):
        group = check_group(task, name, TASK_KEYS, datasets, file)
        for keys, entry in (((), group), *((("task", i), member) for i, member in enumerate(group["task"]))):
            if "finetune" in entry:
                entry["finetune"] = fill_given(Finetune, entry["finetune"], (*keys, "finetune"), file)
        return group
    for key in task:
        if key not in TASK_KEYS:
            file.problem((key,), f"unknown key; {did_you_mean(key, TASK_KEYS)}")
    if mistyped(task, (), file):
        return None
    if not isinstance(task.get("stock", False), bool):
        file.problem(("stock",), f"must be true or false, not {task['stock']!r}; write true for a task that lm-eval "
                     "brings")  # fmt: skip
    elif not task.get("stock") and isinstance(task.get("task"), str) and task["task"] != name:
        file.problem(("task",), f"'{task['task']}' is not the file's name; write {name}, or rename the file")
    _check_data(task, datasets, root, file)
    check_scoring(task, (), file)
    if "finetune" in task:
        task["finetune"] = fill_given(Finetune, task["finetune"], ("finetune",), file)
        if not task.get("training_split"):
            file.problem(("training_split",), "is missing, and fine-tuning needs it; name the split, e.g. `train`")
    return task


def _check_data(task: dict[str, Any], datasets: dict[str, Any], root: Path, file: YamlFile) -> None:
    """Check where a task's documents come from, and that it has the keys it needs.

    Files of the study's own folder are part of what the task is, by their content: they are added as `files_sha256`.
    """
    from_hub = "data" not in task and "/" in str(task.get("dataset_path"))
    if from_hub:
        hub_task(task, file)
    without_data = from_hub or task_rows.in_files(task) or "custom_dataset" in task
    for key in ("task",) if task.get("stock") else NEEDED_TASK_KEYS:
        if task.get(key) is None and not (key == "data" and without_data):
            file.problem((key,), "is missing; write it, or `stock: true` to name a task that lm-eval brings")
    name = task.get("data")
    if isinstance(name, str) and name not in datasets:
        file.problem(("data",), f"there is no data set '{name}'; {did_you_mean(name, datasets)}")
    elif name is not None and not isinstance(name, str):
        file.problem(("data",), f"must be the name of a data set, not {name!r}; {did_you_mean('', datasets)}")
    if name is None and task_rows.in_files(task) and not file.problems:
        try:
            task["files_sha256"] = task_rows.local_hashes(task, root, file.path)
        except UserError as error:
            file.problems += error.problems


def _experiment(name: str, file: YamlFile, entered: Entered) -> tuple[Experiment | None, dict[str, tuple[str, ...]]]:
    """Check one experiment: its own keys, every name in it, and then what its settings say of each other.

    Returns it, None where it is wrong, and the names of each kind that it uses.
    """
    if name.lower() in RESERVED_EXPERIMENTS:
        file.problem((), f"'{name}' is kept for a folder of results/; give the file another name")
    if not file.value:
        return None, {}
    parts = fill_fields(Experiment, file.value, (), file, hidden=("name",))
    parts["vary"] = _axes(parts.get("vary", {}), file)
    used = _check_names(parts, entered, file)
    if file.problems:
        return None, used
    experiment = Experiment(name=name, **parts)
    contradictions.note(experiment, entered, file)
    return (None if file.problems else experiment), used


def _check_names(parts: Mapping[str, Any], entered: Entered, file: YamlFile) -> dict[str, tuple[str, ...]]:
    """Note each name of an experiment's parts that nobody has, also of varied corpora; returns the names by kind."""
    corpora: dict[Keys, tuple[str, ...]] = {("data", "corpus"): parts["data"].corpus} if "data" in parts else {}
    corpora |= {("vary", "data.corpus", i): corpus for i, corpus in enumerate(parts["vary"].get("data.corpus", ()))}
    for keys, corpus in corpora.items():
        _check_known(corpus, entered.datasets, "data set", keys, file)
    used = {}
    for key, kind in (("models", "model"), ("hardware", "hardware profile"), ("tasks", "task")):
        used[key] = parts.get(key, getattr(Experiment, key, ()))
        _check_known(used[key], getattr(entered, key), kind, (key,), file)
    data = [(entered.tasks.get(name) or {}).get("data") for name in used["tasks"]]
    used["datasets"] = (*itertools.chain(*corpora.values()), *(name for name in data if isinstance(name, str)))
    return used


def _check_known(names: Sequence[str], known: Mapping[str, Any], kind: str, keys: Keys, file: YamlFile) -> None:
    for i, name in enumerate(names):
        if name not in known:
            hint = did_you_mean(name, known)
            if kind == "task" and hint.startswith("known"):
                hint += f"; for a task of lm-evaluation-harness write a file with `task: {name}` and `stock: true`"
            file.problem((*keys, i), f"there is no {kind} '{name}'; {hint}")


def _axes(vary: Mapping[str, Sequence[Any]], file: YamlFile) -> dict[str, tuple[Any, ...]]:
    """The axes of `vary` that are `<block>.<key>` with a list of values that this key can have; notes the others."""
    known = {f"{block}.{f.name}" for block, cls in VARIED.items() for f in fields(cls) if f.name != "name"}
    known -= {"finetune.num_fewshot"}  # of the scoring, so that training would be the same run
    axes = {}
    for axis, values in vary.items():
        block, _, key = axis.partition(".")
        if axis not in known:
            file.problem(("vary", axis), f"there is no such key to vary; {did_you_mean(axis, known)}")
        elif key in getattr(VARIED[block], "EXECUTION", ()):
            file.problem(("vary", axis), f"changes no result; write `{key}` in `{block}:` instead")
        else:
            item = field_types(VARIED[block])[key]
            hint = Annotated[tuple[item, ...], NotEmpty("write a list such as [0.001, 0.002]"), Distinct()]  # type: ignore
            try:
                axes[axis] = convert(list(values), hint, ("vary", axis), file)
            except Mismatch:
                pass
    return axes
