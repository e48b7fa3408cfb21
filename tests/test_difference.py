"""Differences of two scores: their intervals against textbooks' values, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cgpt.report.conclusions.difference import Difference, Result, combined, difference

N_STUDIES = 400


def of_documents(values: np.ndarray) -> Result:
    return Result(float(values.mean()), None, dict(enumerate(values.tolist())))


def draw(rng: np.random.Generator, n: int, n_seeds: int, seed_sd: float, shift: float) -> list[list[Result]]:
    """Accuracies of two models, a seed each, on `n` documents that are hard for both alike."""
    easy = rng.normal(0.75, 1.5, n)
    return [[of_documents((rng.random(n) < 1 / (1 + np.exp(-easy - by - seed_sd * rng.normal()))).astype(float))
             for _ in range(n_seeds)] for by in (shift, 0.0)]  # fmt: skip


def true_difference(seed_sd: float, shift: float) -> float:
    """The same over ever more documents and seeds."""
    easy, seed = np.random.default_rng(7).normal(size=(2, 1_000_000))
    logit = 0.75 + 1.5 * easy + seed_sd * seed
    return float((1 / (1 + np.exp(-logit - shift)) - 1 / (1 + np.exp(-logit))).mean())


@pytest.mark.parametrize(
    ("n", "n_seeds", "seed_sd"), [(30, 1, 0.0), (200, 1, 0.0), (200, 2, 0.3), (200, 3, 0.3), (200, 3, 0.0)]
)
def test_an_interval_holds_the_true_difference_in_at_least_95_of_100_studies(n, n_seeds, seed_sd) -> None:
    rng, truth = np.random.default_rng(n + n_seeds), true_difference(seed_sd, 0.6)
    differences = [difference(*draw(rng, n, n_seeds, seed_sd, 0.6), span=1.0) for _ in range(N_STUDIES)]
    held = np.mean([each.low <= truth <= each.high for each in differences if each.low is not None])
    assert len(differences) == N_STUDIES and 0.93 <= held <= 1.0  # 0.95 less two standard errors of 400 studies


def test_the_interval_of_a_mean_over_tasks_and_models_holds_the_truth_as_often() -> None:
    rng, truth, held = np.random.default_rng(5), true_difference(0.0, 0.6), []
    for _ in range(N_STUDIES):
        tasks = {task: [(1 / 4, difference(*draw(rng, 100, 1, 0.0, 0.6), span=1.0)) for _ in range(2)] for task in "ab"}
        mean = combined(tasks)
        held.append(mean.low <= truth <= mean.high)
    assert np.mean(held) >= 0.93


def test_without_a_range_the_interval_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 2, 25), rng.normal(0, 2, 25)
    made = difference([of_documents(first)], [of_documents(second)])
    wanted = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (made.low, made.high) == pytest.approx((wanted.low, wanted.high))
    assert made.value == pytest.approx((first - second).mean())


def test_of_accuracies_it_is_agresti_and_mins() -> None:
    # 12 documents: 6 right for the first alone, 1 for the second alone; with two added, half of one in each cell.
    first, second = np.array([1.0] * 9 + [0.0] * 3), np.array([1.0] * 3 + [0.0] * 6 + [1.0] + [0.0] * 2)
    made = difference([of_documents(first)], [of_documents(second)], span=1.0)
    gained, lost, n = 6.5, 1.5, 14
    middle = (gained - lost) / n
    half = stats.t.ppf(0.975, 11) * np.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    assert (made.low, made.high) == pytest.approx((middle - half, middle + half))


def test_without_documents_errors_add_up_as_squares() -> None:
    made = difference([Result(0.7, 0.03)], [Result(0.5, 0.04)])
    assert (made.low, made.high) == pytest.approx((0.2 - 1.96 * 0.05, 0.2 + 1.96 * 0.05), abs=1e-5)
    assert made.documents is None and made.is_clear


def test_documents_count_only_where_their_mean_is_the_score_and_both_have_the_same_ones() -> None:
    aggregated = Result(0.61, 0.05, {0: 1.0, 1: 0.0})  # such as an F1, which is no mean of documents
    other = Result(0.5, 0.05, {0: 1.0, 1: 0.0})
    assert difference([aggregated], [other]).documents is None
    assert difference([Result(0.5, 0.05, {1: 1.0, 2: 0.0})], [other]).documents is None
    assert difference([other], [other]).documents == {0: 0.0, 1: 0.0}


def test_two_models_that_are_right_everywhere_are_not_known_to_be_the_same() -> None:
    right = of_documents(np.ones(40))
    same = difference([right], [right], span=1.0)
    assert same.value == 0 and same.low < 0 < same.high and not same.is_clear


def test_seeds_alone_give_the_interval_of_welchs_t_test() -> None:
    first, second = [3.1, 3.3, 3.2, 3.6], [2.9, 3.0, 3.05]
    made = difference([Result(value) for value in first], [Result(value) for value in second])
    wanted = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (made.low, made.high) == pytest.approx((wanted.low, wanted.high))


def test_one_number_against_another_has_no_interval() -> None:
    made = difference([Result(3.1)], [Result(2.9)])
    assert made == Difference(pytest.approx(0.2), None, None, None, (3.1,), (2.9,)) and not made.is_clear


def test_an_interval_holds_its_value_and_nothing_that_no_difference_can_be() -> None:
    everywhere, nowhere = (of_documents(np.full(60, value)) for value in (1.0, 0.0))
    single = difference([everywhere], [nowhere], span=1.0)
    assert (single.value, single.high) == (1.0, 1.0) and 0.9 < single.low < 1.0
    mean = combined({task: [(1 / 9, single)] * 3 for task in ("a", "b", "c")})
    assert mean.value == pytest.approx(1.0) and mean.low < mean.value <= mean.high == pytest.approx(1.0)
    of_one = difference([of_documents(np.ones(1))], [of_documents(np.zeros(1))], span=1.0)
    assert (of_one.low, of_one.high) == (-1.0, 1.0)
