"""How many draws the intervals rest on, and that those kept in fits.json give the same interval."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from test_isoflop import best_sizes, parabolas
from test_law_figure import rate_points
from test_scaling import SP, made_of

from cgpt.recipe.flops import flops_per_token
from cgpt.report.laws import page
from cgpt.scaling import fitted_law
from cgpt.scaling.parametric_law import ParametricLaw
from cgpt.scaling.statistics import interval
from cgpt.scaling.study import study
from cgpt.spec import Model

LEAST_DRAWS = 1000  # an end that 2.5 % of them lie beyond is then off by about a tenth of their standard deviation
GRID = np.meshgrid(np.geomspace(1e5, 1e7, 3), [5, 20, 80])


def test_every_interval_is_of_a_thousand_draws_or_more(monkeypatch):
    counted: list[int] = []

    def counting(draws: np.ndarray) -> list[float]:
        counted.append(len(draws))
        return interval(draws)

    for name, module in list(sys.modules.items()):
        if name.startswith("cgpt.scaling.") and hasattr(module, "interval"):
            monkeypatch.setattr(module, "interval", counting)
    n, per_parameter = (axis.ravel() for axis in GRID)
    sized = made_of(ParametricLaw(30.0, 200.0, 1.5, 0.3, 0.35), n, n * per_parameter, noise=0.001)
    for kind, points, convention in (("compute", SP, "reported"), ("parametric", sized, "palm"),
                                     ("isoflop", parabolas(best_sizes(), 0.001), "6nd"),
                                     ("learning_rate", rate_points(), "palm")):  # fmt: skip
        before = len(counted)
        study(points, (kind,), convention)
        assert len(counted) > before and min(counted[before:]) >= LEAST_DRAWS, kind


def test_the_draws_that_are_kept_give_a_forecast_the_interval_of_all_draws(tmp_path: Path):
    whole = study(SP, ("compute",), "reported")
    (offset,) = (fit for fit in whole["compute"] if fit["form"] == "offset" and "draws" in fit)
    path = tmp_path / "fits.json"
    path.write_text(page.as_json({"series": {"SP": whole}}))
    fitted = fitted_law.read(path)
    model, tokens = Model("", 24, 2048, 16, 2048, vocab_size=50257), 1e11
    flops = tokens * flops_per_token(model, "cerebras")
    c0, alpha, e = np.array(offset["draws"]).T
    low, high = np.quantile((flops / c0) ** -alpha + e, [0.025, 0.975])
    assert fitted.loss_of(model, tokens)[1:] == pytest.approx([low, high], abs=0.1 * (high - low))
