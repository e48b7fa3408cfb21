"""A fitted law with its bootstrap draws, read back from fits.json, asked in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import flops
from cgpt.errors import UserError, did_you_mean
from cgpt.scaling import cost_law
from cgpt.scaling.parametric_law import CONSTANTS, ParametricLaw
from cgpt.scaling.resampling import interval
from cgpt.spec import Model

Interval = list[float]  # value, low, high; infinite where no training reaches it


@dataclass(frozen=True)
class FittedLaw:
    """`name`: file and series. With `draws` of L(C), `convention` says how C is counted and every model is trained on
    `tokens_per_parameter`; with those of L(N, D), `convention` is None. Row 0 of `draws` is the fit itself. The runs'
    `batch_tokens` and `shapes` (n_layer, d_model, n_head), from narrow to wide, are empty where only published."""

    name: str
    convention: str | None
    draws: np.ndarray
    tokens_per_parameter: float
    vocab_size: int
    seq_len: int
    batch_tokens: float | None = None
    shapes: tuple[tuple[int, int, int], ...] = ()

    def tokens_to(self, loss: float, model: Model) -> Interval:
        """Tokens that take the model to the loss, or, by L(C), that spend the FLOPs that the loss takes."""
        if self.convention:
            return _with_ends(cost_law.cost_at(self.draws, loss) / _flops_per_token(model, self.convention))
        n_parameters = flops.n_parameters(model)
        return _with_ends(np.array([law.tokens_at(loss, n_parameters) for law in self._laws()]))

    def loss_of(self, model: Model, tokens: float) -> Interval:
        """Loss of the model after that many tokens."""
        if self.convention:
            spent = np.array([tokens * _flops_per_token(model, self.convention)])
            return _with_ends(cost_law.loss_at(self.draws, spent)[:, 0])
        n = np.array(float(flops.n_parameters(model)))
        return _with_ends(np.array([float(law.loss_at(n, np.array(tokens))) for law in self._laws()]))

    def lowest_loss(self) -> float:
        """E, which no training goes below."""
        return float(self.draws[0, 2])

    def _laws(self) -> list[ParametricLaw]:
        return [ParametricLaw(*draw) for draw in self.draws]


def read(path: Path, series: str | None = None) -> FittedLaw:
    """L(N, D) of a series of fits.json where its runs decide it, else L(C); raises UserError where there is neither."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["series"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no file of fits ({error}); run `python -m cgpt fit <experiment>`") from None
    chosen = next(iter(found), "") if series is None else series
    if chosen not in found:
        raise UserError(f"--series: {path} has no series '{chosen}'; {did_you_mean(chosen, found)}")
    return _law(f"{path}: {chosen}" if chosen else str(path), found[chosen])


def _law(name: str, study: Mapping[str, Any]) -> FittedLaw:
    """The published Chinchilla points say nothing of vocabulary and context: there the Cerebras-GPT family's stand."""
    shapes = tuple((n_layer, d_model, n_head) for n_layer, d_model, n_head in study.get("shapes", ()))
    rest = (study["tokens_per_parameter"], study["vocab_size"] or 50257, study["seq_len"] or 2048,
            study.get("batch_tokens"), shapes)  # fmt: skip
    parametric = study.get("parametric", {}).get("n_parameters", {})
    if "draws" in parametric:
        return FittedLaw(name, None, _draws(parametric, CONSTANTS), *rest)
    for fit in study.get("compute", ()):
        if fit["form"] == "offset" and "draws" in fit:
            convention = "cerebras" if fit["flops"] == "reported" else fit["flops"]
            return FittedLaw(name, convention, _draws(fit, cost_law.constants_in("flops")), *rest)
    raise UserError(f"{name}: holds no law with intervals; fit more runs, or take another with --law")


def _draws(fit: Mapping[str, Any], names: tuple[str, ...]) -> np.ndarray:
    whole = [draw for draw in fit["draws"] if None not in draw]
    return np.array([[fit["constants"][name]["value"] for name in names], *whole], dtype=float)


def _flops_per_token(model: Model, convention: str) -> float:
    return flops.flops_per_token(model, convention)


def _with_ends(values: np.ndarray) -> Interval:
    return [float(values[0]), *interval(values[1:])]
