"""All fits of one series of points as one mapping for JSON: constants, their intervals, errors of extrapolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from cgpt.scaling import cost_law, isoflop, isoflop_study, learning_rate, parametric_law
from cgpt.scaling.lack_of_fit import lack_of_fit
from cgpt.scaling.machines import COSTS, Machine
from cgpt.scaling.parametric_law import ParametricLaw
from cgpt.scaling.points import Points
from cgpt.scaling.resampling import N_DRAWS, SPARE_CELLS, constant, noisy, relative_sd, resampled_weights

N_PARAMETRIC_DRAWS = 1000
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
        "isoflop": lambda: isoflop_study.study(points),
        "hardware": lambda: _hardware(points, machines),
        "learning_rate": lambda: learning_rate.study(points),
    }
    return {
        "n_runs": len(points.loss),
        "n_cells": points.n_cells,
        "n_sizes": len(set(points.n_parameters.tolist())),
        "tokens_per_parameter": float(np.median(points.tokens / points.n_parameters)),
        "tokens_per_parameter_range": _range(points.tokens / points.n_parameters),
        "loss_range": _range(points.loss),
        "flops_range": _range(points.flops[primary]),
        "vocab_size": points.vocab_size,
        "seq_len": points.seq_len,
        "batch_tokens": None if points.batch_tokens is None else float(np.median(points.batch_tokens)),
        "shapes": _shapes(points),
        "primary_flops": primary,
        **{name: makers[name]() for name in asked or LAWS},
    }


def _range(values: np.ndarray) -> list[float]:
    return [float(values.min()), float(values.max())]


def _shapes(points: Points) -> list[list[int]]:
    """n_layer, d_model and n_head of every different shape, from narrow to wide."""
    shapes = {(model.d_model, model.n_layer, model.n_head) for model in points.shapes}
    return [[n_layer, d_model, n_head] for d_model, n_layer, n_head in sorted(shapes)]


def _compute(points: Points, primary: str) -> list[dict[str, Any]]:
    """Both forms, under every FLOP convention in nats per token, and under the primary one in bits per byte."""
    chosen = [("nats_per_token", points.loss, convention) for convention in points.flops]
    if points.bits_per_byte is not None:
        chosen.append(("bits_per_byte", points.bits_per_byte, primary))
    found = []
    for (unit, loss, convention), form in product(chosen, cost_law.FITTERS):
        cost = points.flops[convention]
        fit = _cost_fit(form, ("flops", "flops"), cost, loss, points,
                        with_draws=loss is points.loss and convention == primary)  # fmt: skip
        if "problem" not in fit:
            fitted = cost_law.loss_at(cost_law.law_of({"form": form} | fit), cost)
            seen, told = (loss, fitted) if form == "offset" else (np.log(loss), np.log(fitted))
            fit["lack_of_fit"] = lack_of_fit(seen, told, points.cells, cost_law.N_FREE[form])
        found.append({"form": form, "flops": convention, "unit": unit} | fit)
    return found


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
    sd = relative_sd(loss, fitted, n_free)
    noise = fitter(cost, noisy(fitted, sd, N_DRAWS))
    resampled = None
    if points.n_cells >= n_free + SPARE_CELLS:
        resampled = fitter(cost, loss[None], resampled_weights(points.cells, N_DRAWS, n_free + 1))
    draws = noise if resampled is None else resampled
    name, unit = named
    found: dict[str, Any] = {
        "constants": {key: constant(law[i], noise[:, i], None if resampled is None else resampled[:, i])
                      for i, key in enumerate(cost_law.constants_in(unit)[:n_free])},
        "residual_sd": sd,
        "held_out": [_held_out(points, (name, cost), cell, error)
                     for cell, error in cost_law.held_out_errors(form, cost, loss, points.cells)],
    }  # fmt: skip
    if form == "offset":
        found["correlation_alpha_e"] = float(np.corrcoef(draws[:, 1], draws[:, 2])[0, 1])
    if with_draws:
        found["draws"] = draws.tolist()
    return found


def _parametric(points: Points) -> dict[str, Any]:
    """L(N, D) with N all parameters, and with N those outside the embeddings where known."""
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
    found: dict[str, Any] = {}
    if points.bits_per_byte is not None:  # the fit is one of logs: another unit is a factor of A, B and E
        factors = dict.fromkeys(("a", "b", "e"), float(np.mean(points.bits_per_byte / points.loss)))
        found["constants_bits_per_byte"] = {
            name: constant(factors.get(name, 1.0) * getattr(law, name), None, factors.get(name, 1.0) * values[name])
            for name in names
        }
    return found | {
        "constants": {name: constant(getattr(law, name), None, values[name]) for name in names},
        "residual_sd": relative_sd(points.loss, law.loss_at(n, points.tokens), n_free),
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
