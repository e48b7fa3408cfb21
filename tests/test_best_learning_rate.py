"""The best learning rate of each width, against parabolas whose minimum is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cgpt.report.laws import page as report
from cgpt.report.laws.figure import law_figure
from cgpt.report.page import markdown
from cgpt.scaling import learning_rate
from cgpt.scaling.points import Points
from cgpt.scaling.study import study

RATES = 2.0 ** -np.arange(3, 10)


def rate_points(best_at: Callable[[int], float], noise: float = 0.0, seed: int = 0) -> Points:
    """Four widths at RATES with two seeds; loss is a parabola in log rate around `best_at` of the width."""
    rng = np.random.default_rng(seed)
    rows = [(width, lr, cell) for cell, (width, lr) in enumerate((w, r) for w in (32, 64, 128, 256) for r in RATES)
            for _ in range(2)]  # fmt: skip
    width, lr, cells = (np.array(column) for column in zip(*rows))
    best = np.array([best_at(w) for w in width])
    loss = 3 + 10 / width + 0.05 * np.log(lr / best) ** 2 + noise * rng.standard_normal(len(lr))
    ones = np.ones(len(lr))
    return Points(tuple(map(str, width)), cells, 12.0 * width**2, None, 1e6 * ones, {"palm": 1e12 * ones}, loss, None,
                  d_model=width, lr=lr)  # fmt: skip


def test_a_best_rate_that_falls_with_the_width_is_found_and_so_is_one_that_stays():
    falling = learning_rate.study(rate_points(lambda width: 1.3 / width))
    assert [width["best_lr"] for width in falling["widths"]] == pytest.approx([1.3 / w for w in (32, 64, 128, 256)])
    assert falling["power_of_width"]["value"] == pytest.approx(-1)
    assert [width["best_loss"] for width in falling["widths"]] == pytest.approx(
        [3 + 10 / w for w in (32, 64, 128, 256)]
    )
    last = falling["widths"][-1]
    at_most = 0.05 * np.log(RATES[2] / (1.3 / 256)) ** 2  # RATES[2] is the narrowest one's best on the grid
    at_least = 0.05 * np.log(RATES[5] / (1.3 / 256)) ** 2
    assert last["lost_at_narrowest_best_lr"] == pytest.approx(at_most - at_least)
    staying = learning_rate.study(rate_points(lambda width: 0.02))
    assert staying["power_of_width"]["value"] == pytest.approx(0, abs=1e-9)


def test_the_interval_of_a_best_rate_holds_the_true_one_in_about_95_of_100_studies():
    studies = [learning_rate.study(rate_points(lambda width: 0.02, 0.01, seed)) for seed in range(50)]
    held = [low <= 0.02 <= high for made in studies for low, high in (w["best_lr_ends"] for w in made["widths"])]
    assert 0.9 <= np.mean(held) <= 0.99


def test_the_interval_of_the_power_of_the_width_holds_the_true_one_in_about_95_of_100_studies():
    """Widths err each on its own: errors that all shared would cancel in the power and make it look sure."""
    powers = [learning_rate.study(rate_points(lambda width: 0.02, 0.01, seed))["power_of_width"] for seed in range(100)]
    held = [power["ends"][0] <= 0 <= power["ends"][1] for power in powers]
    assert 0.89 <= np.mean(held) <= 0.99


def test_a_rate_at_the_end_of_the_grid_is_said_to_be_no_minimum():
    fit = learning_rate.study(rate_points(lambda width: 1.0))
    assert [width["interior"] for width in fit["widths"]] == [False] * 4
    assert [width["best_lr"] for width in fit["widths"]] == pytest.approx([RATES.max()] * 4)
    assert "NOT interior" in markdown(
        report.page("x", "", {"": study(rate_points(lambda _: 1.0), ("learning_rate",))}, [])
    )


def test_a_best_rate_at_the_grids_end_has_no_part_in_the_power_and_two_others_give_none():
    """The widest one's best rate lies beyond the grid; with a second one there, no power is printed."""
    one_out = learning_rate.study(rate_points(lambda width: 1.3 / width if width < 256 else 1e-4))
    assert [width["interior"] for width in one_out["widths"]] == [True, True, True, False]
    assert one_out["power_of_width"]["value"] == pytest.approx(-1) and one_out["power_of_width"]["n_widths"] == 3
    assert one_out["widths"][3]["best_lr_ends"] is None
    points = rate_points(lambda width: 1.3 / width if width < 128 else 1e-4)
    made = study(points, ("learning_rate",))
    assert "2 of 4 best rates lie between others" in made["learning_rate"]["power_of_width"]["problem"]
    page = markdown(report.page("x", "", {"": made}, []))
    assert "2 of 4 best rates lie between others" in page and "or beyond, NOT interior" in page
    (axes,) = law_figure({"": points}, {"": made}).axes
    assert axes.get_title() == "no power of the width"
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    assert sorted(str(star.get_markerfacecolor()) for star in stars)[-2:] == ["white", "white"]


def test_runs_of_two_lengths_are_not_taken_for_seeds_of_one_rate():
    points = rate_points(lambda width: 0.02)
    doubled = replace(points, setting_of=np.arange(len(points.loss)))
    assert "differ in more than their seed" in learning_rate.study(doubled)["problem"]
