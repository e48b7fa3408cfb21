"""The settings of an experiment: each point of its `vary` with what it says of single models, as complete blocks."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cgpt.recipe import flops, parametrization
from cgpt.recipe.schedule import resolve_length
from cgpt.spec import LENGTHS, Data, Experiment, Finetune, Model, PerModel, Train


@dataclass(frozen=True)
class Setting:
    """One setting: the blocks with a point's values, complete, so that nothing in them is left to a default.

    `lengths` names the keys that set the length of training; `cgpt.experiment.contradictions` proves that it is one.
    """

    model: Model
    data: Data
    train: Train
    finetune: Finetune | None
    seeds: tuple[int, ...]
    point: tuple[tuple[str, Any], ...]
    lengths: tuple[str, ...]

    def label(self, *blocks: str) -> tuple[str, ...]:
        """`lr=0.002` for each axis of the named blocks."""
        return tuple(f"{axis.partition('.')[2]}={_plain(value)}" for axis, value in self.point
                     if axis.partition(".")[0] in blocks)  # fmt: skip


def make_settings(experiment: Experiment, model: Model) -> Iterator[Setting]:
    """The model at each point of `vary`; a point of a finetune axis changes no pretraining."""
    of_model = experiment.per_model.get(model.name, PerModel())
    axes = [[(axis, value) for value in values] for axis, values in experiment.vary.items()]
    for point in itertools.product(*axes):
        changed: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "train": dict(of_model.train), "finetune": {}}
        for axis, value in point:
            block, _, key = axis.partition(".")
            changed[block][key] = value
        data = replace(experiment.data, **changed["data"])
        row = replace(model, **changed["model"])
        row = replace(row, vocab_size=row.vocab_size or data.vocab_size, d_ffn=flops.ffn_width(row),
                      init_std=parametrization.base_init_std(row))  # fmt: skip
        train = replace(experiment.train, **changed["train"])
        lengths = tuple(key for key in LENGTHS if getattr(train, key) is not None)
        tuning = replace(experiment.finetune, **changed["finetune"]) if experiment.finetune else None
        seeds = of_model.seeds or experiment.seeds
        yield Setting(row, data, resolve_length(train, row), tuning, seeds, point, lengths)


def _plain(value: Any) -> str:
    """A value as part of a file name."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    text = "+".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in text)
