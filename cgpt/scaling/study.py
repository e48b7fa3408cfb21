"""All fits of one series of points as one mapping for JSON: constants, their intervals, errors of extrapolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from cgpt.scaling import cost_law, isoflop, learning_rate, parametric_law
from cgpt.scaling.machines import COSTS, Machine
from cgpt.scaling.parametric_law import ParametricLaw
from cgpt.scaling.points import Points
from cgpt.scaling.resampling import N_DRAWS, interval, noisy, resampled_weights

N_PARAMETRIC_DRAWS = 1000
SPARE_CELLS = 3  # cells beyond a fit's constants from which resampling them says something
LAWS = ("compute", "parametric", "isoflop")
SAME_SIZE = 0.99  # sizes above this share of the largest count as the largest


def study(points: Points, asked: tuple[str, ...] = (), primary: str = "palm", machines: Sequence[Machine] = ()
          ) -> dict[str, Any]:  # fmt: skip
    """The fits asked for, by default the laws of size and tokens; one that cannot be made has a `problem`.

    `primary`: the FLOP convention whose fit keeps its draws. `machines`: for the laws of what training costs there.
    """
    makers: dict[str, Callable[[], Any]] = {
        "compute": lambda: _compute(points, primary),
        "parametric": lambda: _parametric(points),
        "isoflop": lambda: _isoflop(points),
        "hardware": lambda: _hardware(points, machines),
        "learning_rate": lambda: learning_rate.study(points),
    }
    return {
        "n_runs": len(points.loss),
        "n_cells": points.n_cells,
        "tokens_per_parameter": float(np.median(points.tokens / points.n_parameters)),
        "vocab_size": points.vocab_size,
        "seq_len": points.seq_len,
        "batch_tokens": None if points.batch_tokens is None else float(np.median(points.batch_tokens)),
        "shapes": _shapes(points),
        "primary_flops": primary,
        **{name: makers[name]() for name in asked or LAWS},
    }


def _shapes(points: Points) -> list[list[int]]:
    """n_layer, d_model and n_head of every different shape, from narrow to wide."""
    shapes = {(model.d_model, model.n_layer, model.n_head) for model in points.shapes}
    return [[n_layer, d_model, n_head] for d_model, n_layer, n_head in sorted(shapes)]


def _compute(points: Points, primary: str) -> list[dict[str, Any]]:
    """Both forms, under every FLOP convention in nats per token, and under the primary one in bits per byte."""
    chosen = [("nats_per_token", points.loss, convention) for convention in points.flops]
    if points.bits_per_byte is not None:
        chosen.append(("bits_per_byte", points.bits_per_byte, primary))
    return [{"form": form, "flops": convention, "unit": unit}
            | _cost_fit(form, ("flops", "flops"), points.flops[convention], loss, points,
                        with_draws=loss is points.loss and convention == primary)
            for unit, loss, convention in chosen for form in cost_law.FITTERS]  # fmt: skip


def _hardware(points: Points, machines: Sequence[Machine]) -> list[dict[str, Any]]:
    """Both forms of loss in nats per token against every cost on every machine; a cost not known has a `problem`."""
    found = []
    for machine, (cost, unit) in product(machines, COSTS.items()):
        said = {"hardware": machine.hardware, "timing": machine.timing_of(cost), "extrapolated": machine.extrapolated,
                "cost": cost, "unit": "nats_per_token"}  # fmt: skip
        if cost in machine.unknown:
            found.append(said | {"form": None, "problem": machine.unknown[cost]})
            continue
        for form in cost_law.FITTERS:
            fit = _cost_fit(form, (cost, unit), machine.costs[cost], points.loss, points, with_draws=True)
            found.append(said | {"form": form, "job_overhead": machine.overhead[cost]} | fit)
    return found


def _cost_fit(form: str, named: tuple[str, str], cost: np.ndarray, loss: np.ndarray, points: Points, with_draws: bool
              ) -> dict[str, Any]:  # fmt: skip
    """A law of `loss` (n,) in `cost` (n,), which is `named` with its unit."""
    n_free = cost_law.N_FREE[form]
    if isoflop.budgets(points):
        return {"problem": "several sizes share each budget, and L(C) is of the best one; ask for isoflop"}
    if points.n_cells <= n_free:
        return {"problem": f"{points.n_cells} settings cannot decide {n_free} constants; train at more budgets"}
    fitter = cost_law.FITTERS[form]
    law = fitter(cost, loss)
    fitted = cost_law.loss_at(law, cost)
    sd = _relative_sd(loss, fitted, n_free)
    noise = fitter(cost, noisy(fitted, sd, N_DRAWS))
    resampled = None
    if points.n_cells >= n_free + SPARE_CELLS:
        resampled = fitter(cost, loss[None], resampled_weights(points.cells, N_DRAWS, n_free + 1))
    name, unit = named
    found: dict[str, Any] = {
        "constants": {constant: _constant(law[i], noise[:, i], None if resampled is None else resampled[:, i])
                      for i, constant in enumerate(cost_law.constants_in(unit)[:n_free])},
        "residual_sd": sd,
        "held_out": [_held_out(points, (name, cost), cell, error)
                     for cell, error in cost_law.held_out_errors(form, cost, loss, points.cells)],
    }  # fmt: skip
    if form == "offset":
        found["correlation_alpha_e"] = float(np.corrcoef(noise[:, 1], noise[:, 2])[0, 1])
    if with_draws:
        found["draws"] = (noise if resampled is None else resampled).tolist()
    return found


def _parametric(points: Points) -> dict[str, Any]:
    """L(N, D) with N all parameters, and with N those outside the embeddings where known; both in nats per token."""
    counts = {"n_parameters": points.n_parameters, "n_parameters_non_embedding": points.n_parameters_non_embedding}
    return {name: _parametric_fit(n, points) for name, n in counts.items() if n is not None}


def _parametric_fit(n: np.ndarray, points: Points) -> dict[str, Any]:
    n_free = len(parametric_law.CONSTANTS)
    if not parametric_law.can_tell_apart(n, points.tokens):
        return {"problem": "tokens per parameter are the same in all runs, so that A / N^alpha and B / D^beta cannot "
                           "be told apart; train sizes at several lengths"}  # fmt: skip
    if points.n_cells < n_free + SPARE_CELLS:
        return {"problem": f"{points.n_cells} settings are too few for {n_free} constants; train "
                           f"{n_free + SPARE_CELLS} or more"}  # fmt: skip
    law = parametric_law.fit(n, points.tokens, points.loss)
    weights = resampled_weights(points.cells, N_PARAMETRIC_DRAWS, n_free + 1)
    draws = parametric_law.fit_draws(n, points.tokens, points.loss, weights, law)
    names = (*parametric_law.CONSTANTS, "n_exponent")
    values = {name: np.array([getattr(draw, name) for draw in draws]) for name in names}
    return {
        "constants": {name: _constant(getattr(law, name), None, values[name]) for name in names},
        "residual_sd": _relative_sd(points.loss, law.loss_at(n, points.tokens), n_free),
        "correlation_alpha_e": float(np.corrcoef(values["alpha"], values["e"])[0, 1]),
        "held_out": _parametric_held_out(n, points),
        "draws": [[getattr(draw, name) for name in parametric_law.CONSTANTS] for draw in draws],
    }


def _parametric_held_out(n: np.ndarray, points: Points) -> list[dict[str, Any]]:
    """Error at the largest model's runs, the largest compute of them last, of a fit to all smaller models."""
    largest = n > SAME_SIZE * n.max()
    if len(set(points.cells[~largest])) < len(parametric_law.CONSTANTS) + 1:
        return []
    law: ParametricLaw = parametric_law.fit(n[~largest], points.tokens[~largest], points.loss[~largest])
    errors = law.loss_at(n, points.tokens) / points.loss - 1
    flops = 6 * n * points.tokens
    held = sorted(set(points.cells[largest]), key=lambda cell: flops[points.cells == cell].mean())
    return [_held_out(points, ("flops", flops), cell, float(errors[points.cells == cell].mean())) for cell in held]


def _held_out(points: Points, cost: tuple[str, np.ndarray], cell: int, error: float) -> dict[str, Any]:
    name, values = cost
    return {"model": points.model_of(cell), name: float(values[points.cells == cell].mean()), "error": error}


def _isoflop(points: Points) -> dict[str, Any]:
    """Each budget's minimum, and N*, D* ~ C^exponent under every convention, through the minima that are interior."""
    made = isoflop.budgets(points)
    if not made:
        return {"problem": f"no budget has {isoflop.LEAST_SIZES} sizes of equal FLOPs; train several sizes at one"}
    ones = np.ones_like(points.loss)
    fitted = points.loss.copy()
    for budget in made:
        x = budget.log_n(points)
        level, slope, bend = budget.parabola(points, points.loss, ones)
        fitted[budget.runs] = level + slope * x + bend * x * x
    used = np.concatenate([budget.runs for budget in made])
    sd = _relative_sd(points.loss[used], fitted[used], 3 * len(made))
    noise = noisy(fitted, sd, N_DRAWS)
    minima = [(budget.minimum(points, points.loss, ones), budget.minimum(points, noise, np.ones_like(noise)))
              for budget in made]  # fmt: skip
    listed = [_budget(points, budget, *pair) for budget, pair in zip(made, minima)]
    inside = [place for place, budget in enumerate(listed) if budget["interior"]]
    found: dict[str, Any] = {"designed_in": made[0].convention, "residual_sd": sd, "budgets": listed}
    if len(inside) < 2:
        return found | {"problem": f"{len(inside)} of {len(made)} minima lie inside the sizes that were trained, and a "
                                   "law needs two; train smaller or larger sizes there"}  # fmt: skip
    laws = {name: _optimum_laws(points, name, [made[i] for i in inside], [minima[i] for i in inside])
            for name in points.flops}  # fmt: skip
    return found | {"laws": laws}


def _budget(points: Points, budget: isoflop.Budget, at: tuple, drawn: tuple) -> dict[str, Any]:
    (best, inside), (draws, draws_inside) = at, drawn
    interior = bool(inside)
    share = float(np.mean(draws_inside))
    found = {
        "flops": float(np.exp(np.log(points.flops[budget.convention][budget.runs]).mean())),
        "n_runs": len(budget.runs),
        "n_sizes": len(set(points.n_parameters[budget.runs])),
        "interior": interior,
        "interior_share_of_draws": share,
    }
    if not interior:
        sizes = points.n_parameters[budget.runs]
        best_run = sizes[np.argmin(points.loss[budget.runs])]
        return found | {"best_size_trained": float(best_run)}
    tokens = budget.at(points, points.tokens, best)
    return found | {"n_parameters": _constant(best, draws, None), "tokens": float(tokens),
                    "tokens_per_parameter": float(tokens / best)}  # fmt: skip


def _optimum_laws(points: Points, convention: str, made: list[isoflop.Budget], minima: list) -> dict[str, Any]:
    """Exponents of N* and D* in C, and the error at the largest budget of the law of all smaller ones; where a draw's
    minimum left the sizes, it counts at the nearest one."""
    best = np.array([at[0] for at, _ in minima])
    draws = np.stack([_held_inside(points, budget, drawn[0]) for budget, (_, drawn) in zip(made, minima)], axis=-1)
    flops, drawn_flops = (_at(points, points.flops[convention], made, sizes) for sizes in (best, draws))
    tokens, drawn_tokens = (_at(points, points.tokens, made, sizes) for sizes in (best, draws))
    result: dict[str, Any] = {}
    for key, optimum, drawn in (("n", best, draws), ("d", tokens, drawn_tokens)):
        exponent, level = isoflop.power_of(flops, optimum)
        result[f"{key}_exponent"] = _constant(exponent, isoflop.power_of(drawn_flops, drawn)[0], None)
        result[f"log_{key}_factor"] = float(level)
        if len(made) > 2:
            exponent, level = isoflop.power_of(flops[:-1], optimum[:-1])
            result[f"{key}_held_out_error"] = float(np.exp(level) * flops[-1] ** exponent / optimum[-1] - 1)
    return result


def _at(points: Points, values: np.ndarray, made: list[isoflop.Budget], sizes: np.ndarray) -> np.ndarray:
    """`values` (n,) of the runs, tokens or FLOPs, at one size (..., n_budgets) for each budget."""
    return np.stack([budget.at(points, values, sizes[..., i]) for i, budget in enumerate(made)], axis=-1)


def _held_inside(points: Points, budget: isoflop.Budget, sizes: np.ndarray) -> np.ndarray:
    own = points.n_parameters[budget.runs]
    return np.clip(np.nan_to_num(sizes, nan=float(own.max())), own.min(), own.max())


def _relative_sd(loss: np.ndarray, fitted: np.ndarray, n_free: int) -> float:
    """Standard deviation of the relative residual, with the degrees of freedom that the constants leave."""
    return float(np.sqrt(np.sum((loss / fitted - 1) ** 2) / max(1, len(loss) - n_free)))


def _constant(value: float | np.ndarray, noise: np.ndarray | None, resampled: np.ndarray | None) -> dict[str, Any]:
    """A constant and its 95 % intervals; None where that bootstrap was not done."""
    return {"value": float(value), "noise": None if noise is None else interval(noise),
            "resampled": None if resampled is None else interval(resampled)}  # fmt: skip
