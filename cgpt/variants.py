"""The points of an experiment's `vary`, with what it says of single models, as blocks that hold values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cgpt import flops, parametrization
from cgpt.check import LENGTHS
from cgpt.errors import UserError
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
    """What the loader proves of the plain blocks must hold at each point of `vary` too."""
    row, train = variant.model, variant.train
    at = ", ".join(f"{axis}={value}" for axis, value in variant.point)
    where = f"workflows/experiments/{experiment}.yaml: " + (f"vary: at {at}" if at else f"per_model: {row.name}")
    if row.d_model % row.n_head:
        raise UserError(f"{where}: d_model {row.d_model} is not divisible by n_head {row.n_head}; vary them apart")
    if train.micro_batch_size and train.batch_size % train.micro_batch_size:
        raise UserError(f"{where}: micro_batch_size {train.micro_batch_size} does not divide batch_size "
                        f"{train.batch_size}; choose values that do")  # fmt: skip
    if all(getattr(train, key) is None for key in LENGTHS):
        raise UserError(f"{where}: leaves no length; write one of " + ", ".join(f"`{key}`" for key in LENGTHS))
    if row.vocab_size != variant.data.vocab_size:
        raise UserError(f"{where}: model '{row.name}' has vocab_size {row.vocab_size}, but data.vocab_size is "
                        f"{variant.data.vocab_size}; make them equal")  # fmt: skip


def _plain(value: Any) -> str:
    """A value as part of a file name."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    text = "+".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in text)
