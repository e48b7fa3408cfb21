"""The batch that a forecast of training takes where none is given: the model's own, or what published runs suggest."""

from typing import NamedTuple

from cgpt.cost.cerebras_gpt import Stretch
from cgpt.cost.shapes import Shape

TOKENS_PER_PARAMETER = 20.0  # of Cerebras-GPT, and about what Hoffmann et al. 2022 found best


class Batch(NamedTuple):
    """Sequences of an optimizer step on all systems together, and where the number comes from."""

    sequences: int
    source: str


def usual_batch(model: str | None, shape: Shape, tokens: float | None, published: list[Stretch],
                law: tuple[float, float]) -> Batch:  # fmt: skip
    """The batch of the longest stretch of the model's published training. Of another model what the law through all
    published batches, factor and exponent of batch tokens by trained tokens, says of `tokens`, or of 20 a parameter."""
    stretches = [stretch for stretch in published if stretch.model == (model or "").removesuffix("-mup")]
    if stretches:
        return Batch(max(stretches, key=lambda stretch: stretch.steps).batch_size, "as published")
    factor, exponent = law
    trained = tokens or TOKENS_PER_PARAMETER * shape.n_parameters
    return Batch(max(1, round(factor * trained**exponent / shape.seq_len)), "by the law of Cerebras-GPT's batches")
