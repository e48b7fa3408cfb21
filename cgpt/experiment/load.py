"""Loads every YAML file of the project and names all at once whatever is wrong in them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cgpt import SHIPPED
from cgpt.bounds import Distinct, NotEmpty, field_types
from cgpt.data import task_rows
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import bases, checkpoint_rows, contradictions, rules
from cgpt.experiment.entries import Entered, Entries, Workflow
from cgpt.experiment.from_yaml import Mismatch, convert, fill, fill_fields, fill_given
from cgpt.experiment.written import Names, read_files, read_rows
from cgpt.files.layers import Layer, layers_of
from cgpt.files.yaml_file import Keys, YamlFile
from cgpt.hardware import Hardware
from cgpt.spec import SCRATCH, TOKENIZERS, Data, Dataset, Experiment, Finetune, Model, PublishedModel, Train
from cgpt.tasks.definition import check_group, check_scoring, hub_task, is_group, mistyped
from cgpt.tasks.keys import TASK_KEYS

RESERVED_EXPERIMENTS = ("runs", "reference", "bench", "cache", "coordinate_check")  # other folders of results/
T = TypeVar("T")
VARIED = {"model": Model, "data": Data, "train": Train, "finetune": Finetune}  # blocks that `vary` reaches into

NEEDED_TASK_KEYS = ("task", "data", "output_type", "doc_to_text", "doc_to_target")


def load_workflow(root: Path) -> Workflow:
    """Load workflows/ and hardware_profiles/ below `root` alone; raises one UserError that lists every problem found.

    Nothing is looked up in what comes with cgpt.
    """
    workflow = _read(root, Layer(root))
    workflow.refuse_broken()
    return workflow


def read_workflow(root: Path, declarations: Path | None = None) -> Workflow:
    """Load the study at `root` with what comes with cgpt under names that the study has not. A wrong entry of a file
    raises only once it is asked for.

    The study's files are those below `declarations`, by default those of `root` itself; paths in them are relative to
    `root`. Raises UserError where models.yaml or data.yaml has no entries to read.
    """
    return _read(root, layers_of(root, declarations))


def read_anywhere() -> Workflow:
    """The study in the working directory, as `read_workflow` reads it; where there is none, what comes with cgpt."""
    return read_workflow(Path.cwd() if Path("workflows").is_dir() else SHIPPED)


def _read(root: Path, layer: Layer) -> Workflow:
    if not (layer.root / "workflows").is_dir():
        raise UserError("workflows: there is no such folder here; run from the study's folder, or make one with "
                        "`cgpt init <folder>`")  # fmt: skip
    rows, data = read_rows(layer, "models"), read_rows(layer, "datasets")
    profiles, task_files, files = (read_files(layer, kind) for kind in ("hardware", "tasks", "experiments"))
    pins = checkpoint_rows.read_pins(layer)
    published = {name: row for name in rows if (row := _published(name, rows, pins, root))}
    models, absent = _models(rows, published, root)
    datasets = {name: _dataset(name, data, root) for name in data}
    hardware = {name: _hardware(name, profiles) for name in profiles}
    tasks = {name: _task(name, each.file, datasets, root) for name, each in task_files.items()}
    entered = Entered(models, datasets, tasks, hardware, published)
    experiments, named_parts = {}, {}
    for name in files:
        experiments[name], named_parts[name] = _experiment(name, files, entered)
    _refuse_rows(rows)
    _refuse_rows(data)
    of_kinds = {names.kind: names for names in (rows, data, task_files, profiles, files)}
    made: dict[str, Mapping[str, Any]] = {
        "models": models, "datasets": datasets, "tasks": tasks, "hardware": hardware, "experiments": experiments
    }  # fmt: skip
    entries = {kind: Entries(made[kind], {name: each.problems for name, each in names.items() if each.problems},
                             absent if kind == "models" else {})
               for kind, names in of_kinds.items()}  # fmt: skip
    return Workflow(**entries, published=published, root=root, named=named_parts,
                    shipped={kind: names.shipped for kind, names in of_kinds.items()})  # fmt: skip


def _refuse_rows(names: Names) -> None:
    """Raise UserError with all problems of the study's file where one of them is of no single row."""
    file = names.rows_of
    if file and any(len(keys) < 2 or keys[0] != names.kind for keys in file.problem_keys):
        raise UserError(*file.problems)


def _row(cls: type[T], name: str, rows: Names) -> T | None:
    written, whole = rows[name], rows.whole(name, bases.extended)
    if whole is None and written.value is not None:
        return None  # its base is wrong, which is noted
    return fill(cls, whole, written.keys, written.file, name=name)


def _published(name: str, rows: Names, pins: Mapping[str, str], root: Path) -> PublishedModel | None:
    """A row that names a checkpoint, with the commit that is pinned for it; None for one of a shape, or wrong."""
    written, whole = rows[name], rows.whole(name, bases.extended)
    if not isinstance(whole, dict) or checkpoint_rows.KEY not in whole:
        return None
    checkpoint_rows.note_shape(whole, written.value, written.keys, written.file)
    shapeless = {key: value for key, value in whole.items() if key not in checkpoint_rows.SHAPE}
    row = fill(PublishedModel, shapeless, written.keys, written.file, name=name)
    if row:
        checkpoint_rows.check(row, root, written.keys, written.file)
    return None if row is None or written.problems else checkpoint_rows.pinned(row, pins)


def _models(
    rows: Names, published: Mapping[str, PublishedModel], root: Path
) -> tuple[dict[str, Model | None], dict[str, tuple[str, ...]]]:
    """The model of each row, None where there is none, and why a checkpoint's is not here."""
    models: dict[str, Model | None] = {}
    absent = {}
    for name in rows:
        if name not in published:
            models[name] = None if rows[name].problems else _model(name, rows)
            continue
        try:
            models[name] = checkpoint_rows.model_of(published[name], root, rows[name].file.path)
        except UserError as error:
            models[name], absent[name] = None, error.problems
    return models, absent


def _model(name: str, rows: Names) -> Model | None:
    written, row = rows[name], _row(Model, name, rows)
    if row and (problem := rules.uneven_heads(row)):
        written.file.problem((*written.keys, "d_model"), problem)
    return None if written.problems else row


def _dataset(name: str, rows: Names, root: Path) -> Dataset | None:
    written, dataset = rows[name], _row(Dataset, name, rows)
    if dataset:
        rules.check_dataset(dataset, root, written.keys, written.file)
    return None if written.problems else dataset


def _hardware(name: str, profiles: Names) -> Hardware | None:
    """One profile; where it has a `base`, that profile's keys hold for those it does not write itself."""
    file = profiles[name].file
    whole = profiles.whole(name, bases.with_base)
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


def _experiment(name: str, files: Names, entered: Entered) -> tuple[Experiment | None, dict[str, tuple[str, ...]]]:
    """Check one experiment: its own keys, every name in it, and then what its settings say of each other.

    Returns it, None where it is wrong, and the names of each kind that it uses.
    """
    file, whole = files[name].file, files.whole(name, bases.extended_experiment)
    if name.lower() in RESERVED_EXPERIMENTS:
        file.problem((), f"'{name}' is kept for a folder of results/; give the file another name")
    if not whole:
        return None, {}
    parts = fill_fields(Experiment, whole, (), file, hidden=("name",))
    parts["vary"] = _axes(parts.get("vary", {}), file)
    used = _check_names(parts, entered, file)
    _note_missing(parts, entered, file)
    if file.problems:
        return None, used
    experiment = Experiment(name=name, **parts)
    contradictions.note(experiment, entered, file)
    return (None if file.problems else experiment), used


def _check_names(parts: Mapping[str, Any], entered: Entered, file: YamlFile) -> dict[str, tuple[str, ...]]:
    """Note each name of an experiment's parts that nobody has, also of varied corpora; returns the names by kind."""
    corpora: dict[Keys, tuple[str, ...]] = {("data", "corpus"): parts["data"].corpus} if parts.get("data") else {}
    corpora |= {("vary", "data.corpus", i): corpus for i, corpus in enumerate(parts["vary"].get("data.corpus", ()))}
    for keys, corpus in corpora.items():
        _check_known(corpus, entered.datasets, "data set", keys, file)
    used = {}
    for key, kind in (("models", "model"), ("hardware", "hardware profile"), ("tasks", "task")):
        used[key] = parts.get(key, getattr(Experiment, key, ()))
        _check_known(used[key], getattr(entered, key), kind, (key,), file)
    data = [(entered.tasks.get(name) or {}).get("data") for name in used["tasks"]]
    used["models"] += tuple(_check_checkpoints(parts, entered, file))
    used["datasets"] = (*itertools.chain(*corpora.values()), *(name for name in data if isinstance(name, str)))
    return used


def _check_checkpoints(parts: Mapping[str, Any], entered: Entered, file: YamlFile) -> list[str]:
    """Note each start of training and each tokenizer that is no row with a checkpoint; returns the rows' names."""
    starts: dict[Keys, str] = {("train", "start"): getattr(parts.get("train"), "start", SCRATCH)}
    starts |= {("per_model", model, "train", "start"): row.train.get("start", SCRATCH)
               for model, row in parts.get("per_model", {}).items()}  # fmt: skip
    tokenizers: dict[Keys, str] = {("data", "tokenizer"): getattr(parts.get("data"), "tokenizer", TOKENIZERS[0])}
    rows = []
    for axis, values, words in (("train.start", starts, (SCRATCH,)), ("data.tokenizer", tokenizers, TOKENIZERS)):
        varied = {("vary", axis, i): name for i, name in enumerate(parts["vary"].get(axis, ()))}
        for keys, name in ((keys, name) for keys, name in (values | varied).items() if name not in words):
            rows.append(name)
            if name in entered.models and name not in entered.published:
                file.problem(keys, f"'{name}' is a shape without weights; name a row with a `checkpoint:`")
            elif name not in entered.published:
                file.problem(keys, f"'{name}' is no choice; {did_you_mean(name, [*words, *entered.published])}")
    return rows


def _note_missing(parts: Mapping[str, Any], entered: Entered, file: YamlFile) -> None:
    """Note blocks that are missing though a model is pretrained."""
    trained = [name for name in parts.get("models", ()) if entered.models.get(name) and name not in entered.published]
    for key in ("data", "train") if trained else ():
        if parts.get(key) is None and not any(keys[:1] == (key,) for keys in file.problem_keys):
            file.problem((key,), f"is missing, and {trained[0]} is pretrained; write `{key}: <block>`")


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
