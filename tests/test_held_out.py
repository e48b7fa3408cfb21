"""Errors of extrapolation: exact points of a law whose largest runs alone are spoiled are off by just that much."""

from __future__ import annotations

import numpy as np
import pytest

from cgpt.scaling import cost_law
from cgpt.scaling.points import Points
from cgpt.scaling.study import study

SPOILED = 1.05
ERROR = 1 / SPOILED - 1  # of the law that the other runs follow, relative to the spoiled loss


@pytest.mark.parametrize(("form", "law"), [("offset", (1e18, 0.05, 1.0)), ("power", (1e15, 0.1, 0.0))])
def test_the_largest_run_has_no_part_in_the_law_that_predicts_it(form, law):
    cells = np.repeat(np.arange(8), 2)
    flops = np.geomspace(1e14, 1e19, 8)[cells]
    c0, alpha, e = law
    loss = ((flops / c0) ** -alpha + e) * np.where(cells == 7, SPOILED, 1)
    errors = dict(cost_law.held_out_errors(form, flops, loss, cells))
    assert errors.pop(7) == pytest.approx(ERROR, abs=1e-3)
    assert errors and list(errors.values()) == pytest.approx([0] * len(errors), abs=1e-3)


def test_the_largest_size_has_no_part_in_the_law_of_size_and_tokens_that_predicts_it():
    n, per_parameter = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e7, 5), [5, 20, 80]))
    tokens, largest = n * per_parameter, n > 9e6
    loss = (1.5 + 30 / n**0.3 + 200 / tokens**0.35) * np.where(largest, SPOILED, 1)
    names = tuple(f"{size:.0f}" for size in n)
    points = Points(names, np.arange(15), n, None, tokens, {"6nd": 6 * n * tokens}, loss, None)
    held_out = study(points, ("parametric",), "6nd")["parametric"]["n_parameters"]["held_out"]
    assert [held["model"] for held in held_out] == ["10000000"] * 3
    assert [held["error"] for held in held_out] == pytest.approx([ERROR] * 3, abs=1e-3)
