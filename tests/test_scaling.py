"""Scaling laws: constants that papers print, from the papers' own numbers, and laws that the points were made of."""

from __future__ import annotations

import math
import warnings
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize, minimize_scalar
from scipy.stats import f_oneway

from cgpt.scaling import cost_law, downstream, parametric_law, published
from cgpt.scaling.parametric_law import ParametricLaw
from cgpt.scaling.points import Points
from cgpt.scaling.statistics import interval, lack_of_fit, resampled_weights, with_misses
from cgpt.scaling.study import study
from cgpt.spec import LAWS

REFERENCE = Path(__file__).parent.parent / "results/reference"
FAMILY = published.read(REFERENCE / "published.csv")
SP, MUP = (published.family_points(FAMILY, variant) for variant in ("SP", "muP"))
EQUATION_1 = np.array([5.984e22, 0.0737, 0.5066])
HOFFMANN = ParametricLaw(np.exp(6.0073404), np.exp(6.0179186), np.exp(0.5267228), 0.33917084, 0.2849083)  # TeX digits
AROUND = np.geomspace(1 / 4, 4, 7)
BESIROGLU = {"a": (482.01, 285, 744), "b": (2085.43, 1042, 5810), "e": (1.8172, 1.769, 1.871),
             "alpha": (0.3478, 0.317, 0.373), "beta": (0.3658, 0.331, 0.415)}  # fmt: skip


def straight_line(loss: np.ndarray, accuracy: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Accuracy at a loss by the least-squares line: the plainest law, which the sigmoid has to beat."""
    return np.polyval(np.polyfit(loss, accuracy, 1), at)


def made_of(law: ParametricLaw, n: np.ndarray, tokens: np.ndarray, noise: float = 0.0, seed: int = 0) -> Points:
    """Points whose losses the law gives, and their FLOPs 6 N D beside a count that is no multiple of it."""
    loss = law.loss_at(n, tokens) * (1 + noise * np.random.RandomState(seed).randn(len(n)))
    flops = {"6nd": 6 * n * tokens, "palm": 7 * n * tokens * (1 + 1e6 / n)}
    return Points(tuple(f"{size:.0f}" for size in n), np.arange(len(n)), n, None, tokens, flops, loss, None)


def test_equation_1_follows_from_the_papers_table_by_least_squares_of_the_loss():
    """FLOPs as printed and as the formula gives them lie on either side of the paper's constants, each within 10 %."""
    printed, formula = (cost_law.fit_offset(SP.flops[name], SP.loss) for name in ("reported", "cerebras"))
    for fitted in (printed, formula):
        assert fitted == pytest.approx(EQUATION_1, rel=0.1)
        assert fitted[1:] == pytest.approx(EQUATION_1[1:], abs=0.006)
        ours, paper = (cost_law.loss_at(law, SP.flops["reported"]) for law in (fitted, EQUATION_1))
        assert ours == pytest.approx(paper, rel=0.003)
    assert np.all((np.minimum(printed, formula) < EQUATION_1) & (np.maximum(printed, formula) > EQUATION_1))
    log_space = cost_law.fit_offset(SP.flops["cerebras"], SP.loss, relative=True)
    assert abs(log_space[1] - EQUATION_1[1]) > 0.002  # so the paper did not fit relative errors


def test_the_papers_claims_about_its_law_hold():
    law = EQUATION_1
    assert np.std(SP.loss / cost_law.loss_at(law, SP.flops["reported"]) - 1) == pytest.approx(0.0066, abs=5e-5)
    assert np.mean(MUP.loss / cost_law.loss_at(law, MUP.flops["reported"]) - 1) == pytest.approx(-0.0043, abs=2e-4)
    neox, pythia = (published.losses(FAMILY, *which)[-1] for which in
                    (("GPT-NeoX", ""), ("Pythia", "Pile, v0 checkpoints")))  # fmt: skip
    for row, claimed in ((neox, 0.012), (pythia, 0.003)):
        predicted = cost_law.loss_at(law, np.array([float(row["flops"])]))[0]
        assert float(row["value"]) / predicted - 1 == pytest.approx(claimed, abs=0.001)


@pytest.mark.parametrize("name", ["reported", *SP.flops])
@pytest.mark.parametrize("relative", [False, True])
def test_the_offset_law_is_the_one_that_scipy_finds(name, relative):
    flops = SP.flops[name]

    def residuals(p):
        predicted = np.exp(p[0] - p[1] * np.log(flops / 1e20)) + p[2]
        return predicted / SP.loss - 1 if relative else predicted - SP.loss

    expected = least_squares(residuals, [0.5, 0.07, 0.5], xtol=1e-15, ftol=1e-15, gtol=1e-15).x
    c0, alpha, e = cost_law.fit_offset(flops, SP.loss, relative=relative)
    assert (alpha, e, c0) == pytest.approx((*expected[1:], 1e20 * np.exp(expected[0] / expected[1])), rel=1e-3)


def test_a_law_whose_c0_is_beyond_what_floats_hold_has_no_cost_of_a_loss_and_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        costs = cost_law.cost_at(np.array([[0.0, 0.001, 0.5], [1e10, 0.4, 0.7], [1e10, 0.5, 0.1]]), 0.6)
    assert np.isnan(costs[0]) and costs[1] == np.inf and costs[2] == pytest.approx(4e10)


@pytest.mark.parametrize("law", [(1e18, 0.05, 1.0), (1e22, 0.3, 0.2), (1e15, 0.1, 0.0)])
def test_points_made_of_a_law_give_it_back_and_are_predicted_from_the_smaller_ones(law):
    flops = np.geomspace(1e14, 1e19, 8)
    loss = cost_law.loss_at(np.array(law), flops)
    law_again = cost_law.fit_offset(flops, loss)
    assert law_again[1] == pytest.approx(law[1], rel=1e-3) and law_again[2] == pytest.approx(law[2], abs=2e-3)
    assert cost_law.cost_at(law_again, float(loss[3])) == pytest.approx(flops[3], rel=1e-4)
    errors = cost_law.held_out_errors("offset", flops, loss, np.arange(8))
    assert [cell for cell, _ in errors] == [3, 4, 5, 6, 7]
    assert all(abs(error) < 1e-3 for _, error in errors)
    if law[2] == 0:
        assert cost_law.fit_power(flops, loss) == pytest.approx(law, rel=1e-6)


def test_a_run_that_counts_twice_is_a_run_that_stands_there_twice():
    twice = np.array([1, 2, 1, 0, 1, 1, 1.0])
    repeated = np.repeat(np.arange(7), twice.astype(int))
    for fitter in cost_law.FITTERS.values():
        expected = fitter(SP.flops["6nd"][repeated], SP.loss[repeated])
        # The grid's middle differs between the two, and with it the last digits of the search.
        assert fitter(SP.flops["6nd"], SP.loss, twice) == pytest.approx(expected, rel=1e-4)


def test_intervals_of_seven_points_are_as_wide_as_a_separate_bootstrap_found():
    """0.66 % of noise, relative errors: alpha [0.055, 0.094], E [0, 0.84]; the two trade for each other. There the size
    of the noise was given, as a thousand degrees of freedom would."""
    law = cost_law.fit_offset(SP.flops["cerebras"], SP.loss, relative=True)
    losses = with_misses(cost_law.loss_at(law, SP.flops["cerebras"]), 0.0066, 1000, 20_000)
    draws = cost_law.fit_offset(SP.flops["cerebras"], losses, relative=True)
    assert interval(draws[:, 1]) == pytest.approx([0.055, 0.094], abs=0.002)
    assert interval(draws[:, 2]) == pytest.approx([0, 0.84], abs=0.02)
    assert np.corrcoef(draws[:, 1], draws[:, 2])[0, 1] > 0.95


def test_besiroglus_constants_follow_from_the_points_of_chinchillas_figure():
    points = published.chinchilla_points(published.read(REFERENCE / "chinchilla_points.csv"))
    assert len(points.loss) == 240
    law = parametric_law.fit(points.n_parameters, points.tokens, points.loss)
    optimum = ParametricLaw(477.84, 2143.86, 1.8172, 0.34731, 0.36718)  # of their grid, before the printed rounding
    for name, (printed, *_) in BESIROGLU.items():
        assert getattr(law, name) == pytest.approx(getattr(optimum, name), rel=1e-3)
        assert getattr(law, name) == pytest.approx(printed, rel=0.03)
    assert law.n_exponent == pytest.approx(0.513, abs=0.002)


@pytest.mark.slow
def test_besiroglus_intervals_follow_from_1000_draws():
    """Each end within a tenth of the printed interval's width."""
    points = published.chinchilla_points(published.read(REFERENCE / "chinchilla_points.csv"))
    fit = study(points, ("parametric",), "6nd")["parametric"]["n_parameters"]
    for name, (_, low, high) in BESIROGLU.items():
        assert fit["constants"][name]["ends"] == pytest.approx([low, high], abs=0.1 * (high - low))
    assert len(fit["draws"]) == 1000


def test_draws_end_where_l_bfgs_ends():
    points = published.chinchilla_points(published.read(REFERENCE / "chinchilla_points.csv"))
    n, tokens, loss = points.n_parameters, points.tokens, points.loss
    begin = ParametricLaw(400, 1500, 1.8, 0.34, 0.35)
    (draw,) = parametric_law.fit_draws(n, tokens, loss, np.ones((1, 240)), begin)
    whole = parametric_law.fit(n, tokens, loss)
    for name in parametric_law.CONSTANTS:
        assert getattr(draw, name) == pytest.approx(getattr(whole, name), rel=1e-3)


@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_the_closed_form_is_where_the_loss_of_a_budget_is_least(flops):
    least = minimize_scalar(lambda log_n: HOFFMANN.loss_at(np.exp(log_n), flops / 6 / np.exp(log_n)),
                            bounds=(10, 35), method="bounded", options={"xatol": 1e-9})  # fmt: skip
    n_parameters, tokens = HOFFMANN.optimum(flops)
    assert n_parameters == pytest.approx(np.exp(least.x), rel=1e-5) and 6 * n_parameters * tokens == pytest.approx(
        flops
    )
    assert HOFFMANN.n_exponent == pytest.approx(0.46, abs=0.005)  # approach 3, as printed
    assert HOFFMANN.tokens_at(float(least.fun), n_parameters) == pytest.approx(tokens, rel=1e-4)
    assert HOFFMANN.tokens_at(HOFFMANN.e, n_parameters) == np.inf


def test_a_parametric_law_comes_back_from_its_own_points_in_a_few_constants_of_any_size():
    n, per_parameter = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e7, 5), [5, 20, 80]))
    truth = ParametricLaw(30.0, 200.0, 1.5, 0.3, 0.35)
    points = made_of(truth, n, n * per_parameter)
    law = parametric_law.fit(points.n_parameters, points.tokens, points.loss)
    for name in parametric_law.CONSTANTS:
        assert getattr(law, name) == pytest.approx(getattr(truth, name), rel=0.01)
    fit = study(points, ("parametric",))["parametric"]["n_parameters"]
    assert all(abs(held["error"]) < 1e-3 for held in fit["held_out"]) and len(fit["held_out"]) == 3


def test_one_ratio_of_tokens_to_parameters_cannot_tell_n_from_d():
    fits = study(made_of(HOFFMANN, np.geomspace(1e6, 1e9, 9), 20 * np.geomspace(1e6, 1e9, 9)), ("parametric",))
    assert fits["parametric"]["n_parameters"].keys() == {"problem"}
    assert "tokens per parameter" in fits["parametric"]["n_parameters"]["problem"]


def isoflop_points(noise: float = 0.0, seed: int = 0, around: np.ndarray = AROUND) -> Points:
    """Three budgets of 6 N D; `around`: their sizes, (3, m) or (m,), as multiples of the law's best."""
    budgets = np.geomspace(1e16, 1e18, 3)
    best = np.array([HOFFMANN.optimum(flops)[0] for flops in budgets])
    n = best[:, None] * around
    return made_of(HOFFMANN, n.ravel(), (budgets[:, None] / 6 / n).ravel(), noise, seed)


def test_isoflop_minima_are_the_laws_and_so_is_their_exponent():
    points = isoflop_points()
    minima = study(points, ("isoflop",), "6nd")["isoflop"]
    assert minima["designed_in"] == "6nd" and [budget["interior"] for budget in minima["budgets"]] == [True] * 3
    for budget in minima["budgets"]:
        n_parameters, tokens = HOFFMANN.optimum(budget["flops"])
        assert budget["n_parameters"]["value"] == pytest.approx(n_parameters, rel=0.05)  # a parabola is no power law
        assert budget["tokens"]["value"] == pytest.approx(tokens, rel=0.05)
        assert budget["tokens_per_parameter"]["value"] == pytest.approx(tokens / n_parameters, rel=0.1)
    exponents = minima["laws"]["6nd"]
    assert exponents["n_exponent"]["value"] == pytest.approx(HOFFMANN.n_exponent, abs=0.01)
    assert exponents["d_exponent"]["value"] == pytest.approx(1 - HOFFMANN.n_exponent, abs=0.01)
    first, second, last = (budget["n_parameters"]["value"] for budget in minima["budgets"])  # a factor of ten apart
    assert exponents["n_held_out_error"] == pytest.approx(second * second / first / last - 1)


def test_isoflop_intervals_hold_the_noiseless_minimum_nineteen_times_in_twenty_and_grow_with_the_noise():
    truth = study(isoflop_points(), ("isoflop",), "6nd")["isoflop"]["budgets"]
    held, widths = [], []
    for seed in range(20):
        budgets = study(isoflop_points(0.001, seed), ("isoflop",), "6nd")["isoflop"]["budgets"]
        for budget, exact in zip(budgets, truth):
            low, high = budget["n_parameters"]["ends"]
            held.append(low < exact["n_parameters"]["value"] < high)
            widths.append(np.log(high / low))
    assert np.mean(held) == pytest.approx(0.95, abs=0.08)
    noisier = study(isoflop_points(0.003), ("isoflop",), "6nd")["isoflop"]["budgets"][0]["n_parameters"]["ends"]
    assert np.log(noisier[1] / noisier[0]) > 1.5 * np.mean(widths)


def test_isoflop_exponents_lie_in_their_intervals_and_nothing_is_surer_by_parabolas_far_from_the_minimum():
    """Sizes far on one side bend the parabola through all of them; the nearest ones hardly notice."""
    lopsided = np.geomspace(1 / 2, 40, 9)
    exact = study(isoflop_points(around=lopsided), ("isoflop",), "6nd")["isoflop"]
    assert exact["n_sizes_in_parabola"] == 5 and exact["all_sizes"]["n_sizes_in_parabola"] == 9
    for near, all_sizes in zip(exact["budgets"], exact["all_sizes"]["budgets"]):
        truth = HOFFMANN.optimum(near["flops"])[0]
        near_miss, far_miss = (abs(np.log(each["n_parameters"]["value"] / truth)) for each in (near, all_sizes))
        assert near_miss < 0.1 and far_miss > 2 * near_miss
    held = []
    for seed in range(20):
        exponent = study(isoflop_points(0.001, seed), ("isoflop",), "6nd")["isoflop"]["laws"]["6nd"]["n_exponent"]
        low, high = exponent["ends"]
        held.append(low < HOFFMANN.n_exponent < high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.11)


def test_lack_of_fit_to_one_mean_is_an_analysis_of_variance():
    rng = np.random.default_rng(3)
    cells = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    values = rng.standard_normal(9) + cells
    test = lack_of_fit(values, np.full(9, values.mean()), cells, 1)
    expected = f_oneway(*(values[cells == cell] for cell in range(3)))
    assert test is not None and (test["f"], test["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert lack_of_fit(values[[0, 3, 5]], np.zeros(3), np.arange(3), 1) is None  # one seed each


def test_a_minimum_beyond_the_sizes_trained_is_said_and_decides_nothing():
    too_small = np.geomspace(1 / 16, 1 / 2, 7)
    minima = study(isoflop_points(around=too_small), ("isoflop",), "6nd")["isoflop"]
    assert [budget["interior"] for budget in minima["budgets"]] == [False] * 3
    assert "laws" not in minima and minima["problem"].startswith("0 of 3 minima lie inside the sizes")
    mixed = study(isoflop_points(around=np.stack([AROUND, AROUND, too_small])), ("isoflop",), "6nd")["isoflop"]
    assert [budget["interior"] for budget in mixed["budgets"]] == [True, True, False]
    last = mixed["budgets"][2]
    assert "n_parameters" not in last and last["best_size_trained"] == pytest.approx(HOFFMANN.optimum(1e18)[0] / 2)
    two = study(isoflop_points(), ("isoflop",), "6nd")["isoflop"]["laws"]["6nd"]["n_exponent"]["value"]
    assert mixed["laws"]["6nd"]["n_exponent"]["value"] == pytest.approx(two, abs=0.01)


def test_a_law_of_compute_is_not_fitted_through_all_sizes_of_a_budget():
    assert all("ask for isoflop" in fit["problem"] for fit in study(isoflop_points(), ("compute",))["compute"])


def test_draws_of_settings_hold_as_many_as_there_are_and_enough_different_ones():
    weights = resampled_weights(5, 3, 3000)
    assert np.all(weights == np.round(weights)) and np.all(weights.sum(axis=1) == 5)
    assert np.all((weights > 0).sum(axis=1) >= 3)
    assert weights.mean(axis=0) == pytest.approx(np.ones(5), abs=0.1)


def test_what_an_experiment_can_ask_for_is_what_is_fitted():
    made = study(isoflop_points(), LAWS)
    known = {"compute", "parametric", "isoflop", "hardware", "learning_rate"}
    assert set(LAWS) == made.keys() & known
    assert {fit["form"] for fit in made["compute"]} == {"offset", "power"}


@pytest.mark.parametrize("law", [downstream.Sigmoid(0.26, 0.8, 5.0, 1.9), downstream.Sigmoid(0.17, 0.6, 3.0, 1.5)])
def test_a_sigmoid_is_found_again_from_its_own_points(law):
    loss = np.linspace(1.5, 2.7, 12)
    accuracy = [law.low + (law.high - law.low) / (1 + math.exp(law.slope * (x - law.middle))) for x in loss]
    assert astuple(downstream.fit(loss, np.array(accuracy))) == pytest.approx(astuple(law), rel=1e-6)


@pytest.mark.parametrize("task", downstream.TASKS)
def test_no_other_start_finds_a_sigmoid_with_smaller_squares(task):
    _, loss, accuracy = published.accuracies(FAMILY, task, "Cerebras-GPT", ("SP", "muP"))

    def squares(p):
        return np.sum((p[0] + (p[1] - p[0]) / (1 + np.exp(p[2] * (loss - p[3]))) - accuracy) ** 2)

    fitted = downstream.fit(loss, accuracy)
    bounds = [(0, accuracy.min() + 0.05), (accuracy.max() - 0.05, 1), (0.1, 30), (0, 5)]
    draw = np.random.default_rng(0)
    starts = [[draw.uniform(*bound) for bound in (*bounds[:2], (1, 8), (1, 2.5))] for _ in range(20)]
    best = min(minimize(squares, start, bounds=bounds, method="Nelder-Mead", options={"maxiter": 4000}).fun
               for start in starts)  # fmt: skip
    assert squares(astuple(fitted)) <= best * 1.0001


@pytest.mark.parametrize("task", downstream.TASKS)
def test_accuracy_follows_from_loss_within_two_points_for_each_model_left_out(task):
    """By half the error of a straight line; OpenBookQA's is as much, as its 500 documents alone err by 1.6 points."""
    names, loss, accuracy = published.accuracies(FAMILY, task, "Cerebras-GPT", ("SP", "muP"))
    assert len(names) == 12
    errors = np.abs(downstream.leave_one_out_errors(loss, accuracy))
    by_line = [straight_line(np.delete(loss, i), np.delete(accuracy, i), loss[i]) - accuracy[i] for i in range(12)]
    assert errors.mean() < (0.005 if task == "average7" else 0.015)
    assert errors.mean() < np.mean(np.abs(by_line)) * (1 if task == "openbookqa" else 0.5)


def test_the_largest_models_accuracies_follow_from_compute_in_two_steps():
    """Compute -> loss by the law of the SP models to 6.7B, loss -> accuracy by the sigmoid of all models to 6.7B."""
    law = cost_law.fit_offset(SP.flops["cerebras"][:-1], SP.loss[:-1])
    predicted_loss = cost_law.loss_at(law, SP.flops["cerebras"][-1:])
    assert predicted_loss == pytest.approx(SP.loss[-1:], rel=0.02)
    errors = {}
    for task in downstream.TASKS:
        names, loss, accuracy = published.accuracies(FAMILY, task, "Cerebras-GPT", ("SP", "muP"))
        smaller, observed = loss > SP.loss[-1], accuracy[names.index("Cerebras-GPT-13B, SP")]
        assert smaller.sum() == 11
        known = loss[smaller], accuracy[smaller]
        nearest = accuracy[names.index("Cerebras-GPT-6.7B, SP")]
        guesses = (
            downstream.fit(*known).accuracy_at(predicted_loss)[0],
            straight_line(*known, predicted_loss)[0],
            nearest,
        )
        errors[task] = np.abs(np.array(guesses) - observed)
    assert errors["average7"][0] < 0.02 < 0.05 < min(errors["average7"][1:])
    two_steps, line, nearest = np.mean([errors[task] for task in downstream.TASKS[:-1]], axis=0)
    assert two_steps < 0.03 and two_steps < 0.5 * min(line, nearest)


def test_the_sigmoid_of_one_family_holds_for_another():
    """Pythia, trained on the same text; its losses are told per token of GPT-2's vocabulary too."""
    for task in downstream.TASKS:
        fitted = downstream.fit(*published.accuracies(FAMILY, task, "Cerebras-GPT", ("SP", "muP"))[1:])
        names, loss, accuracy = published.accuracies(FAMILY, task, "Pythia", ("Pile, v0 checkpoints",))
        assert len(names) == 8
        errors = np.abs(fitted.accuracy_at(loss) - accuracy)
        assert errors.mean() < (0.005 if task == "average7" else 0.02)


def test_published_averages_are_those_of_their_seven_tasks():
    seven = downstream.TASKS[:-1]
    values = {}
    for row in FAMILY:
        values.setdefault((row["model"], row["variant"], row["n_shot"]), {})[row["task"]] = float(row["value"])
    whole = {key: of for key, of in values.items() if "average7" in of}
    assert len(whole) == 72
    for of in whole.values():
        assert np.mean([of[task] for task in seven]) == pytest.approx(of["average7"], abs=0.0011)


def test_published_losses_in_bits_per_byte():
    expected = [1.104, 0.994, 0.923, 0.845, 0.776, 0.721, 0.665]
    assert SP.bits_per_byte == pytest.approx(expected, abs=6e-4)


def test_the_batch_law_goes_through_the_papers_batches():
    factor, exponent = published.batch_tokens_law(FAMILY)
    for tokens, batch in ((2.22e9, 245_760), (5.12e9, 540_672), (133e9, 2_129_920)):
        assert factor * tokens**exponent == pytest.approx(batch, rel=0.35)


PATHS = {
    "one size": (np.full(9, 1e6), np.geomspace(1e6, 1e9, 9), "runs of 1 model size cannot tell its term from E"),
    "two sizes": (np.repeat([1e6, 4e6], 5), np.tile(np.geomspace(1e7, 1e9, 5), 2), "runs of 2 model sizes"),
    "one length": (np.geomspace(1e5, 1e8, 9), np.full(9, 1e8), "runs of 1 number of tokens"),
    "tokens as N squared": (np.geomspace(1e5, 1e8, 9), np.geomspace(1e5, 1e8, 9) ** 2 / 1e4, "tokens follow from"),
    "equal FLOPs alone": (np.geomspace(1e5, 1e8, 9), 1e14 / np.geomspace(1e5, 1e8, 9), "tokens follow from"),
}


@pytest.mark.parametrize("n, tokens, problem", PATHS.values(), ids=PATHS)
def test_runs_along_one_path_decide_no_law_of_size_and_tokens(n, tokens, problem):
    fit = study(made_of(HOFFMANN, n, tokens, 0.002), ("parametric",))["parametric"]["n_parameters"]
    assert fit.keys() == {"problem"} and problem in fit["problem"]


def test_a_law_of_compute_needs_more_budgets_than_constants_whatever_their_settings():
    n = np.geomspace(1e6, 1e7, 6)
    points = made_of(HOFFMANN, n, np.repeat([1e15, 1e16], 3) / n)
    fits = [fit for fit in study(points, ("compute",))["compute"] if fit["flops"] == "6nd"]
    assert len(fits) == 2 and all("at 2 different costs" in fit["problem"] for fit in fits)
