"""The settings of an experiment: each point of its `vary` with what it says of single models, as complete blocks."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cgpt.recipe import flops, parametrization
from cgpt.recipe.schedule import resolve_length
from cgpt.spec import LENGTHS, TOKENIZERS, Data, Experiment, Finetune, Model, PerModel, Train

NO_MODELS: Mapping[str, Model | None] = {}


@dataclass(frozen=True)
class ScoredSetting:
    """How a model is tuned and scored at a point: all there is of one whose weights are there already."""

    model: Model
    finetune: Finetune | None
    seeds: tuple[int, ...]
    point: tuple[tuple[str, Any], ...]

    def label(self, *blocks: str) -> tuple[str, ...]:
        """`lr=0.002` for each axis of the named blocks."""
        return tuple(f"{axis.partition('.')[2]}={_plain(value)}" for axis, value in self.point
                     if axis.partition(".")[0] in blocks)  # fmt: skip


@dataclass(frozen=True)
class Setting(ScoredSetting):
    """One setting: the blocks with a point's values, complete, so that nothing in them is left to a default.

    `lengths` names the keys that set the length of training; `cgpt.experiment.contradictions` proves that it is one.
    """

    data: Data
    train: Train
    lengths: tuple[str, ...]


def make_settings(
    experiment: Experiment, model: Model, models: Mapping[str, Model | None] = NO_MODELS
) -> Iterator[Setting]:
    """The model, which is pretrained, at each point of `vary`; a point of a finetune axis changes no pretraining.

    `models` has those whose tokenizer the experiment may name.
    """
    assert experiment.data is not None and experiment.train is not None, "`cgpt.experiment.load` asks for both"
    of_model = experiment.per_model.get(model.name, PerModel())
    for point in _points(experiment, ("model", "data", "train", "finetune")):
        changed: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "train": dict(of_model.train), "finetune": {}}
        for axis, value in point:
            block, _, key = axis.partition(".")
            changed[block][key] = value
        data = replace(experiment.data, **changed["data"])
        if data.tokenizer not in TOKENIZERS and (whose := models.get(data.tokenizer)):
            data = replace(data, vocab_size=flops.vocabulary(whose))
        row = replace(model, **changed["model"])
        row = complete(replace(row, vocab_size=row.vocab_size or data.vocab_size))
        train = replace(experiment.train, **changed["train"])
        lengths = tuple(key for key in LENGTHS if getattr(train, key) is not None)
        tuning = replace(experiment.finetune, **changed["finetune"]) if experiment.finetune else None
        seeds = of_model.seeds or experiment.seeds
        yield Setting(row, tuning, seeds, point, data, resolve_length(train, row), lengths)


def make_scored_settings(experiment: Experiment, model: Model) -> Iterator[ScoredSetting]:
    """A model whose weights are there at each point of `vary` that touches it: those of its fine-tuning."""
    seeds = experiment.per_model.get(model.name, PerModel()).seeds or experiment.seeds
    for point in _points(experiment, ("finetune",)):
        changed = {axis.partition(".")[2]: value for axis, value in point}
        tuning = replace(experiment.finetune, **changed) if experiment.finetune else None
        yield ScoredSetting(complete(model), tuning, seeds, point)


def complete(model: Model) -> Model:
    """The model with the values that its row leaves to others, but for the vocabulary."""
    return replace(model, d_ffn=flops.ffn_width(model), init_std=parametrization.base_init_std(model))


def _points(experiment: Experiment, blocks: tuple[str, ...]) -> Iterator[tuple[tuple[str, Any], ...]]:
    """The points of `vary` along the axes of these blocks."""
    axes = [[(axis, value) for value in values] for axis, values in experiment.vary.items()
            if axis.partition(".")[0] in blocks]  # fmt: skip
    return itertools.product(*axes)


def _plain(value: Any) -> str:
    """A value as part of a file name."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    text = "+".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in text)
