"""The best size of each compute budget: a parabola of loss in log N, and N*(C), D*(C) through the minima.

Hoffmann et al. 2022, approach 2. A minimum counts only inside the range of sizes that were trained. A parabola goes
through the sizes nearest the best one; one through all sizes stands beside it, as the two may differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cgpt.scaling.points import Points
from cgpt.scaling.statistics import constant, interval, relative_sd, with_misses

SAME_BUDGET = 1.1  # runs whose FLOPs differ by less than this ratio, step by step, share a budget
LEAST_SIZES = 4  # sizes that a budget needs: a parabola has three constants
NEAREST = 5  # sizes that a parabola goes through
N_BAND = 40  # points at which a parabola's band is kept


@dataclass(frozen=True)
class Budget:
    """The runs of one budget, as indices of the points; `convention` is the one in which their FLOPs agree."""

    runs: np.ndarray
    convention: str

    def parabola(self, points: Points, loss: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Level, slope and half the curvature of the loss (..., n) in log N / N0 (`log_n`), (..., 3)."""
        x = self.log_n(points)
        basis = np.stack([np.ones_like(x), x, x * x], axis=-1)
        weighed = basis * weights[..., self.runs, None]
        left = np.swapaxes(weighed, -1, -2) @ basis
        right = np.swapaxes(weighed, -1, -2) @ loss[..., self.runs, None]
        return np.linalg.solve(left, right)[..., 0]

    def log_n(self, points: Points) -> np.ndarray:
        """log N of the budget's runs, relative to the budget's geometric mean."""
        x = np.log(points.n_parameters[self.runs])
        return x - x.mean()

    def minimum(self, points: Points, parabola: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """N* (...) of a `parabola` (..., 3) and whether it lies among the sizes; NaN where it opens downward."""
        _, slope, bend = np.moveaxis(parabola, -1, 0)
        x = self.log_n(points)
        with np.errstate(divide="ignore", invalid="ignore"):
            best = np.where(bend > 0, -slope / (2 * bend), np.nan)
        inside = (best > x.min()) & (best < x.max())
        with np.errstate(over="ignore"):
            return np.exp(best + np.log(points.n_parameters[self.runs]).mean()), inside

    def nearest(self, points: Points, loss: np.ndarray, weights: np.ndarray, n_sizes: int) -> np.ndarray:
        """`weights` (..., n) with 0 for all but the `n_sizes` sizes nearest in log N to the one of least loss (..., n),
        of those that have a weight: far from its minimum the loss is no parabola."""
        x, present = self.log_n(points), weights[..., self.runs] > 0
        best = np.argmin(np.where(present, loss[..., self.runs], np.inf), axis=-1)
        away = np.abs(x - x[best][..., None])
        sizes = np.unique(x)
        has_size = np.stack([present[..., x == size].any(axis=-1) for size in sizes], axis=-1)
        by_size = np.where(has_size, np.abs(sizes - x[best][..., None]), np.inf)
        farthest = np.sort(by_size, axis=-1)[..., min(n_sizes, len(sizes)) - 1]
        kept = np.array(weights, dtype=float)
        kept[..., self.runs] *= away <= farthest[..., None] * (1 + 1e-9)
        return kept

    def at(self, points: Points, values: np.ndarray, n_parameters: np.ndarray) -> np.ndarray:
        """`values` (n,) of the budget's runs, tokens or FLOPs, at a size between theirs."""
        sizes, first = np.unique(points.n_parameters[self.runs], return_index=True)
        return np.exp(np.interp(np.log(n_parameters), np.log(sizes), np.log(values[self.runs][first])))


def budgets(points: Points) -> list[Budget]:
    """Budgets with enough sizes, from small to large, under the convention in which most runs share one."""
    by_convention = [_budgets_of(points, name) for name in points.flops]
    return max(by_convention, key=lambda made: (sum(len(budget.runs) for budget in made), -_spread(points, made)))


def power_of(flops: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponent and log factor of sizes ~ C^exponent, through (..., n_budgets) points."""
    x, y = np.log(flops), np.log(sizes)
    dx = x - x.mean(axis=-1, keepdims=True)
    exponent = (dx * y).sum(axis=-1) / (dx * dx).sum(axis=-1)
    return exponent, y.mean(axis=-1) - exponent * x.mean(axis=-1)


def _budgets_of(points: Points, convention: str) -> list[Budget]:
    flops = points.flops[convention]
    order = np.argsort(flops)
    jumps = np.flatnonzero(np.diff(np.log(flops[order])) > np.log(SAME_BUDGET)) + 1
    groups = [Budget(np.sort(runs), convention) for runs in np.split(order, jumps)]
    return [group for group in groups if _n_sizes(points, group) >= LEAST_SIZES]


def _spread(points: Points, made: list[Budget]) -> float:
    """Largest ratio of FLOPs within a budget."""
    return max((float(np.ptp(np.log(points.flops[each.convention][each.runs]))) for each in made), default=0.0)


def study(points: Points) -> dict[str, Any]:
    """Each budget's minimum, and N*, D* ~ C^exponent under every convention, or a `problem`.

    `all_sizes` holds the same by parabolas through all sizes, where a budget has more than NEAREST of them.
    """
    made = budgets(points)
    if not made:
        return {"problem": f"no budget has {LEAST_SIZES} sizes of equal FLOPs; train several sizes at one"}
    most = max(_n_sizes(points, budget) for budget in made)
    nearest = {"designed_in": made[0].convention, **_of_window(points, made, NEAREST)}
    return nearest | ({"all_sizes": _of_window(points, made, most)} if most > NEAREST else {})


class _Drawn:
    """Of losses of the settings, (n_draws, n) or (n,): every budget's window of sizes, the parabola through it, whether
    its minimum lies inside the sizes trained, and N*, the nearest of them where it does not."""

    def __init__(self, points: Points, made: list[Budget], n_sizes: int, loss: np.ndarray):
        weights = np.ones_like(loss)
        self.windows = [budget.nearest(points, loss, weights, n_sizes) for budget in made]
        self.parabolas = [budget.parabola(points, loss, window) for budget, window in zip(made, self.windows)]
        self.inside: list[np.ndarray] = []
        self.sizes: list[np.ndarray] = []
        for budget, parabola in zip(made, self.parabolas):
            best, inside = budget.minimum(points, parabola)
            trained = points.n_parameters[budget.runs]
            self.inside.append(inside)
            self.sizes.append(np.clip(np.nan_to_num(best, nan=float(trained.max())), trained.min(), trained.max()))


def _of_window(points: Points, made: list[Budget], n_sizes: int) -> dict[str, Any]:
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
    minima = [_minimum(points, budget, n, fit, drawn) for n, budget in enumerate(made)]
    fits: dict[str, Any] = {"n_sizes_in_parabola": n_sizes, "residual_sd": sd, "budgets": minima}
    inside = [n for n, minimum in enumerate(minima) if minimum["interior"]]
    if len(inside) < 2:
        return fits | {"problem": f"{len(inside)} of {len(made)} minima lie inside the sizes that were trained, and a "
                                  "law needs two; train smaller or larger sizes there"}  # fmt: skip
    return fits | {"laws": {name: _optimum_laws(points, name, made, inside, fit, drawn) for name in points.flops}}


def _n_sizes(points: Points, budget: Budget) -> int:
    return len(set(points.n_parameters[budget.runs]))


def _minimum(points: Points, budget: Budget, n: int, fit: _Drawn, draws: _Drawn) -> dict[str, Any]:
    """The best size of a budget, the `n`th of those drawn, with its tokens; of one at an end the size alone."""
    sizes = points.n_parameters[budget.runs]
    interior = bool(fit.inside[n])
    minimum: dict[str, Any] = {
        "flops": float(np.exp(np.log(points.flops[budget.convention][budget.runs]).mean())),
        "n_runs": len(budget.runs),
        "n_sizes": _n_sizes(points, budget),
        "interior": interior,
        "interior_share_of_draws": float(np.mean(draws.inside[n])),
        "band": _band(points, budget, fit.windows[n], draws.parabolas[n]),
    }
    if not interior:
        return minimum | {"best_size_trained": float(sizes[np.argmin(points.loss[budget.runs])])}
    best, drawn = fit.sizes[n], draws.sizes[n]
    tokens, drawn_tokens = (budget.at(points, points.tokens, size) for size in (best, drawn))
    return minimum | {
        "n_parameters": constant(best, drawn),
        "tokens": constant(tokens, drawn_tokens),
        "tokens_per_parameter": constant(tokens / best, drawn_tokens / drawn),
    }


def _band(points: Points, budget: Budget, window: np.ndarray, parabolas: np.ndarray) -> dict[str, list[float]]:
    """Where 95 % of the draws' parabolas (N_DRAWS, 3) lie over the sizes of the window."""
    x = budget.log_n(points)
    inside = x[window[budget.runs] > 0]
    at = np.linspace(inside.min(), inside.max(), N_BAND)
    drawn = parabolas @ np.stack([np.ones_like(at), at, at * at])
    low, high = zip(*(interval(column) for column in drawn.T))
    n_parameters = np.exp(at + np.log(points.n_parameters[budget.runs]).mean())
    return {"n_parameters": n_parameters.tolist(), "low": list(low), "high": list(high)}


def _optimum_laws(points: Points, convention: str, made: list[Budget], inside: list[int],
                  fit: _Drawn, draws: _Drawn) -> dict[str, Any]:  # fmt: skip
    """Exponents of N* and D* in C, and the error at the largest budget of the law of all smaller ones; where a draw's
    minimum left the sizes, it counts at the nearest one."""
    kept = [made[n] for n in inside]

    def optima(drawn: _Drawn) -> dict[str, np.ndarray]:
        sizes = np.stack([drawn.sizes[n] for n in inside], axis=-1)
        at_sizes = {"n": sizes}
        for key, values in (("d", points.tokens), ("flops", points.flops[convention])):
            of_budgets = [budget.at(points, values, sizes[..., i]) for i, budget in enumerate(kept)]
            at_sizes[key] = np.stack(of_budgets, axis=-1)
        return at_sizes

    best, drawn = optima(fit), optima(draws)
    result: dict[str, Any] = {}
    for key in "nd":
        exponent, level = power_of(best["flops"], best[key])
        exponents, levels = power_of(drawn["flops"], drawn[key])
        result[f"{key}_exponent"] = constant(exponent, exponents)
        result[f"log_{key}_factor"] = constant(level, levels)
        if len(kept) > 2:
            exponent, level = power_of(best["flops"][:-1], best[key][:-1])
            result[f"{key}_held_out_error"] = float(np.exp(level) * best["flops"][-1] ** exponent / best[key][-1] - 1)
    return result
