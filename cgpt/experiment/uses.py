"""Whether this machine's memory is enough for each use of one model, and how long a document takes."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cgpt.cost import memory
from cgpt.experiment.planned_time import SCORING_SHARE
from cgpt.hardware import Hardware
from cgpt.recipe import flops
from cgpt.spec import Finetune, Model, Train

DOCUMENT_TOKENS, NEW_TOKENS, SAMPLES = 128, 100, 5  # of a document; of a text that is generated, and how many at once
BATCH_SIZE = 32  # sequences of a step of pretraining
LONG = 10**6  # steps: such a training saves its state on the way


@dataclass(frozen=True)
class Rates:
    """Of this machine: training FLOPs a second, and bytes of weights that are read a second to generate a token."""

    flops_per_s: float
    weights_bytes_per_s: float


@dataclass(frozen=True)
class Use:
    """One use of a model; `batch_size` is of the training that it is, `document` says what one is. Memory that is not
    known is enough."""

    name: str
    needs_bytes: int
    has_bytes: int | None
    seconds_per_document: float | None = None
    document: str = ""
    batch_size: int | None = None
    instead: str | None = None  # what to write where the memory is not enough

    @property
    def in_memory(self) -> bool:
        """Whether this machine holds it."""
        return self.has_bytes is None or self.needs_bytes <= self.has_bytes


class _Kind(NamedTuple):
    """A use: the bytes that it needs by model and batch size, the largest batch size, and its key in an experiment."""

    name: str
    needs: Callable[[Model, int, Hardware], int]
    batch_size: int = 1
    key: str = ""


def uses_of(
    model: Model, published: bool, hardware: Hardware, has_bytes: int | None, rates: Rates, others: Iterable[Model]
) -> list[Use]:
    """The uses of a model with a vocabulary: a published one is imported, others are pretrained; all are scored,
    fine-tuned and generated from. `others` are models of which the largest is named that the memory is enough for."""
    smaller = [other for other in others if flops.n_parameters(other) < flops.n_parameters(model)]
    smaller.sort(key=flops.n_parameters, reverse=True)
    uses, limit = [], has_bytes or math.inf
    for name, needs, batch_size, key in [KINDS[0] if published else KINDS[1], *KINDS[2:]]:
        needs_bytes, instead = needs(model, batch_size, hardware), None
        if needs_bytes > limit:
            halves = [batch_size >> n for n in range(1, batch_size.bit_length())]
            less = next((n for n in halves if needs(model, n, hardware) <= limit), None)
            other = next((other.name for other in smaller if needs(other, 1, hardware) <= limit), "a smaller model")
            instead = f"write `{key}: {less}`" if less else f"take {other}"
        seconds, document = _duration(name, model, rates)
        batch = batch_size if key else None
        uses.append(Use(name, needs_bytes, has_bytes, seconds, document, batch, instead))
    return uses


def _duration(name: str, model: Model, rates: Rates) -> tuple[float | None, str]:
    """Seconds for each document, and what a document is; an import has none."""
    if name == "import":
        return None, ""
    if name == "generation":
        new = min(NEW_TOKENS, model.seq_len)
        return new * memory.FLOAT_BYTES * flops.n_parameters(model) / rates.weights_bytes_per_s, f"{new} new tokens"
    tokens = min(DOCUMENT_TOKENS, model.seq_len)
    training_s = tokens * flops.flops_per_token(model) / rates.flops_per_s
    return training_s * (SCORING_SHARE if name == "evaluation" else 1), f"a document of {tokens} tokens"


def _import(model: Model, _: int, __: Hardware) -> int:
    return memory.import_bytes(model)


def _pretraining(model: Model, batch_size: int, hardware: Hardware) -> int:
    train = Train(lr=1e-3, batch_size=BATCH_SIZE, micro_batch_size=batch_size, steps=LONG)
    return memory.pretraining_bytes(model, train, hardware.resources.threads, hardware.kernels)


def _evaluation(model: Model, _: int, hardware: Hardware) -> int:
    return memory.evaluation_bytes(model, hardware.resources.threads, hardware.kernels)


def _finetuning(model: Model, batch_size: int, hardware: Hardware) -> int:
    threads, kernels = hardware.resources.threads, hardware.kernels
    return memory.finetuning_bytes(model, batch_size, threads, kernels, longest=DOCUMENT_TOKENS)


def _generation(model: Model, _: int, hardware: Hardware) -> int:
    return memory.generation_bytes(model, SAMPLES, model.seq_len, hardware.kernels)


KINDS = (
    _Kind("import", _import),
    _Kind("pretraining", _pretraining, BATCH_SIZE, "micro_batch_size"),
    _Kind("evaluation", _evaluation),
    _Kind("finetuning", _finetuning, Finetune().batch_size, "batch_size"),
    _Kind("generation", _generation),
)
