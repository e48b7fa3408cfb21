"""A fitted law with its bootstrap draws, read back from fits.json, asked in both directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.errors import UserError, did_you_mean
from cgpt.files.json_object import read_object
from cgpt.recipe import flops
from cgpt.scaling import cost_law
from cgpt.scaling.parametric_law import CONSTANTS, ParametricLaw
from cgpt.scaling.statistics import interval
from cgpt.spec import GPT2_VOCABULARY, Model

Interval = list[float]  # value, low, high; infinite where no training reaches it
SAME_RATIO = 1.5  # tokens per parameter that differ by less count as the same
FAR = 10  # times the FLOPs of the runs from which a law is asked for more than they can say


@dataclass(frozen=True)
class FittedLaw:
    """`name`: file and series. With `draws` of L(C), `convention` says how C is counted and every model is trained on
    `tokens_per_parameter`; with those of L(N, D), `convention` is None. Row 0 of `draws` is the fit itself. The runs'
    `batch_tokens` and `shapes` (n_layer, d_model, n_head), from narrow to wide, are empty where only published.
    `loss_range` and `flops_range`, which is counted by `flops_convention`: lowest and highest of the runs, where the
    file says so."""

    name: str
    convention: str | None
    draws: np.ndarray
    tokens_per_parameter: float
    vocab_size: int
    seq_len: int
    batch_tokens: float | None = None
    shapes: tuple[tuple[int, int, int], ...] = ()
    loss_range: tuple[float, float] | None = None
    flops_range: tuple[float, float] | None = None
    flops_convention: str = "palm"

    def tokens_by_draw(self, loss: float, model: Model) -> np.ndarray:
        """Tokens that take the model to the loss, or, by L(C), that spend the FLOPs that the loss takes; (n_draws,)."""
        if self.convention:
            return cost_law.cost_at(self.draws, loss) / flops.flops_per_token(model, self.convention)
        n_parameters = flops.n_parameters(model)
        return np.array([law.tokens_at(loss, n_parameters) for law in self._laws()])

    def loss_of(self, model: Model, tokens: float) -> Interval:
        """Loss of the model after that many tokens."""
        if self.convention:
            spent = np.array([tokens * flops.flops_per_token(model, self.convention)])
            return with_ends(cost_law.loss_at(self.draws, spent)[:, 0])
        n = np.array(float(flops.n_parameters(model)))
        return with_ends(np.array([float(law.loss_at(n, np.array(tokens))) for law in self._laws()]))

    def lowest_loss(self) -> float:
        """E, which no training goes below."""
        return float(self.draws[0, 2])

    def beyond_runs(self, loss: float, model: Model, tokens: float) -> str | None:
        """A sentence on a training whose loss, or FLOPs by a factor of `FAR`, lie outside the law's runs; else None."""
        outside = []
        if self.loss_range and not self.loss_range[0] <= loss <= self.loss_range[1]:
            low, high = self.loss_range
            where = f"below the lowest of the law's runs, {low:.3g}" if loss < low else (
                f"above the highest of the law's runs, {high:.3g}")  # fmt: skip
            outside.append(f"loss {loss:.4g} is {where}")
        if self.flops_range:
            spent = tokens * flops.flops_per_token(model, self.flops_convention)
            more, less = spent / self.flops_range[1], self.flops_range[0] / spent
            least = 2 if outside else FAR
            outside += [f"{float(f'{more:.1g}'):,.0f} times the FLOPs of the largest run"] if more >= least else []
            outside += [f"1/{float(f'{less:.1g}'):,.0f} of the FLOPs of the smallest run"] if less >= least else []
        return "; ".join(outside) or None

    def _laws(self) -> list[ParametricLaw]:
        return [ParametricLaw(*draw) for draw in self.draws]


def read(path: Path, series: str | None = None) -> FittedLaw:
    """L(N, D) of a series of fits.json where its runs decide it, else L(C); raises UserError where there is neither."""
    remedy = "run `cgpt fit <experiment>`"
    studies = read_object(path, remedy).get("series")
    if not isinstance(studies, dict):
        raise UserError(f"{path}: is no file of fits (its `series` is no object); {remedy}")
    series = next(iter(studies), "") if series is None else series
    if series not in studies:
        raise UserError(f"--series: {path} has no series '{series}'; {did_you_mean(series, studies)}")
    name = f"{path}: {series}" if series else str(path)
    try:
        return _law(name, studies[series])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{name}: is not as `fit` writes it ({error!r}); {remedy}") from None


def _law(name: str, study: Mapping[str, Any]) -> FittedLaw:
    """The published Chinchilla points say nothing of vocabulary and context: there the Cerebras-GPT family's stand."""
    shapes = tuple((n_layer, d_model, n_head) for n_layer, d_model, n_head in study.get("shapes", ()))
    ranges = (tuple(study[key]) if study.get(key) else None for key in ("loss_range", "flops_range"))
    counted_in = _convention(study.get("primary_flops", "palm"))
    rest = (study["tokens_per_parameter"], study["vocab_size"] or GPT2_VOCABULARY, study["seq_len"] or 2048,
            study.get("batch_tokens"), shapes, *ranges, counted_in)  # fmt: skip
    parametric = study.get("parametric", {}).get("n_parameters", {})
    if "draws" in parametric:
        return FittedLaw(name, None, _draws(parametric, CONSTANTS), *rest)
    for fit in study.get("compute", ()):
        if fit["form"] == "offset" and "draws" in fit:
            _refuse_one_size(name, study)
            return FittedLaw(name, _convention(fit["flops"]), _draws(fit, cost_law.constants_in("flops")), *rest)
    raise UserError(f"{name}: holds no law with intervals; fit more runs, or take another with --law")


def _convention(flops: str) -> str:
    """The convention of FLOPs that a paper only reports."""
    return "cerebras" if flops == "reported" else flops


def _refuse_one_size(name: str, study: Mapping[str, Any]) -> None:
    """L(C) says how large a model to train only where its runs are of several sizes, all at one ratio of tokens to
    parameters. What an older file does not say is not refused."""
    instead = "take another with --law, or fit runs of several sizes and lengths with `fit: [parametric]`"
    if study.get("n_sizes", len(study.get("shapes", ()))) == 1:
        raise UserError(f"{name}: its L(C) is of runs of a single size, and chooses no model size; {instead}")
    low, high = study.get("tokens_per_parameter_range") or (1.0, 1.0)
    if high > SAME_RATIO * low:
        raise UserError(f"{name}: its L(C) is of runs of {low:.3g} to {high:.3g} tokens per parameter, not of one "
                        f"ratio, and chooses no model size; {instead}")  # fmt: skip


def _draws(fit: Mapping[str, Any], names: tuple[str, ...]) -> np.ndarray:
    whole = [draw for draw in fit["draws"] if None not in draw]
    return np.array([[fit["constants"][name]["value"] for name in names], *whole], dtype=float)


def with_ends(values: np.ndarray) -> Interval:
    """The first of (n_draws,) values, which is the fit's, and the ends that the other draws give."""
    return [float(values[0]), *interval(values[1:])]
