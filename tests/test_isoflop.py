"""IsoFLOP budgets made of parabolas: what they were made of comes back, from sizes that lie mostly to one side."""

from __future__ import annotations

import numpy as np
import pytest

from cgpt.scaling import isoflop
from cgpt.scaling.points import Points
from cgpt.scaling.study import study

BUDGETS = np.geomspace(1e15, 1e18, 4)
N_FACTOR, N_EXPONENT = 0.2, 0.55  # of N* in C
AROUND = np.geomspace(1 / 2, 6, 7)  # sizes as multiples of N*, whose middle is not 1
LEVELS, BEND = np.array([3.2, 2.9, 2.6, 2.4]), 0.07


def best_sizes() -> np.ndarray:
    """N* of BUDGETS."""
    return N_FACTOR * BUDGETS**N_EXPONENT


def parabolas(best: np.ndarray, noise: float = 0.0, seed: int = 0) -> Points:
    """Budgets of 6 N D at sizes AROUND `best` (4,); loss = LEVELS + BEND (log N / best)^2."""
    n = (best[:, None] * AROUND).ravel()
    flops = np.repeat(BUDGETS, len(AROUND))
    loss = (LEVELS[:, None] + BEND * np.log(AROUND) ** 2).ravel()
    loss = loss + noise * np.random.default_rng(seed).standard_normal(len(n))
    names = tuple(f"{size:.0f}" for size in n)
    return Points(names, np.arange(len(n)), n, None, flops / 6 / n, {"6nd": flops}, loss, None)


def test_a_minimum_off_the_middle_of_the_sizes_comes_back_with_its_tokens_and_the_powers_of_compute():
    points = parabolas(best_sizes())
    minima = study(points, ("isoflop",), "6nd")["isoflop"]
    made = isoflop.budgets(points)
    for trained, budget, flops, best in zip(made, minima["budgets"], BUDGETS, best_sizes(), strict=True):
        assert budget["interior"] and budget["flops"] == pytest.approx(flops)
        assert budget["n_parameters"]["value"] == pytest.approx(best, rel=1e-6)
        sizes = best * np.array([0.7, 1, 3])
        assert trained.at(points, points.tokens, sizes) == pytest.approx(flops / 6 / sizes)
    law = minima["laws"]["6nd"]
    assert law["n_exponent"]["value"] == pytest.approx(N_EXPONENT, abs=1e-6)
    assert law["d_exponent"]["value"] == pytest.approx(1 - N_EXPONENT, abs=1e-6)
    assert law["n_held_out_error"] == pytest.approx(0, abs=1e-5)
    assert isoflop.power_of(BUDGETS, best_sizes()) == pytest.approx((N_EXPONENT, np.log(N_FACTOR)))


def test_the_error_at_the_largest_budget_is_what_that_budget_alone_is_off_by():
    best = best_sizes() * [1, 1, 1, 1.3]
    law = study(parabolas(best), ("isoflop",), "6nd")["isoflop"]["laws"]["6nd"]
    assert law["n_held_out_error"] == pytest.approx(1 / 1.3 - 1, abs=1e-5)
    assert law["d_held_out_error"] == pytest.approx(1.3 - 1, abs=1e-5)
