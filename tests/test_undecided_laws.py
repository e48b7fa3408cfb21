"""Runs that follow no law, or leave a part of it open: said, never printed as a constant; and of what a law is made."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from test_fit import QUICKSTART, root, write_runs  # noqa: F401
from test_scaling import made_of

from cgpt.__main__ import main
from cgpt.files.csv_file import write_csv
from cgpt.recipe.schedule import resolve_length
from cgpt.scaling import cost_law
from cgpt.scaling.parametric_law import ParametricLaw
from cgpt.scaling.points import RUN_COLUMNS, Points
from cgpt.scaling.study import cost_fit, study
from cgpt.spec import Model, Train

SIZES, LENGTHS = np.geomspace(1e5, 1e7, 3), np.geomspace(1e6, 1e8, 4)


def points_at(loss: np.ndarray) -> Points:
    """A run at each of as many budgets as there are losses."""
    n = np.geomspace(1e5, 1e7, len(loss))
    return Points(("",) * len(n), np.arange(len(n)), n, None, 20 * n, {"palm": 120 * n**2}, loss, None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("loss", "form", "problem"), [
    (np.full(7, 3.0), "power", "does not fall"), (np.full(7, 3.0), "offset", "does not fall"),
    (np.linspace(2, 3, 7), "power", "does not fall"), (np.linspace(2, 3, 7), "offset", "does not fall"),
    (np.array([9.0, *[3.0] * 6]), "offset", "no alpha from 0.001 to 3 is best"),
])  # fmt: skip
def test_a_loss_that_is_flat_or_rises_follows_no_law_of_compute(loss, form, problem):
    points = points_at(loss)
    fit = cost_fit(form, ("flops", "flops"), points.flops["palm"], loss, points, with_draws=True)
    assert list(fit) == ["problem"] and problem in fit["problem"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("law", "noise", "problem"), [
    (ParametricLaw(0.0, 200.0, 1.5, 0.3, 0.35), 0.002, "may not fall with the model size (alpha "),
    (ParametricLaw(30.0, 0.0, 1.5, 0.3, 0.35), 0.002, "may not fall with the number of tokens (beta "),
    (ParametricLaw(0.0, 0.0, 3.0, 0.3, 0.35), 0.0, "may not fall with the model size (alpha "),
    (ParametricLaw(30.0, 1e-7, 1.5, 0.3, -0.9), 0.0, "may not fall with the number of tokens (beta -0.9"),
], ids=["no size", "no tokens", "neither", "rising"])  # fmt: skip
def test_a_loss_that_size_or_tokens_do_not_lower_decides_no_law_of_both(law, noise, problem):
    """The fit gave E 0.43 [0.37, 0.51] for 1.5, and A 2e-9 with an alpha of -0.95."""
    n, tokens = (axis.ravel() for axis in np.meshgrid(SIZES, LENGTHS))
    fit = study(made_of(law, n, tokens, noise, 0), ("parametric",))["parametric"]["n_parameters"]
    assert list(fit) == ["problem"] and problem in fit["problem"]


def in_batches(batch_sizes: list[int], wanted: list[int]) -> Points:
    """Two sizes at every length `wanted` in tokens and batch size, the second batch size the best one."""
    shapes = [Model("m", n_layer=1, d_model=width, n_head=1, seq_len=16, vocab_size=512) for width in (16, 32)]
    trained = [(model, resolve_length(Train(lr=0.1, batch_size=size, tokens=length), model), size)
               for model in shapes for length in wanted for size in batch_sizes]  # fmt: skip
    tokens = np.array([float(train.tokens or 0) for _, train, _ in trained])
    n = np.array([float(model.d_model) ** 2 for model, _, _ in trained])
    loss = 3 + 1 / n + 1e3 / tokens + np.array([abs(size - batch_sizes[1]) for *_, size in trained])
    return Points(
        ("m",) * len(n), np.arange(len(n)), n, None, tokens, {"palm": 6 * n * tokens}, loss, None,
        settings=tuple(f"train.tokens={train.tokens}, train.batch_size={size}" for _, train, size in trained),
        batch_tokens=np.array([16.0 * size for *_, size in trained]),
    )  # fmt: skip


def test_lengths_that_only_whole_batches_make_unequal_are_one_length_of_which_the_best_batch_counts():
    points = in_batches([3, 7, 13], [10_000, 11_000, 40_000])
    assert len(set(points.tokens)) == 9
    best = points.best_of_each_size()
    assert (
        best.n_settings == 6 and set(best.batch_tokens) == {7 * 16} and points.competing_axes() == ["train.batch_size"]
    )
    assert points.rates_at_an_end() == (0, 0)


def test_lengths_of_one_batch_size_a_single_step_apart_are_two():
    points = in_batches([4, 4], [64, 128, 192])
    one_each = points._of(np.arange(0, 12, 2))
    assert one_each.best_of_each_size() is one_each and one_each.competing_axes() == []


def test_no_setting_is_predicted_from_settings_of_its_own_cost():
    """Three sizes as good as equal and one larger: from two different costs an offset law predicts nothing."""
    cost, loss = np.array([1e12, 1.001e12, 1.002e12, 1e13, 1e14, 1e15]), np.array([3.9, 4.0, 4.1, 3.5, 3.1, 2.8])
    held = dict(cost_law.held_out_errors("power", cost, loss, np.arange(6)))
    assert set(held) == {4, 5}
    law = cost_law.fit_power(cost[:4], loss[:4])
    assert held[4] == pytest.approx(cost_law.loss_at(law, cost[4:5])[0] / loss[4] - 1)


def test_a_law_of_best_rates_says_at_how_many_sizes_the_best_is_the_last_rate_tried(root):  # noqa: F811
    path = root / QUICKSTART
    path.write_text(path.read_text() + "vary: {train.lr: [0.001, 0.002, 0.004]}\nfit: [compute]\n")
    write_runs(root)
    table = root / "results/quickstart/runs.csv"
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    best = dict(zip("abcdef", ("0.001", "0.001", "0.004", "0.002", "0.002", "0.002")))
    for row in rows[:-1]:
        if row["setting"] != f"train.lr={best[row['model']]}":
            row["validation_loss"] = str(1.1 * float(row["validation_loss"]))
    write_csv(table, RUN_COLUMNS, rows)
    assert main(["fit", "quickstart"]) == 0
    ((_, study),) = json.loads((root / "results/quickstart/fits.json").read_text())["series"].items()
    assert study["rates_at_an_end"] == [3, 6]
    page = (root / "results/quickstart/fits.md").read_text()
    assert "by train.lr; at 3 of 6 the best learning rate is the last one tried on its side)" in page


@pytest.mark.parametrize(("loss", "expected"), [
    ("-1.5", "is -1.5, and a cross-entropy is above 0"), ("0.0", "is 0, and"), ("abc", "holds what is no number"),
])  # fmt: skip
def test_a_loss_that_no_model_has_is_one_line(root, capsys, loss, expected):  # noqa: F811
    write_runs(root)
    table = root / "results/quickstart/runs.csv"
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["validation_loss"] = loss
    write_csv(table, RUN_COLUMNS, rows)
    assert main(["fit", "quickstart"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("results/quickstart/runs.csv: ") and expected in line


def test_a_law_whose_terms_the_runs_show_is_fitted_with_its_intervals():
    n, tokens = (axis.ravel() for axis in np.meshgrid(SIZES, LENGTHS))
    points = made_of(ParametricLaw(30.0, 200.0, 1.5, 0.3, 0.35), n, tokens, 0.002, 0)
    fit = study(replace(points, n_parameters_non_embedding=None), ("parametric",))["parametric"]["n_parameters"]
    assert fit["constants"]["e"]["ends"][0] <= 1.5 <= fit["constants"]["e"]["ends"][1]
