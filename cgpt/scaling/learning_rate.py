"""Does the best learning rate stay where it is when a model becomes wider? That of each width, with its interval.

Yang et al. 2022 (arXiv 2203.03466): under muP the rate tuned at a small width is the best one of a large width too.
"""

from typing import Any

import numpy as np

from cgpt.scaling.points import Points
from cgpt.scaling.statistics import N_DRAWS, SEED, interval

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # rates, mean loss and number of seeds at each, all (n_rates,)
LEAST_RATES = 3  # through which a parabola goes
LEAST_WIDTHS = 3  # with a best rate between others, for a power of the width that could be seen to be none


def study(points: Points) -> dict[str, Any]:
    """Each model's best rate and what the narrowest one's best rate of the grid costs it, and the power of the width
    that the best rate follows; or a `problem`.

    The best rate is the minimum of the parabola in log rate through the best rate of the grid and its two neighbours.
    Its interval comes from draws with normal noise of the seeds' standard deviation, pooled over the settings that
    such parabolas go through: rates at which training nearly diverges differ more from seed to seed. A best rate at an
    end of the grid is a bound, not a minimum (`interior` false), and has no part in the power.
    """
    if points.lr is None or points.d_model is None or len(set(points.lr)) < LEAST_RATES:
        return {"problem": f"fewer than {LEAST_RATES} learning rates; write e.g. `vary: {{train.lr: [...]}}`"}
    widths = sorted(set(points.d_model.tolist()))
    if points.n_settings > len(set(zip(points.d_model.tolist(), points.lr.tolist()))):
        return {"problem": "runs of one width and rate differ in more than their seed, in tokens or another key; ask "
                           "for it of one length, in an experiment of its own"}  # fmt: skip
    curves = [_curve(points, width) for width in widths]
    if len({tuple(rates) for rates, _, _ in curves}) > 1:
        return {"problem": "not every width has every learning rate; train all widths at all of them"}
    sd, freedom = _seed_sd(points, widths, curves)
    minima = [_minimum(rates, mean[None]) for rates, mean, _ in curves]
    drawn = _drawn_minima(curves, sd, freedom)
    rates, mean, _ = curves[0]
    narrowest = rates[np.argmin(mean)]
    study: dict[str, Any] = {"seed_sd": sd, "n_runs": len(points.loss), "widths": []}
    for width, (rates, mean, n), (best, level), drawn_best in zip(widths, curves, minima, drawn):
        inside = bool(0 < np.argmin(mean) < len(rates) - 1)
        study["widths"].append({
            "d_model": int(width),
            "n_parameters": float(points.n_parameters[points.d_model == width][0]),
            "lr": rates.tolist(), "loss": mean.tolist(), "n_seeds": n.tolist(),
            "best_on_grid": float(rates[np.argmin(mean)]), "interior": inside,
            "interior_share_of_draws": float(np.mean((drawn_best > rates[0]) & (drawn_best < rates[-1]))),
            "best_lr": float(best[0]), "best_lr_ends": None if sd is None or not inside else interval(drawn_best),
            "best_loss_on_grid": float(mean.min()), "best_loss": float(level[0]),
            "lost_at_narrowest_best_lr": float(mean[rates == narrowest][0] - mean.min()),
        })  # fmt: skip
    return study | ({"power_of_width": _power_of_width(study, drawn)} if len(widths) > 1 else {})


def _power_of_width(study: dict[str, Any], drawn: list[np.ndarray]) -> dict[str, Any]:
    """The power of the width that the best rates between others follow, or a `problem` where they are too few."""
    kept = [n for n, width in enumerate(study["widths"]) if width["interior"]]
    if len(kept) < LEAST_WIDTHS:
        return {"problem": f"{len(kept)} of {len(drawn)} best rates lie between others, and a power needs "
                           f"{LEAST_WIDTHS}; train lower or higher rates, or more widths"}  # fmt: skip
    log_width = np.log([study["widths"][n]["d_model"] for n in kept])
    power = np.polyfit(log_width, np.log([study["widths"][n]["best_lr"] for n in kept]), 1)[0]
    powers = np.polyfit(log_width, np.log(np.stack([drawn[n] for n in kept])), 1)[0]
    return {"value": float(power), "ends": None if study["seed_sd"] is None else interval(powers),
            "n_widths": len(kept), "n_at_an_end": len(drawn) - len(kept)}  # fmt: skip


def _drawn_minima(curves: list[Curve], sd: float | None, freedom: int) -> list[np.ndarray]:
    """Best rates (N_DRAWS,) of each width's curve with normal noise, whose standard deviation is as uncertain in each
    draw as the `freedom` degrees of freedom of `sd` leave it."""
    rng = np.random.default_rng(SEED)
    sds = (sd or 0.0) * np.sqrt(freedom / rng.chisquare(freedom, (N_DRAWS, 1))) if freedom else np.zeros((N_DRAWS, 1))
    return [_minimum(rates, mean + sds / np.sqrt(n) * rng.standard_normal((N_DRAWS, len(mean))))[0]
            for rates, mean, n in curves]  # fmt: skip


def _seed_sd(points: Points, widths: list[float], curves: list[Curve]) -> tuple[float | None, int]:
    """Standard deviation of the loss over seeds and its degrees of freedom, pooled over each width's best rate and its
    neighbours, where they have several seeds; None where none has."""
    assert points.lr is not None and points.d_model is not None
    squares, freedom = 0.0, 0
    for width, (rates, mean, _) in zip(widths, curves):
        for rate in rates[_around(np.array([np.argmin(mean)]), len(rates))[0]]:
            seeds = points.loss[(points.d_model == width) & (points.lr == rate)]
            squares += float(((seeds - seeds.mean()) ** 2).sum())
            freedom += len(seeds) - 1
    return (float(np.sqrt(squares / freedom)) if freedom else None), freedom


def _curve(points: Points, width: float) -> Curve:
    """The curve of a width, its rates in order."""
    assert points.lr is not None and points.d_model is not None
    of_width = points.d_model == width
    rates = np.array(sorted(set(points.lr[of_width])))
    at_rate = [points.loss[of_width & (points.lr == rate)] for rate in rates]
    return rates, np.array([loss.mean() for loss in at_rate]), np.array([len(loss) for loss in at_rate])


def _around(best: np.ndarray, n_rates: int) -> np.ndarray:
    """Indices of the best rate (n,) and its neighbours, or of the three at an end, (n, 3)."""
    return np.clip(best, 1, n_rates - 2)[:, None] + [-1, 0, 1]


def _minimum(rates: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best rate and its loss, each (n,), of curves (n, n_rates); an end of the rates where the curve falls up to it."""
    at = np.argmin(loss, axis=1)
    three = _around(at, len(rates))
    x = np.log(rates)[three]
    y = np.take_along_axis(loss, three, axis=1)
    left, right = (y[:, 1] - y[:, 0]) / (x[:, 1] - x[:, 0]), (y[:, 2] - y[:, 1]) / (x[:, 2] - x[:, 1])
    bend = (right - left) / (x[:, 2] - x[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        best = (x[:, 0] + x[:, 1]) / 2 - left / (2 * bend)
    best = np.where(at == three[:, 1], best, np.log(rates)[at])
    level = y[:, 0] + left * (best - x[:, 0]) + bend * (best - x[:, 0]) * (best - x[:, 1])
    return np.exp(best), level
