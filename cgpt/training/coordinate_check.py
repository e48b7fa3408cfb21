"""The coordinate check: how large a GPT's activations are while it trains, and how that grows with its width.

Under muP activations and their changes since initialisation stay of one size at every width; under the standard
parametrization with one learning rate they grow (Yang et al. 2022, arXiv 2203.03466, appendix D.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cgpt.data.world.dice import Dice
from cgpt.data.world.stories import document
from cgpt.kernels import backend
from cgpt.model.gpt import GPT, init_parameters
from cgpt.model.ids import check_tokens
from cgpt.recipe import parametrization
from cgpt.spec import Model
from cgpt.training.trainer import AdamW, Trainer

if TYPE_CHECKING:
    from tinygrad import Tensor

PARAMETRIZATIONS = ("sp", "mup")
BYTES = 256  # the vocabulary: text is read as UTF-8
Row = dict[str, Any]


@dataclass(frozen=True)
class CoordinateRow:
    """coordinate_check.csv: a row for each model, step and activation."""

    parametrization: str
    """sp or mup."""
    width: int
    """d_model."""
    seed: int
    """The seed of initial weights and of batches."""
    step: int
    """Optimizer steps made; 0: before training."""
    activation: str
    """embedding, qkv and attention of a layer, hidden, or logits."""
    mean_abs: float
    """Mean absolute value over a batch that is never trained on."""
    mean_abs_change: float
    """Mean absolute difference to the values at step 0."""


COLUMNS = tuple(field.name for field in fields(CoordinateRow))
VALUES = COLUMNS[-2:]


@dataclass(frozen=True)
class Settings:
    """The models that a check trains: one per parametrization, width and seed, all with the same learning rate."""

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    base_width: int = 64  # of muP: here its learning rates are those of the standard parametrization
    d_head: int = 16
    n_layer: int = 2
    seq_len: int = 64
    batch_size: int = 8  # sequences
    lr: float = 6e-3  # what Cerebras-GPT tuned for muP at its base width
    steps: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)

    def model(self, kind: str, width: int) -> Model:
        """The model of one parametrization and width."""
        return Model(
            f"{kind}-{width}", self.n_layer, width, width // self.d_head, self.seq_len, vocab_size=BYTES,
            parametrization=kind, mup_base_width=float(self.base_width),
        )  # fmt: skip


class Slope(NamedTuple):
    """The power of the width that the size of an activation goes with after so many steps, by the column `value`."""

    parametrization: str
    step: int
    activation: str
    value: str
    slope: float
    standard_error: float


def measure(settings: Settings, threads: int | None = None) -> list[Row]:
    """Train every model and return COLUMNS: the sizes of each activation at step 0 and after every step."""
    return [
        {"parametrization": kind, "width": width, "seed": seed} | row
        for kind in PARAMETRIZATIONS
        for width in settings.widths
        for seed in settings.seeds
        for row in _train(settings, settings.model(kind, width), seed, threads)
    ]


def _train(settings: Settings, config: Model, seed: int, threads: int | None) -> Iterator[Row]:
    """One model, whose activations are watched on one batch, the same at every step and width."""
    model = GPT.on(backend.CPU, config, init_parameters(config, seed), threads)
    trainer = Trainer(model, AdamW())
    (watched, _), *batches = byte_batches(settings, seed)
    initial = activations(model, watched)
    for step in range(settings.steps + 1):
        if step:
            trainer.step([batches[step - 1]], settings.lr)
        for name, x in activations(model, watched).items():
            sizes = (float(f"{np.abs(y).mean():.6g}") for y in (x, x - initial[name]))
            yield {"step": step, "activation": name, **dict(zip(VALUES, sizes))}


def byte_batches(settings: Settings, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A batch to watch and one for each step: tokens and targets (B, T) int32, bytes of the builtin corpus."""
    dice, text = Dice(seed), b""
    n, shape = settings.batch_size * (settings.seq_len + 1), (settings.batch_size, settings.seq_len + 1)
    while len(text) < n * (settings.steps + 1):
        text += document(dice).encode() + b"\n"
    windows = np.frombuffer(text, np.uint8, n * (settings.steps + 1)).astype(np.int32).reshape(-1, *shape)
    return [(window[:, :-1].copy(), window[:, 1:].copy()) for window in windows]


def activations(model: GPT, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Activations (B, T, features) by the name of their place, as the network sees them, with one exception.

    The multiplier of muP's logits, which the model has in its last LayerNorm already, is taken out of `hidden`.
    """
    check_tokens(tokens, model.config)
    config, names = model.config, ["embedding"]
    for i in range(config.n_layer):
        names += [f"qkv {i}", f"attention {i}"]

    def forward(tokens: Tensor) -> list[Tensor]:
        x = model.embedding(tokens)
        passed = [x]

        def attention(i: int, qkv: Tensor) -> Tensor:
            passed.extend((qkv, model.ops.attention(qkv, config.n_head, model.attention_scale(i))))
            return passed[-1]

        hidden = model.hidden(x, attention=attention)
        return [*passed, hidden, model.head(hidden)]

    values = model.captured(forward, tokens)  # in memory of the model's, which its next call overwrites
    by_name = {name: value.copy() for name, value in zip([*names, "hidden", "logits"], values)}
    return by_name | {"hidden": by_name["hidden"] / parametrization.logit_scale(config)}


def slopes(rows: Sequence[Row]) -> list[Slope]:
    """Least-squares slope of log size against log width, with its standard error, per parametrization, step and
    activation.

    Step 0 has no change.
    """
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["parametrization"], row["step"], row["activation"]), []).append(row)
    return [
        Slope(*key, value, *line(*(np.log([row[column] for row in alike]) for column in ("width", value))))
        for key, alike in groups.items()
        for value in (VALUES if key[1] else VALUES[:1])
    ]


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line through points (n,), n > 2, and its standard error."""
    x, y = x - x.mean(), y - y.mean()
    slope = (x * y).sum() / (x * x).sum()
    variance = ((y - slope * x) ** 2).sum() / (len(x) - 2)
    return float(slope), float(np.sqrt(variance / (x * x).sum()))
