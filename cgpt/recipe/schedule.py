"""How many optimizer steps a run takes, and the learning rate of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from cgpt.recipe import flops
from cgpt.spec import Model, Train


def resolve_length(train: Train, model: Model) -> Train:
    """`train` with `steps` (rounded up) and the `tokens` these steps see, whichever length it was given."""
    tokens_per_step = train.batch_size * model.seq_len
    wanted = train.tokens or (train.tokens_per_parameter or 0) * flops.n_parameters(model)
    wanted = wanted or (train.flops or 0) / flops.flops_per_token(model)
    steps = train.steps or max(1, math.ceil(wanted / tokens_per_step))
    return replace(train, steps=steps, tokens=steps * tokens_per_step,
                   micro_batch_size=train.micro_batch_size or train.batch_size)  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then decay to `min_ratio` of it at the last step.

    `kind` linear and cosine decay from the warm-up on. `wsd` (warm-up, stable, decay; Haegele et al. 2024, arXiv
    2405.18392) stays at the peak and decays linearly over the last `decay_fraction` of the steps, so that runs of
    several lengths share what comes before.
    """

    peak: float
    steps: int
    warmup_steps: int
    kind: str = "linear"
    min_ratio: float = 0.1
    decay_fraction: float = 0.2

    @classmethod
    def of(cls, train: Train, seq_len: int) -> Schedule:
        """Schedule of a `train:` block whose number of steps is resolved."""
        assert train.steps is not None, "the plan resolves the number of steps"
        if train.warmup_tokens is None:
            warmup_steps = round(train.warmup_fraction * train.steps)
        else:
            warmup_steps = train.warmup_tokens // (train.batch_size * seq_len)
        return cls(train.lr, train.steps, warmup_steps, train.schedule, train.min_lr_ratio, train.decay_fraction)

    @property
    def first_decaying_step(self) -> int:
        """The first step, from 0, whose rate is below the peak again."""
        if self.kind != "wsd":
            return self.warmup_steps
        return max(self.warmup_steps, self.steps - round(self.decay_fraction * self.steps))

    def rate(self, step: int) -> float:
        """Rate of step `step` (from 0): the peak is reached at the last step of the warm-up."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        start = self.first_decaying_step
        if step < start:
            return self.peak
        gone = (step - start + 1) / max(1, self.steps - start)
        share = (1 + math.cos(math.pi * gone)) / 2 if self.kind == "cosine" else 1 - gone
        return self.peak * (self.min_ratio + (1 - self.min_ratio) * share)


def without_length(spec: dict[str, Any]) -> dict[str, Any]:
    """A pretraining run's spec as far as it decides the run before its rate decays: all but its length."""
    train, seq_len = spec["train"], spec["model"]["seq_len"]
    settings = {key: value for key, value in train.items() if key not in ("steps", "tokens")}
    return spec | {"train": settings, "warmup_steps": Schedule.of(Train(**train), seq_len).warmup_steps}
