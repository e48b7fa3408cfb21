"""All fits of one series of points as one mapping for JSON: constants, their intervals, errors of extrapolation."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from cgpt.scaling import cost_law, isoflop, learning_rate, parametric_law, statistics
from cgpt.scaling.machines import COSTS, Machine
from cgpt.scaling.points import Points

N_PARAMETRIC_DRAWS = 1000
SPARE_SETTINGS = 3  # beyond the five constants of L(N, D)
LAWS = ("compute", "parametric", "isoflop")
SAME_SIZE = 0.99  # sizes above this share of the largest count as the largest


def study(points: Points, asked: tuple[str, ...] = (), primary: str = "palm", machines: Sequence[Machine] = (),
          tried: Points | None = None) -> dict[str, Any]:  # fmt: skip
    """The fits asked for, by default the laws of size and tokens; one that cannot be made has a `problem`.

    `primary`: the FLOP convention whose fit keeps its draws. `machines`: for the laws of what training costs there.
    `tried`: every run of the series, where `points` are the best setting of each size; best learning rates are of them.
    """
    tried = tried or points
    makers: dict[str, Callable[[], Any]] = {
        "compute": lambda: _compute(points, primary),
        "parametric": lambda: _parametric(points.by_setting()),
        "isoflop": lambda: isoflop.study(points.by_setting()),
        "hardware": lambda: _hardware(points, machines),
        "learning_rate": lambda: learning_rate.study(tried),
    }
    return {
        "n_runs": len(points.loss),
        "n_settings": points.n_settings,
        "n_runs_tried": len(tried.loss),
        "n_settings_tried": tried.n_settings,
        "best_by": tried.competing_axes(),
        "n_left_out": tried.n_left_out,
        "seeds_apart": points.seeds_apart(),
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
        **({"rates_at_an_end": list(tried.rates_at_an_end())} if points.n_settings < tried.n_settings else {}),
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
    losses = [("nats_per_token", points.loss, convention) for convention in points.flops]
    if points.bits_per_byte is not None:
        losses.append(("bits_per_byte", points.bits_per_byte, primary))
    fits = []
    for (unit, loss, convention), form in product(losses, cost_law.FITTERS):
        cost = points.flops[convention]
        fit = cost_fit(form, ("flops", "flops"), cost, loss, points,
                        with_draws=loss is points.loss and convention == primary)  # fmt: skip
        if "problem" not in fit:
            fitted = cost_law.loss_at(cost_law.FITTERS[form](cost, loss), cost)  # every run once, as the F test has it
            seen, predicted = (loss, fitted) if form == "offset" else (np.log(loss), np.log(fitted))
            fit["lack_of_fit"] = statistics.lack_of_fit(seen, predicted, points.setting_of, cost_law.N_FREE[form])
        fits.append({"form": form, "flops": convention, "unit": unit} | fit)
    return fits


def _hardware(points: Points, machines: Sequence[Machine]) -> list[dict[str, Any]]:
    """Both forms of loss in nats per token against every cost on every machine; a cost not known has a `problem`."""
    fits = []
    for machine, (cost, unit) in product(machines, COSTS.items()):
        common = {"hardware": machine.hardware, "timing": machine.timing_of(cost), "extrapolated": machine.extrapolated,
                  "cost": cost, "unit": "nats_per_token"}  # fmt: skip
        if cost in machine.unknown:
            fits.append(common | {"form": None, "problem": machine.unknown[cost]})
            continue
        for form in cost_law.FITTERS:
            fit = cost_fit(form, (cost, unit), machine.costs[cost], points.loss, points, with_draws=True)
            fits.append(common | {"form": form, "job_overhead": machine.overhead[cost]} | fit)
    return fits


def cost_fit(form: str, named: tuple[str, str], cost: np.ndarray, loss: np.ndarray, points: Points, with_draws: bool
              ) -> dict[str, Any]:  # fmt: skip
    """A law of `loss` (n,) in `cost` (n,), which is `named` with its unit; each setting counts once."""
    n_free = cost_law.N_FREE[form]
    if isoflop.budgets(points):
        return {"problem": "several sizes share each budget, and L(C) is of the best one; ask for isoflop"}
    settings, cost, loss = points.by_setting(), points.setting_means(cost), points.setting_means(loss)
    n_costs = statistics.n_different(cost)
    if n_costs <= n_free:
        return {"problem": f"settings at {n_costs} different costs cannot decide {n_free} constants and how far off "
                           "they are; train at more budgets"}  # fmt: skip
    fitter = cost_law.FITTERS[form]
    law = fitter(cost, loss)
    if problem := cost_law.undecided(form, law, cost, loss):
        return {"problem": problem}
    fitted = cost_law.loss_at(law, cost)
    sd = statistics.relative_sd(loss, fitted, n_free)
    if len(loss) < statistics.MANY_SETTINGS:
        draws = fitter(cost, statistics.with_misses(fitted, sd, len(loss) - n_free))
    else:
        draws = fitter(cost, loss[None], statistics.resampled_weights(len(loss), n_free + 1))
    name, unit = named
    fit: dict[str, Any] = {
        "constants": {key: statistics.constant(law[i], draws[:, i])
                      for i, key in enumerate(cost_law.constants_in(unit)[:n_free])},
        "residual_sd": sd,
        "held_out": [_held_out(settings, name, cost, number, error)
                     for number, error in cost_law.held_out_errors(form, cost, loss, settings.setting_of)],
    }  # fmt: skip
    if form == "offset":
        fit["correlation_alpha_e"] = statistics.correlation(draws[:, 1], draws[:, 2])
    if with_draws:
        fit["draws"] = draws.tolist()
    return fit


def _parametric(points: Points) -> dict[str, Any]:
    """L(N, D) with N all parameters, and with N those outside the embeddings where known."""
    counts = {"n_parameters": points.n_parameters, "n_parameters_non_embedding": points.n_parameters_non_embedding}
    return {name: _parametric_fit(n, points) for name, n in counts.items() if n is not None}


def _parametric_fit(n: np.ndarray, points: Points) -> dict[str, Any]:
    n_free, n_settings = len(parametric_law.CONSTANTS), len(points.loss)
    if problem := _undecided(n, points.tokens):
        return {"problem": problem}
    if n_settings < n_free + SPARE_SETTINGS:
        return {"problem": f"{n_settings} settings are too few for {n_free} constants; train "
                           f"{n_free + SPARE_SETTINGS} or more"}  # fmt: skip
    law = parametric_law.fit(n, points.tokens, points.loss)
    fitted = law.loss_at(n, points.tokens)
    sd = statistics.relative_sd(points.loss, fitted, n_free)
    losses, weights = points.loss, np.ones((N_PARAMETRIC_DRAWS, n_settings))
    if n_settings < statistics.MANY_SETTINGS:
        losses = statistics.with_misses(fitted, sd, n_settings - n_free, N_PARAMETRIC_DRAWS)
    else:
        weights = statistics.resampled_weights(n_settings, n_free + 1, N_PARAMETRIC_DRAWS)
    draws = parametric_law.fit_draws(n, points.tokens, losses, weights, law)
    if problem := parametric_law.flat(law, draws):
        return {"problem": problem}
    names = (*parametric_law.CONSTANTS, "n_exponent")
    values = {name: np.array([getattr(draw, name) for draw in draws]) for name in names}
    fit: dict[str, Any] = {}
    if points.bits_per_byte is not None:  # the fit is one of logs: another unit is a factor of A, B and E
        bits = float(np.mean(points.bits_per_byte / points.loss))
        factors = {name: bits if name in ("a", "b", "e") else 1.0 for name in names}
        fit["constants_bits_per_byte"] = {
            name: statistics.constant(factor * getattr(law, name), factor * values[name])
            for name, factor in factors.items()
        }
    return fit | {
        "constants": {name: statistics.constant(getattr(law, name), values[name]) for name in names},
        "residual_sd": sd,
        "correlation_alpha_e": statistics.correlation(values["alpha"], values["e"]),
        "held_out": _parametric_held_out(n, points),
        "draws": [[getattr(draw, name) for name in parametric_law.CONSTANTS] for draw in draws],
    }


def _undecided(n: np.ndarray, tokens: np.ndarray) -> str | None:
    """Why runs of these sizes and tokens, (n,) each, cannot decide L(N, D), and what would."""
    least = parametric_law.LEAST_VALUES
    for what, values, instead in (("model size", n, "train more sizes"), ("number of tokens", tokens, "train longer")):
        if (count := statistics.n_different(values)) < least:
            plural = "s" if count > 1 else ""
            return f"runs of {count} {what}{plural} cannot tell its term from E, which takes {least}; {instead}"
    if not parametric_law.can_tell_apart(n, tokens):
        return ("tokens follow from the model size in all runs (as at one number of tokens per parameter), so that "
                "A / N^alpha and B / D^beta cannot be told apart; train sizes at several lengths")  # fmt: skip
    return None


def _parametric_held_out(n: np.ndarray, points: Points) -> list[dict[str, Any]]:
    """Error at the largest model's runs, the largest compute of them last, of a fit to all smaller models."""
    largest = n > SAME_SIZE * n.max()
    if len(set(points.setting_of[~largest])) < len(parametric_law.CONSTANTS) + 1:
        return []
    law = parametric_law.fit(n[~largest], points.tokens[~largest], points.loss[~largest])
    errors = law.loss_at(n, points.tokens) / points.loss - 1
    flops = 6 * n * points.tokens
    held = sorted(set(points.setting_of[largest]), key=lambda number: flops[points.setting_of == number].mean())
    return [_held_out(points, "flops", flops, number, float(errors[points.setting_of == number].mean()))
            for number in held]  # fmt: skip


def _held_out(points: Points, name: str, cost: np.ndarray, number: int, error: float) -> dict[str, Any]:
    return {"model": points.model_of(number), name: float(cost[points.setting_of == number].mean()), "error": error}
