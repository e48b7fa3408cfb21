"""Figures of laws: lines are the laws, bands hold 95 % of the draws, points and stars stand where the numbers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from test_isoflop import BEND, LEVELS, best_sizes, parabolas
from test_scaling import EQUATION_1, MUP, SP

from cgpt.report.laws.figure import law_figure
from cgpt.report.laws.published_figure import published_figure
from cgpt.scaling.points import Points
from cgpt.scaling.study import study

LAW = (4e13, 0.2, 1.25)  # C0, alpha, E
BITS_PER_NAT = 0.7
Curve = Callable[[np.ndarray], np.ndarray]


def cost_law_of(constants: np.ndarray, scale: float = 1.0) -> Curve:
    """scale ((C / C0)^-alpha + E), of constants (..., 3)."""
    c0, alpha, e = np.moveaxis(np.asarray(constants, dtype=float)[..., None], -2, 0)
    return lambda cost: scale * ((cost / c0) ** -alpha + e)


def values_of(fit: dict) -> list[float]:
    return [constant["value"] for constant in fit["constants"].values()]


def has_line(axes: Axes, law: Curve, least_points: int = 20) -> bool:
    """Whether a line of that many points or more is the law's."""
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in axes.lines]
    return any(len(xy) >= least_points and np.allclose(law(xy[:, 0]), xy[:, 1], rtol=1e-4) for xy in lines)


def ends_of(band: PolyCollection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a band is drawn, and its lower and its upper edge there, all (n,)."""
    corners = band.get_paths()[0].vertices
    x = np.unique(corners[:, 0])
    low, high = np.array([np.quantile(corners[corners[:, 0] == at, 1], [0, 1]) for at in x]).T
    return x, low, high


def has_band(axes: Axes, draws: Curve) -> bool:
    """Whether 95 % of `draws`, (n_draws, n) at x (n,), lie in one of the bands, at each of its x."""
    for collection in axes.collections:
        if isinstance(collection, PolyCollection):
            x, low, high = ends_of(collection)
            drawn = draws(x)
            share = ((low <= drawn * (1 + 1e-9)) & (drawn * (1 - 1e-9) <= high)).mean(axis=0)
            if len(x) >= 20 and np.all(np.abs(share - 0.95) < 0.01):
                return True
    return False


def has_points(axes: Axes, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether each point is one of a line or of an error bar."""
    drawn = np.concatenate([np.asarray(line.get_xydata(), dtype=float) for line in axes.lines])
    return all(np.isclose(drawn, point, rtol=1e-6).all(axis=1).any() for point in zip(x, y, strict=True))


def has_bar(axes: Axes, low: float, high: float, y: float) -> bool:
    """Whether a horizontal error bar lies there."""
    bars = [bar for lines in axes.collections if isinstance(lines, LineCollection) for bar in lines.get_segments()]
    return any(np.shape(bar) == (2, 2) and np.allclose(bar, [(low, y), (high, y)], rtol=1e-3) for bar in bars)


def rate_points() -> Points:
    """Widths 32 and 64 at five learning rates around 0.02, two seeds each."""
    grid = np.meshgrid([32, 64], 0.02 * np.geomspace(1 / 5, 4, 5), [0, 1], indexing="ij")
    width, lr, _ = (axis.ravel() for axis in grid)
    loss = 3 + 10 / width + 0.05 * np.log(lr / 0.02) ** 2 + 0.005 * np.random.default_rng(0).standard_normal(20)
    ones, names = np.ones(20), tuple(f"{each:.0f}" for each in width)
    return Points(names, np.arange(20) // 2, 12 * width**2, None, 1e6 * ones, {"palm": 1e12 * ones}, loss, None,
                  d_model=width, lr=lr)  # fmt: skip


@pytest.fixture(scope="module")
def ours() -> Points:
    """Eight sizes with two seeds each, along LAW in FLOPs of either count, which are a factor of two apart."""
    cells = np.repeat(np.arange(8), 2)
    n = np.geomspace(1e5, 1e7, 8)[cells]
    palm = 120 * n**2
    loss = cost_law_of(LAW)(palm) * (1 + 0.003 * np.random.default_rng(0).standard_normal(16))
    names = tuple(f"{size:.0f}" for size in n)
    return Points(names, cells, n, None, 20 * n, {"palm": palm, "cerebras": palm / 2}, loss, BITS_PER_NAT * loss)


def test_the_published_figure_draws_the_papers_law_and_ours_with_the_bands_of_their_draws(ours):
    made = {"paper": study(SP, ("compute",), "reported"), "ours": study(ours, ("compute",), "cerebras")}
    laws = {name: next(fit for fit in fits["compute"] if fit["form"] == "offset" and "draws" in fit)
            for name, fits in made.items()}  # fmt: skip
    others = {"another": (np.array([1e20, 1e22]), np.array([2.5, 2.0]))}
    (axes,) = published_figure({"ours": ours}, {"SP": SP, "muP": MUP}, others, laws).axes
    scales = {"paper": float(SP.bits_per_byte[0] / SP.loss[0]), "ours": BITS_PER_NAT}
    assert has_line(axes, cost_law_of(EQUATION_1, scales["paper"]), 100)
    assert has_line(axes, cost_law_of(values_of(laws["ours"]), BITS_PER_NAT), 100)
    for name, fit in laws.items():
        assert has_band(axes, cost_law_of(fit["draws"], scales[name])), name
    assert has_points(axes, ours.flops["cerebras"], ours.bits_per_byte)
    for points in (SP, MUP):
        assert has_points(axes, points.flops["reported"], points.bits_per_byte)
    assert has_points(axes, others["another"][0], scales["paper"] * others["another"][1])
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_the_panel_of_compute_draws_both_laws_the_band_of_the_offset_law_and_the_mean_of_each_setting(ours):
    fits = study(ours, ("compute",))
    (axes,) = law_figure({"": ours}, {"": fits}).axes
    offset, power = (fit for fit in fits["compute"] if "draws" in fit)
    assert has_line(axes, cost_law_of(values_of(offset))) and has_line(axes, cost_law_of([*values_of(power), 0]))
    assert has_band(axes, cost_law_of(offset["draws"]))
    assert has_points(axes, ours.flops["palm"][::2], ours.loss.reshape(8, 2).mean(axis=1))


def test_the_panel_of_size_and_tokens_draws_the_law_and_its_band_for_every_size():
    n, per_parameter = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e7, 3), [5, 20, 80]))
    tokens = n * per_parameter
    loss = (1.5 + 30 / n**0.3 + 200 / tokens**0.35) * (1 + 0.003 * np.random.default_rng(0).standard_normal(9))
    names = tuple(f"{size:.0f}" for size in n)
    points = Points(names, np.arange(9), n, None, tokens, {"palm": 6 * n * tokens}, loss, None)
    fits = study(points, ("parametric",))
    (axes,) = law_figure({"": points}, {"": fits}).axes
    fit = fits["parametric"]["n_parameters"]
    for size in set(n):

        def losses(x: np.ndarray, constants: np.ndarray, size: float = size) -> np.ndarray:
            a, b, e, alpha, beta = np.moveaxis(constants[..., None], -2, 0)
            return e + a / size**alpha + b / x**beta

        assert has_line(axes, lambda x, at=losses: at(x, np.array(values_of(fit)[:5])))
        assert has_band(axes, lambda x, at=losses: at(x, np.array(fit["draws"])))
    assert has_points(axes, tokens, loss)


def test_the_panel_of_budgets_draws_each_parabola_and_its_minimum_with_the_interval():
    exact = parabolas(best_sizes())
    (axes,) = law_figure({"": exact}, {"": study(exact, ("isoflop",), "6nd")}).axes
    for best, level in zip(best_sizes(), LEVELS, strict=True):
        assert has_line(axes, lambda n, best=best, level=level: level + BEND * np.log(n / best) ** 2)
        assert has_points(axes, np.array([best]), np.array([level]))
    assert has_points(axes, exact.n_parameters, exact.loss)
    noisy = parabolas(best_sizes(), 0.002)
    fits = study(noisy, ("isoflop",), "6nd")
    (axes,) = law_figure({"": noisy}, {"": fits}).axes
    for budget in fits["isoflop"]["budgets"]:
        best = budget["n_parameters"]
        (level,) = {y for x, y in np.concatenate([line.get_xydata() for line in axes.lines])
                    if np.isclose(x, best["value"], rtol=1e-9)}  # fmt: skip
        assert has_bar(axes, *best["ends"], level)


def test_the_panel_of_learning_rates_draws_each_widths_means_and_its_best_rate_with_the_interval():
    points = rate_points()
    fits = study(points, ("learning_rate",))
    (axes,) = law_figure({"": points}, {"": fits}).axes
    for width in (32, 64):
        of_width = points.d_model == width
        rates = np.array(sorted(set(points.lr[of_width])))
        assert has_points(axes, rates, np.array([points.loss[of_width & (points.lr == rate)].mean() for rate in rates]))
    for width in fits["learning_rate"]["widths"]:
        assert has_points(axes, np.array([width["best_lr"]]), np.array([width["best_loss"]]))
        assert has_bar(axes, *width["best_lr_ends"], width["best_loss"])


def test_a_best_rate_at_an_end_is_a_white_star_above_its_curve_and_every_rate_has_its_label():
    """A star without a face let the point below it show through, so that it looked like the others."""
    points = rate_points()
    low = points._of(np.flatnonzero(points.lr <= sorted(set(points.lr))[2]))
    fits = study(low, ("learning_rate",))
    (axes,) = law_figure({"": low}, {"": fits}).axes
    widths = fits["learning_rate"]["widths"]
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    assert [star.get_markerfacecolor() == "white" for star in stars] == [not width["interior"] for width in widths]
    assert "white" in [star.get_markerfacecolor() for star in stars]
    assert all(star.get_zorder() > line.get_zorder() for star in stars for line in axes.lines if line not in stars
               if line.get_marker() not in ("|", "None"))  # fmt: skip
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [f"{rate:g}" for rate in widths[0]["lr"]]


def test_the_bands_of_budgets_are_about_as_wide_as_the_true_parabolas_need():
    """Of sizes drawn again, seven of one seed each, they hold the truth a little less often than 95 % of the time."""
    sd, held, widths = 0.002, [], []
    for seed in range(10):
        points = parabolas(best_sizes(), sd, seed)
        (axes,) = law_figure({"": points}, {"": study(points, ("isoflop",), "6nd")}).axes
        bands = [each for each in axes.collections if isinstance(each, PolyCollection)]
        for band, best, level in zip(bands, best_sizes(), LEVELS, strict=True):
            x, low, high = ends_of(band)
            truth = level + BEND * np.log(x / best) ** 2
            held.append(np.mean((low <= truth) & (truth <= high)))
            widths.append(np.mean(high - low))
    assert 0.75 < np.mean(held) < 0.99
    assert sd < np.mean(widths) < 6 * sd
