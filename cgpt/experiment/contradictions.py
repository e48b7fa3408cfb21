"""What the parts of one experiment say against each other: lengths, schedules, and laws that its runs cannot decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import prod
from typing import Any

from cgpt.experiment.rules import LENGTHS
from cgpt.files.yaml_file import Keys, YamlFile
from cgpt.spec import Dataset, Model, PerModel, Train

MOST_RUNS = 100_000
LEAST_RATES = 3  # learning rates through which a parabola goes
LEAST_SIZES = 4  # sizes that a budget of FLOPs needs for one
SIZE_AXES = ("model.n_layer", "model.d_model", "model.d_ffn")


def note(
    parts: Mapping[str, Any],
    models: Mapping[str, Model | None],
    datasets: Mapping[str, Dataset | None],
    tasks: Mapping[str, Mapping[str, Any] | None],
    file: YamlFile,
) -> None:
    """Note every contradiction of an experiment's blocks with each other, with its models, data sets and tasks."""
    if "train" in parts:
        _lengths(parts["train"], parts.get("per_model", {}), parts.get("vary", {}), file)
        _decay(parts, file)
        _warmup(parts, file)
    _validation(parts, datasets, file)
    _parametrization(parts, models, file)
    _finetuning(parts, tasks, file)
    _count(parts, file)
    _laws(parts, file)


def _lengths(train: Train, per_model: Mapping[str, PerModel], vary: Mapping[str, Any], file: YamlFile) -> None:
    """The length that the train block sets is the one that a model has of its own, and that is varied."""
    given = [key for key in LENGTHS if getattr(train, key) is not None]
    if len(given) != 1:
        return
    (key,) = given
    for name, own in per_model.items():
        second = [other for other in LENGTHS if other != key and own.train.get(other) is not None]
        if second and own.train.get(key, getattr(train, key)) is not None:
            file.problem(("per_model", name, "train", second[0]), f"is a second length beside `train.{key}`; write the "
                         f"model's length as `{key}`")  # fmt: skip
    for other in LENGTHS:
        if other != key and f"train.{other}" in vary:
            file.problem(("vary", f"train.{other}"), f"is a second length beside `train.{key}`; vary `train.{key}`, or "
                         f"write `{other}` in `train:` in its place")  # fmt: skip


def _decay(parts: Mapping[str, Any], file: YamlFile) -> None:
    """`decay_fraction` is given only where some run of it has schedule wsd."""
    train, vary, per_model = parts["train"], parts.get("vary", {}), parts.get("per_model", {})

    def schedules(model: str) -> set[str]:
        own = per_model.get(model, PerModel()).train.get("schedule")
        return {own} if own else set(vary.get("train.schedule", [train.schedule]))

    every = {schedule for model in parts.get("models", ()) for schedule in schedules(model)}
    said: list[tuple[Keys, set[str]]] = [
        (("train", "decay_fraction"), every),
        (("vary", "train.decay_fraction"), every),
    ]
    said += [(("per_model", model, "train", "decay_fraction"), schedules(model)) for model in per_model]
    for keys, used in said:
        if keys in file.lines and used and "wsd" not in used:
            file.problem(keys, f"is of schedule wsd, and the schedule is {' or '.join(sorted(used))}; write `schedule: "
                         "wsd`, or leave it out")  # fmt: skip


def _warmup(parts: Mapping[str, Any], file: YamlFile) -> None:
    """`warmup_fraction` is given only where no `warmup_tokens` stands in its place, in any block."""
    vary, per_model = parts.get("vary", {}), parts.get("per_model", {})

    def by_tokens(model: str) -> bool:
        own = per_model.get(model, PerModel()).train
        if "train.warmup_tokens" in vary:
            return None not in vary["train.warmup_tokens"]
        return own.get("warmup_tokens", parts["train"].warmup_tokens) is not None

    models = parts.get("models", ())
    said: list[tuple[Keys, bool]] = [
        (("train", "warmup_fraction"), any(map(by_tokens, models))),
        (("vary", "train.warmup_fraction"), any(map(by_tokens, models))),
    ]
    said += [(("per_model", model, "train", "warmup_fraction"), by_tokens(model)) for model in per_model]
    for keys, beside in said:
        if keys in file.lines and beside:
            file.problem(keys, "stands beside `warmup_tokens`, which holds instead; leave one of the two out")


def _validation(parts: Mapping[str, Any], datasets: Mapping[str, Dataset | None], file: YamlFile) -> None:
    """`validation_fraction` is given only where some data set of a corpus has no validation file of its own."""
    corpora = [*parts.get("vary", {}).get("data.corpus", []), *([parts["data"].corpus] if "data" in parts else [])]
    named = [datasets.get(name) for corpus in corpora for name in corpus or ()]
    if not named or not all(dataset and _has_validation(dataset) for dataset in named):
        return
    for keys in (("data", "validation_fraction"), ("vary", "data.validation_fraction")):
        if keys in file.lines:
            file.problem(
                keys, "is of no use: every data set of the corpus has a validation file of its own; leave it out"
            )


def _has_validation(dataset: Dataset) -> bool:
    splits = [part.split for part in dataset.files] + list(dataset.hub.splits if dataset.hub else ())
    return "validation" in splits


def _parametrization(parts: Mapping[str, Any], models: Mapping[str, Model | None], file: YamlFile) -> None:
    """What a model says of muP is used by some run of it."""
    for i, name in enumerate(parts.get("models", ())):
        row = models.get(name)
        if row is None or "mup" in parts.get("vary", {}).get("model.parametrization", [row.parametrization]):
            continue
        said = [f.name for f in fields(Model) if f.name.startswith("mup_") and getattr(row, f.name) != f.default]
        if said:
            file.problem(("models", i), f"'{name}' has {said[0]}, and no run of it is of parametrization mup; write "
                         f"`parametrization: mup` in its row, or leave {said[0]} out there")  # fmt: skip


def _finetuning(parts: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any] | None], file: YamlFile) -> None:
    """Some task is fine-tuned with an experiment's `finetune:` block, and none overrules what the experiment varies."""
    if not parts.get("finetune"):
        return
    named = {name: tasks.get(name) for task in parts.get("tasks", ()) for name in _with_members(task, tasks)}
    if None in named.values():
        return  # a task is wrong or unknown, which is said already
    own = {name: task["finetune"] for name, task in named.items() if task and "finetune" in task}
    if not own:
        file.problem(("finetune",), "is of no use: no task of this experiment has a `finetune:` block; write one in a "
                     "task's file, or leave this out")  # fmt: skip
    for axis in parts.get("vary", {}):
        block, _, key = axis.partition(".")
        for name, settings in own.items():
            if block == "finetune" and key in settings:
                file.problem(("vary", axis), f"task '{name}' sets {key} itself, which holds instead; leave it out "
                             "there, or do not vary it")  # fmt: skip


def _with_members(name: str, tasks: Mapping[str, Mapping[str, Any] | None]) -> set[str]:
    """The name, and where it is a group's those of its members that have a file, and of theirs."""
    names, waiting = {name}, [name]
    while waiting:
        members = (tasks.get(waiting.pop()) or {}).get("task")
        for member in members if isinstance(members, list) else []:
            inner = member if isinstance(member, str) else member.get("task") or member.get("group")
            if inner in tasks and inner not in names:
                names.add(inner)
                waiting.append(inner)
    return names


def _count(parts: Mapping[str, Any], file: YamlFile) -> None:
    """The runs are not more than anyone has planned for."""
    per_model = parts.get("per_model", {})
    n_seeds = max([len(parts.get("seeds", (0,))), *(len(own.seeds or ()) for own in per_model.values())])
    n_runs = prod(map(len, parts.get("vary", {}).values())) * len(parts.get("models", ())) * n_seeds
    n_runs *= len(parts.get("hardware", (0,)))
    if n_runs > MOST_RUNS:
        file.problem(("vary",), f"asks for {n_runs:,} runs; name fewer values, models or seeds, at most {MOST_RUNS:,}")


def _laws(parts: Mapping[str, Any], file: YamlFile) -> None:
    """Each law once, and none that the experiment's runs are too few for, whatever they turn out to be."""
    vary, models, laws = parts.get("vary", {}), parts.get("models", ()), parts.get("fit", ())
    for i, law in enumerate(laws):
        if law in laws[:i]:
            file.problem(("fit", i), f"'{law}' is named twice; remove one of the two")
        elif law == "learning_rate" and (n_rates := _n_rates(parts)) < LEAST_RATES:
            file.problem(("fit", i), f"learning_rate needs {LEAST_RATES} rates or more, and there {_are(n_rates)}; "
                         "write e.g. `vary: {train.lr: [0.004, 0.008, 0.016]}`")  # fmt: skip
        elif law == "isoflop":
            n_sizes = len(models) * prod(len(set(vary.get(axis, [None]))) for axis in SIZE_AXES)
            if n_sizes < LEAST_SIZES:
                file.problem(("fit", i), f"isoflop needs {LEAST_SIZES} sizes or more at each `train.flops`, and there "
                             f"{_are(n_sizes)}; name more `models`")  # fmt: skip


def _n_rates(parts: Mapping[str, Any]) -> int:
    """Different learning rates of all runs."""
    if "train.lr" in parts.get("vary", {}):
        return len(set(parts["vary"]["train.lr"]))
    own = parts.get("per_model", {})
    standing = parts["train"].lr if "train" in parts else None
    return len({own.get(model, PerModel()).train.get("lr", standing) for model in parts.get("models", ())})


def _are(count: int) -> str:
    return f"is {count}" if count == 1 else f"are {count}"
