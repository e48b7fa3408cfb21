"""Loss against what training costs: L(C) = (C / C0)^-alpha + E, and the pure power law, where E is 0.

C is FLOPs, seconds, joules or US dollars, and C0 in the same unit. The offset law is fitted as the equation 1 of
Cerebras-GPT can be: least squares of the loss itself. For a given alpha that is a straight line in C^-alpha, so that
only alpha is searched for, in all bootstrap draws at once. The power law is a straight line of log loss in log C.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from cgpt.scaling.statistics import SAME, n_different

N_FREE = {"offset": 3, "power": 2}  # free constants of each form
LEAST_ALPHA, MOST_ALPHA = 1e-3, 3.0
_ALPHAS = np.geomspace(LEAST_ALPHA, MOST_ALPHA, 100)  # grid that brackets alpha
_AT_AN_END = 1.1  # an alpha within this ratio of an end of the grid, whose step is less, is no minimum
_GOLDEN = (np.sqrt(5) - 1) / 2
_GOLDEN_STEPS = 40


def constants_in(unit: str) -> tuple[str, str, str]:
    """Names of the constants where the cost is in `unit`: flops, s, j or usd."""
    return f"c0_{unit}", "alpha", "e"


def law_of(fit: Mapping[str, Any]) -> np.ndarray:
    """C0, alpha and E of a fit in fits.json; E is 0 in a power law."""
    constants = [constant["value"] for constant in fit["constants"].values()]
    return np.array(constants if fit["form"] == "offset" else [*constants, 0.0])


def decided(fits: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The offset law of these fits, or where the settings are too few for an offset the power law, or None."""
    return min((fit for fit in fits if "draws" in fit), key=lambda fit: fit["form"] != "offset", default=None)


def loss_at(constants: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """L(C), (..., n), of constants (..., 3) at `cost` (n,)."""
    c0, alpha, e = (constants[..., [i]] for i in range(3))
    with np.errstate(divide="ignore"):  # C0 of an alpha near 0 is beyond what floats hold: 0 or infinite
        return np.exp(alpha * (np.log(c0) - np.log(cost))) + e


def cost_at(constants: np.ndarray, loss: float) -> np.ndarray:
    """C(L) of constants (..., 3); infinite where the loss is not above E, NaN where C0 is beyond what floats hold."""
    c0, alpha, e = (constants[..., i] for i in range(3))
    above = np.maximum(loss - e, 0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return c0 * above ** (-1 / alpha)


def fit_power(cost: np.ndarray, loss: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """C0, alpha and E = 0, (..., 3): least squares of log loss. Shapes as of `fit_offset`."""
    y = np.log(loss)
    w = np.ones_like(y) if weights is None else weights
    slope, level, _ = _line(np.log(cost), y, w)
    alpha = -slope
    with np.errstate(over="ignore", divide="ignore"):  # of a loss that does not change
        return np.stack([np.exp(level / alpha), alpha, np.zeros_like(alpha)], axis=-1)


def fit_offset(cost: np.ndarray, loss: np.ndarray, weights: np.ndarray | None = None, relative: bool = False
               ) -> np.ndarray:  # fmt: skip
    """C0, alpha and E >= 0, (..., 3), of `cost` (n,) and `loss` (..., n): least squares of the loss.

    `weights` (..., n) says how often each run counts. `relative`: least squares of the relative error instead.
    """
    w = np.ones_like(loss) if weights is None else weights
    w, y = np.broadcast_arrays(w / loss**2 if relative else w, loss)
    middle = np.exp(np.mean(np.log(cost)))
    x = np.log(cost / middle)

    def squares(alpha: np.ndarray) -> np.ndarray:
        return _given_alpha(alpha, x, y, w)[2]

    on_grid = np.stack([squares(np.full(y.shape[:-1], alpha)) for alpha in _ALPHAS])
    best = np.argmin(on_grid, axis=0)
    low, high = _ALPHAS[np.maximum(best - 1, 0)], _ALPHAS[np.minimum(best + 1, len(_ALPHAS) - 1)]
    alpha = np.exp(_golden_section(lambda log_alpha: squares(np.exp(log_alpha)), np.log(low), np.log(high)))
    scale, e, _ = _given_alpha(alpha, x, y, w)
    with np.errstate(over="ignore"):
        return np.stack([middle * scale ** (1 / alpha), alpha, e], axis=-1)


def undecided(form: str, law: np.ndarray, cost: np.ndarray, loss: np.ndarray) -> str | None:
    """Why settings at `cost` (n,) of `loss` (n,) follow no law of the form, of which `law` is the nearest; or None."""
    if fit_power(cost, loss)[1] < LEAST_ALPHA:
        return "the loss does not fall as the cost grows; look at the runs, or train at more budgets"
    if form == "offset" and not LEAST_ALPHA * _AT_AN_END < law[1] < MOST_ALPHA / _AT_AN_END:
        return (f"no alpha from {LEAST_ALPHA:g} to {MOST_ALPHA:g} is best: the loss falls at some costs and is flat at "
                "the others; train at more budgets, or leave out the smallest")  # fmt: skip
    return None


FITTERS: dict[str, Callable[..., np.ndarray]] = {"offset": fit_offset, "power": fit_power}


def held_out_errors(form: str, cost: np.ndarray, loss: np.ndarray, setting_of: np.ndarray) -> list[tuple[int, float]]:
    """For each setting that enough cheaper ones precede: its number, and (predicted - observed) / observed.

    The law is fitted to the settings that cost less alone; the observed loss is the mean over the setting's seeds.
    """
    order = sorted(set(setting_of), key=lambda number: cost[setting_of == number].mean())
    errors = []
    for n in range(N_FREE[form], len(order)):
        held_out = setting_of == order[n]
        before = np.isin(setting_of, order[:n]) & (SAME * cost < cost[held_out].mean())
        if not before.any() or n_different(cost[before]) < N_FREE[form]:
            continue
        law = FITTERS[form](cost[before], loss[before])
        predicted = loss_at(law, cost[held_out].mean(keepdims=True))[0]
        errors.append((int(order[n]), float(predicted / loss[held_out].mean() - 1)))
    return errors


def _line(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, level and sum of squares of the weighted straight line."""
    total = w.sum(-1)
    mean_x, mean_y = (w * x).sum(-1) / total, (w * y).sum(-1) / total
    dx, dy = x - mean_x[..., None], y - mean_y[..., None]
    slope = (w * dx * dy).sum(-1) / (w * dx * dx).sum(-1)
    return slope, mean_y - slope * mean_x, (w * (dy - slope[..., None] * dx) ** 2).sum(-1)


def _given_alpha(alpha: np.ndarray, x: np.ndarray, y: np.ndarray, w: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """The best scale and E >= 0 at `alpha` (...), and their sum of squares."""
    u = np.exp(-alpha[..., None] * x)
    scale, e, squares = _line(u, y, w)
    through_0 = (w * u * y).sum(-1) / (w * u * u).sum(-1)
    bound = e < 0
    scale, e = np.where(bound, through_0, scale), np.where(bound, 0, e)
    squares_0 = (w * (y - through_0[..., None] * u) ** 2).sum(-1)
    return np.maximum(scale, 1e-12), e, np.where(bound, squares_0, squares)


def _golden_section(f: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where each element of `f` is least between `low` and `high`."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = f(left), f(right)
    for _ in range(_GOLDEN_STEPS):
        down = at_left < at_right
        low, high = np.where(down, low, left), np.where(down, right, high)
        inner = np.where(down, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_inner = f(inner)
        left, right = np.where(down, inner, right), np.where(down, left, inner)
        at_left, at_right = np.where(down, at_inner, at_right), np.where(down, at_left, at_inner)
    return (low + high) / 2
