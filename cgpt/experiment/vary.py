"""The points of an experiment's `vary`, with what it says of single models, as blocks that hold values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cgpt.errors import UserError
from cgpt.experiment import rules
from cgpt.experiment.rules import LENGTHS
from cgpt.files.yaml_file import YamlFile
from cgpt.recipe import flops, parametrization
from cgpt.spec import Data, Experiment, Finetune, Model, PerModel, Train


@dataclass(frozen=True)
class Variant:
    """One point of the axes in `vary`: the blocks with that point's values, and its label in run ids."""

    model: Model
    data: Data
    train: Train
    finetune: Finetune | None
    seeds: tuple[int, ...]
    point: tuple[tuple[str, Any], ...]

    def label(self, *blocks: str) -> tuple[str, ...]:
        """`lr=0.002` for each axis of the named blocks."""
        return tuple(f"{axis.partition('.')[2]}={_plain(value)}" for axis, value in self.point
                     if axis.partition(".")[0] in blocks)  # fmt: skip


def variants(experiment: Experiment, model: Model) -> Iterator[Variant]:
    """The model with each point of `vary`; a point of a finetune axis changes no pretraining."""
    own = experiment.per_model.get(model.name, PerModel())
    axes = [[(axis, value) for value in values] for axis, values in experiment.vary.items()]
    for point in itertools.product(*axes):
        changed: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "train": dict(own.train), "finetune": {}}
        for axis, value in point:
            block, _, key = axis.partition(".")
            changed[block][key] = value
        data = replace(experiment.data, **changed["data"])
        row = replace(model, **changed["model"])
        row = replace(row, vocab_size=row.vocab_size or data.vocab_size, d_ffn=flops.ffn_width(row),
                      init_std=parametrization.base_init_std(row))  # fmt: skip
        train = replace(experiment.train, **changed["train"])
        tuning = replace(experiment.finetune, **changed["finetune"]) if experiment.finetune else None
        variant = Variant(row, data, train, tuning, own.seeds or experiment.seeds, point)
        _refuse_contradiction(variant, experiment.name)
        yield variant


def _refuse_contradiction(variant: Variant, experiment: str) -> None:
    """What the loader proves of the plain blocks must hold at each point of `vary` and for each model's keys too."""
    row, train = variant.model, variant.train
    at = ", ".join(f"{axis}={_shown(value)}" for axis, value in variant.point)
    where = f"workflows/experiments/{experiment}.yaml: " + (f"vary: at {at}" if at else f"per_model: {row.name}")
    problems: list[str] = []
    if row.d_model % row.n_head:
        problems.append(f"d_model {row.d_model} is not divisible by n_head {row.n_head}; vary them apart")
    if train.micro_batch_size and train.batch_size % train.micro_batch_size:
        problems.append(f"micro_batch_size {train.micro_batch_size} does not divide batch_size {train.batch_size}; "
                        "choose values that do")  # fmt: skip
    lengths = [f"`{key}`" for key in LENGTHS if getattr(train, key) is not None]
    if not lengths:
        problems.append("leaves no length; write one of " + ", ".join(f"`{key}`" for key in LENGTHS))
    elif len(lengths) > 1:
        problems.append(f"has {' and '.join(lengths)}; write one of them")
    if row.vocab_size != variant.data.vocab_size:
        problems.append(f"model '{row.name}' has vocab_size {row.vocab_size}, but data.vocab_size is "
                        f"{variant.data.vocab_size}; make them equal")  # fmt: skip
    problems += _without_effect(variant)
    if not problems:
        whole = YamlFile("")
        rules.corpora(variant.data, whole)
        rules.training(train, whole)
        rules.values("model", vars(row), ("model",), whole)
        if variant.finetune:
            rules.finetuning(vars(variant.finetune), ("finetune",), whole)
        problems = [line.removeprefix(": ") for line in whole.problems]
    if problems:
        raise UserError(*(f"{where}: {problem}" for problem in problems))


def _without_effect(variant: Variant) -> list[str]:
    """Axes of `vary` that change nothing at this point, where runs would differ in their labels alone."""
    axes = {axis for axis, _ in variant.point}
    muted = [axis for axis in axes if axis.startswith("model.mup_") and variant.model.parametrization != "mup"]
    problems = [f"{axis} has no effect on parametrization {variant.model.parametrization}; vary it under mup alone"
                for axis in sorted(muted)]  # fmt: skip
    if "train.decay_fraction" in axes and variant.train.schedule != "wsd":
        problems.append(f"train.decay_fraction has no effect on schedule {variant.train.schedule}; vary it under wsd "
                        "alone")  # fmt: skip
    if "train.warmup_fraction" in axes and variant.train.warmup_tokens is not None:
        problems.append("train.warmup_fraction has no effect beside warmup_tokens; leave one of them out")
    return problems


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _plain(value: Any) -> str:
    """A value as part of a file name."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    text = "+".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in text)
