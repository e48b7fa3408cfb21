"""The best size and tokens of each compute budget and their powers of it, with intervals, as one mapping for JSON.

A parabola goes through the sizes nearest the best one. One through all sizes trained stands beside it: that the two
differ is part of what is not known.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cgpt.scaling import isoflop
from cgpt.scaling.points import Points
from cgpt.scaling.statistics import constant, interval, relative_sd, with_misses

NEAREST = 5  # sizes that a parabola, which has three constants, goes through
N_BAND = 40  # places at which a parabola's band is kept


def study(points: Points) -> dict[str, Any]:
    """Each budget's minimum, and N*, D* ~ C^exponent under every convention, or a `problem`.

    `all_sizes` holds the same by parabolas through all sizes, where a budget has more than NEAREST of them.
    """
    made = isoflop.budgets(points)
    if not made:
        return {"problem": f"no budget has {isoflop.LEAST_SIZES} sizes of equal FLOPs; train several sizes at one"}
    most = max(_n_sizes(points, budget) for budget in made)
    found = {"designed_in": made[0].convention, **_of_window(points, made, NEAREST)}
    return found | ({"all_sizes": _of_window(points, made, most)} if most > NEAREST else {})


class _Drawn:
    """Of losses of the settings, (n_draws, n) or (n,): every budget's window of sizes, the parabola
    through it, whether its minimum lies inside the sizes trained, and N*, the nearest of them where it does not."""

    def __init__(self, points: Points, made: list[isoflop.Budget], n_sizes: int, loss: np.ndarray):
        weights = np.ones_like(loss)
        self.windows = [budget.nearest(points, loss, weights, n_sizes) for budget in made]
        self.parabolas = [budget.parabola(points, loss, window) for budget, window in zip(made, self.windows)]
        self.inside: list[np.ndarray] = []
        self.sizes: list[np.ndarray] = []
        for budget, parabola in zip(made, self.parabolas):
            best, inside = budget.minimum(points, parabola)
            own = points.n_parameters[budget.runs]
            self.inside.append(inside)
            self.sizes.append(np.clip(np.nan_to_num(best, nan=float(own.max())), own.min(), own.max()))


def _of_window(points: Points, made: list[isoflop.Budget], n_sizes: int) -> dict[str, Any]:
    """Minima and laws by parabolas through that many sizes a budget."""
    fit = _Drawn(points, made, n_sizes, points.loss)
    fitted = points.loss.copy()
    for budget, (level, slope, bend), window in zip(made, fit.parabolas, fit.windows):
        x, inside = budget.log_n(points), window[budget.runs] > 0
        fitted[budget.runs[inside]] = (level + slope * x + bend * x * x)[inside]
    used = np.concatenate([budget.runs[window[budget.runs] > 0] for budget, window in zip(made, fit.windows)])
    n_free = 3 * len(made)  # constants of the parabolas; a budget has a size more at least
    sd = relative_sd(points.loss[used], fitted[used], n_free)
    drawn = _Drawn(points, made, n_sizes, with_misses(fitted, sd, len(used) - n_free))
    listed = [_budget(points, budget, place, fit, drawn) for place, budget in enumerate(made)]
    found: dict[str, Any] = {"n_sizes_in_parabola": n_sizes, "residual_sd": sd, "budgets": listed}
    inside = [place for place, budget in enumerate(listed) if budget["interior"]]
    if len(inside) < 2:
        return found | {"problem": f"{len(inside)} of {len(made)} minima lie inside the sizes that were trained, and a "
                                   "law needs two; train smaller or larger sizes there"}  # fmt: skip
    laws = {name: _optimum_laws(points, name, made, inside, fit, drawn) for name in points.flops}
    return found | {"laws": laws}


def _n_sizes(points: Points, budget: isoflop.Budget) -> int:
    return len(set(points.n_parameters[budget.runs]))


def _budget(points: Points, budget: isoflop.Budget, place: int, fit: _Drawn, draws: _Drawn) -> dict[str, Any]:
    sizes = points.n_parameters[budget.runs]
    interior = bool(fit.inside[place])
    found: dict[str, Any] = {
        "flops": float(np.exp(np.log(points.flops[budget.convention][budget.runs]).mean())),
        "n_runs": len(budget.runs),
        "n_sizes": _n_sizes(points, budget),
        "interior": interior,
        "interior_share_of_draws": float(np.mean(draws.inside[place])),
        "band": _band(points, budget, fit.windows[place], draws.parabolas[place]),
    }
    if not interior:
        return found | {"best_size_trained": float(sizes[np.argmin(points.loss[budget.runs])])}
    best, drawn = fit.sizes[place], draws.sizes[place]

    def tokens_at(n: np.ndarray) -> np.ndarray:
        return budget.at(points, points.tokens, n)

    return found | {
        "n_parameters": constant(best, drawn),
        "tokens": constant(tokens_at(best), tokens_at(drawn)),
        "tokens_per_parameter": constant(tokens_at(best) / best, tokens_at(drawn) / drawn),
    }


def _band(points: Points, budget: isoflop.Budget, window: np.ndarray, parabolas: np.ndarray) -> dict[str, list[float]]:
    """Where 95 % of the draws' parabolas (N_DRAWS, 3) lie over the sizes of the window."""
    x = budget.log_n(points)
    inside = x[window[budget.runs] > 0]
    at = np.linspace(inside.min(), inside.max(), N_BAND)
    drawn = parabolas @ np.stack([np.ones_like(at), at, at * at])
    low, high = zip(*(interval(column) for column in drawn.T))
    n_parameters = np.exp(at + np.log(points.n_parameters[budget.runs]).mean())
    return {"n_parameters": n_parameters.tolist(), "low": list(low), "high": list(high)}


def _optimum_laws(points: Points, convention: str, made: list[isoflop.Budget], inside: list[int],
                  fit: _Drawn, draws: _Drawn) -> dict[str, Any]:  # fmt: skip
    """Exponents of N* and D* in C, and the error at the largest budget of the law of all smaller ones; where a draw's
    minimum left the sizes, it counts at the nearest one."""
    kept = [made[place] for place in inside]

    def optima(drawn: _Drawn) -> dict[str, np.ndarray]:
        n = np.stack([drawn.sizes[place] for place in inside], axis=-1)
        return {
            "n": n,
            "d": _at(points, points.tokens, kept, n),
            "flops": _at(points, points.flops[convention], kept, n),
        }

    best, drawn = optima(fit), optima(draws)
    result: dict[str, Any] = {}
    for key in "nd":
        exponent, level = isoflop.power_of(best["flops"], best[key])
        exponents, levels = isoflop.power_of(drawn["flops"], drawn[key])
        result[f"{key}_exponent"] = constant(exponent, exponents)
        result[f"log_{key}_factor"] = constant(level, levels)
        if len(kept) > 2:
            exponent, level = isoflop.power_of(best["flops"][:-1], best[key][:-1])
            result[f"{key}_held_out_error"] = float(np.exp(level) * best["flops"][-1] ** exponent / best[key][-1] - 1)
    return result


def _at(points: Points, values: np.ndarray, made: list[isoflop.Budget], sizes: np.ndarray) -> np.ndarray:
    """`values` (n,) of the runs, tokens or FLOPs, at one size (..., n_budgets) for each budget."""
    return np.stack([budget.at(points, values, sizes[..., i]) for i, budget in enumerate(made)], axis=-1)
