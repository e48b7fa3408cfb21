"""What the parts of one experiment say against each other: lengths, schedules, and laws that its runs cannot decide."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from cgpt.check import LENGTHS
from cgpt.spec import PerModel, Train
from cgpt.yamlfile import Keys, YamlFile

LEAST_RATES = 3  # learning rates through which a parabola goes
LEAST_SIZES = 4  # sizes that a budget of FLOPs needs for one
SIZE_AXES = ("model.n_layer", "model.d_model", "model.d_ffn")


def note(parts: Mapping[str, Any], file: YamlFile) -> None:
    """Note every contradiction of an experiment's `train:`, `per_model:`, `vary:` and `fit:`, where these are there."""
    if "train" in parts:
        _lengths(parts["train"], parts.get("per_model", {}), parts.get("vary", {}), file)
        _decay(parts, file)
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
