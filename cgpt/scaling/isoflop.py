"""The best size of each compute budget: a parabola of loss in log N, and N*(C), D*(C) through the minima.

Hoffmann et al. 2022, approach 2. A minimum counts only inside the range of sizes that were trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cgpt.scaling.points import Points

SAME_BUDGET = 1.1  # runs whose FLOPs differ by less than this ratio, step by step, share a budget
LEAST_SIZES = 4  # sizes that a budget needs: a parabola has three constants


@dataclass(frozen=True)
class Budget:
    """The runs of one budget, as places in the points; `convention` is the one in which their FLOPs agree."""

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
    found = {name: _budgets_of(points, name) for name in points.flops}
    return max(found.values(), key=lambda made: (sum(len(budget.runs) for budget in made), -_spread(points, made)))


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
    return [group for group in groups if len(set(points.n_parameters[group.runs])) >= LEAST_SIZES]


def _spread(points: Points, made: list[Budget]) -> float:
    """Largest ratio of FLOPs within a budget."""
    return max((float(np.ptp(np.log(points.flops[each.convention][each.runs]))) for each in made), default=0.0)
