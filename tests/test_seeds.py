"""Conclusions from a few seeds, held against simulation: how often an interval covers, how often a seed is flagged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from cgpt.scaling.seeds import apart, best_of

N_EXPERIMENTS = 2000


def coverage(means: list[float], sds: list[float], n_seeds: int, higher_is_better: bool = False) -> tuple[float, float]:
    """How often the interval holds the true mean of the setting that looks best, and how often the truly best setting
    is that one or among those that are not told from it."""
    draws = np.random.default_rng(0).normal(means, sds, (N_EXPERIMENTS, n_seeds, len(means)))
    truly_best = int(np.argmax(means) if higher_is_better else np.argmin(means))
    held = kept = 0
    for experiment in draws:
        best = best_of(experiment.T.tolist(), higher_is_better)
        assert best.low is not None and best.high is not None
        held += best.low <= means[best.setting] <= best.high
        kept += truly_best in (best.setting, *best.rivals)
    return held / N_EXPERIMENTS, kept / N_EXPERIMENTS


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize("means", [[0.0] * 6, [0.0, 0.5, 1.0, 2.0, 3.0, 4.0], [0.0, 0.1]])
def test_the_interval_of_the_best_of_several_settings_covers_95_percent_though_it_was_picked(means, n_seeds) -> None:
    held, kept = coverage(means, [1.0] * len(means), n_seeds)
    assert held > 0.94 and kept > 0.94


@pytest.mark.parametrize("sds", [[1, 1, 1.5, 2, 3, 5], [2, 1, 1, 1, 1, 1], [0.2, 0.2, 0.3, 2, 1, 4]])
def test_it_covers_within_three_points_of_that_where_settings_differ_in_their_spread(sds) -> None:
    held, kept = coverage([0.0, 0.5, 1.0, 2.0, 3.0, 4.0], sds, 3)
    assert held > 0.92 and kept > 0.94


def test_a_single_setting_has_the_interval_of_student() -> None:
    values = [1.0, 1.2, 1.7, 0.9]
    best = best_of([values], higher_is_better=False)
    wanted = t.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    assert (best.low, best.high) == pytest.approx(wanted)


def test_the_best_is_the_least_loss_or_the_greatest_score_and_one_seed_has_no_interval() -> None:
    settings: list[list[float]] = [[0.3], [0.5], [], [0.5]]
    assert best_of(settings, False).setting == 0 and best_of(settings, True).setting == 1
    assert best_of(settings, True).low is None and best_of(settings, True).rivals == (3,)


@pytest.mark.parametrize("values, strange", [
    ([1.52, 1.55, 3.27], [2]),
    ([1.52, 3.27], [0, 1]),  # which of two is the strange one cannot be told
    ([3.27, 1.5, 1.52, 1.55, 1.49], [0]),
    ([1.5, 1.51, 3.2, 3.3], [0, 1, 2, 3]),
    ([1.50, 1.52, 1.49], []),
    ([1.5, 2.2, 3.2], []),  # all far from each other: a spread, not a seed apart
    ([1.5], []),
    ([], []),
    ([0.5, 0.5, 0.5], []),
])  # fmt: skip
def test_a_seed_apart_is_found_among_as_few_as_two(values, strange) -> None:
    assert apart(values) == strange


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_seeds_that_differ_by_chance_alone_are_hardly_ever_flagged(n_seeds) -> None:
    losses = np.random.default_rng(1).normal(
        3.0, 0.06, (N_EXPERIMENTS, n_seeds)
    )  # 2 % of the loss, far more than usual
    assert np.mean([bool(apart(seeds.tolist())) for seeds in losses]) < 0.005


def test_scores_on_few_documents_differ_by_chance_and_are_not_flagged() -> None:
    n_documents = 16
    scores = np.random.default_rng(2).binomial(n_documents, 0.5, (N_EXPERIMENTS, 3)) / n_documents
    stderr = float(np.sqrt(0.25 / (n_documents - 1)))
    assert np.mean([bool(apart(seeds.tolist(), 1.0, stderr)) for seeds in scores]) < 0.005
    assert apart([0.5, 0.52, 0.85], 1.0, 0.015) == [2]
