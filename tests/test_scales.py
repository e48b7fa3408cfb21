"""The scales of metrics, held against lm-evaluation-harness's own registry and what it computes."""

from __future__ import annotations

import math

import lm_eval.api.metrics  # noqa: F401  fills the registries
import pytest
import results_fixture as made
from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_AGGREGATION_REGISTRY, METRIC_REGISTRY
from test_tabulate import change, markdown_tables

from cgpt.formats import score, spread
from cgpt.report.figures import scores_figure
from cgpt.report.rows import collect
from cgpt.report.scales import BY_AGGREGATION, LEAVING, UNKNOWN, scale_of
from cgpt.report.tables import tabulate

NO_SCORE = {"bypass"}
SENTENCE = "the quick brown fox jumps over the lazy dog"


def aggregation_of(metric: str) -> str:
    function = METRIC_AGGREGATION_REGISTRY[metric]
    return next(name for name, known in AGGREGATION_REGISTRY.items() if known is function)


@pytest.mark.parametrize("metric", sorted(set(METRIC_REGISTRY) - NO_SCORE))
def test_every_metric_that_lm_eval_aggregates_has_the_scale_of_its_aggregation(metric) -> None:
    if metric not in METRIC_AGGREGATION_REGISTRY or METRIC_AGGREGATION_REGISTRY[metric] is None:
        pytest.skip("lm-evaluation-harness has no aggregation for it")
    aggregation = aggregation_of(metric)
    assert scale_of(metric) != UNKNOWN
    if aggregation not in LEAVING:
        assert scale_of(metric) == BY_AGGREGATION[aggregation] == scale_of("a metric of its own", aggregation)


@pytest.mark.parametrize("name, best, worst", [
    ("bleu", [([SENTENCE], SENTENCE)], [([SENTENCE], "QQQ")]),
    ("chrf", [([SENTENCE], SENTENCE)], [([SENTENCE], "QQQ")]),
    ("chrf++", [([SENTENCE], SENTENCE)], [([SENTENCE], "QQQ")]),
    ("f1", [(1, 1), (0, 0)], [(1, 0), (0, 1)]),
    ("matthews_corrcoef", [(1, 1), (0, 0)], [(1, 0), (0, 1)]),
    ("brier_score", [(0, [1.0, 0.0])], [(0, [0.0, 1.0])]),
])  # fmt: skip
def test_the_best_and_the_worst_answers_are_at_the_ends_of_the_scale(name, best, worst) -> None:
    ends = sorted(float(AGGREGATION_REGISTRY[name](items)) for items in (best, worst))
    assert ends == pytest.approx([BY_AGGREGATION[name].low, BY_AGGREGATION[name].high], abs=1e-6)


@pytest.mark.parametrize("name, certain", [
    ("perplexity", [0.0]), ("weighted_perplexity", [(0.0, 1)]), ("bits_per_byte", [(0.0, 1)]),
    ("ter", [([SENTENCE], SENTENCE)]),
])  # fmt: skip
def test_what_has_no_greatest_value_starts_at_its_least(name, certain) -> None:
    assert math.isclose(AGGREGATION_REGISTRY[name](certain), BY_AGGREGATION[name].low, abs_tol=1e-12)
    assert BY_AGGREGATION[name].high is None


def bleu_results(tmp_path, aggregation: str | None = None, metric: str = "bleu"):
    """The made-up results with another metric in place of acc."""
    experiment, plan = made.make_results(tmp_path)
    for path in tmp_path.glob("runs/evaluate/*/scores.json"):
        score = {"metric": metric, "filter": "none", "value": 0.408, "stderr": 0.02, "higher_is_better": True,
                 "chance": None}  # fmt: skip
        change(path, scores=[score])
    entry = {"metric": metric} | ({"aggregation": aggregation} if aggregation else {})
    for run in plan.of("evaluate"):
        run.spec["task"]["metric_list"] = [entry]
    return experiment, plan


@pytest.mark.parametrize("aggregation, metric", [(None, "bleu"), ("bleu", "my_score")])
def test_a_bleu_of_0_408_reads_as_0_408_of_100_in_column_cell_and_axis(tmp_path, aggregation, metric) -> None:
    experiment, plan = bleu_results(tmp_path, aggregation, metric)
    tabulate(experiment, plan, tmp_path)
    line = markdown_tables(tmp_path / "made-up" / "table.md")[0][0]
    assert line["task"] == f"topic ({metric}, 0 to 100, higher is better, 400 documents)"
    assert line["gpt-90k (90.1 K parameters)"] == "0.408 ± 0.000 of 100 (n 2, se 0.020)"
    scores = [row for row in collect(experiment, plan, tmp_path).scores if row["primary"]]
    figure = scores_figure(scores, experiment.tasks)
    assert {axes.get_ylabel() for axes in figure.axes} == {f"{metric}, 0 to 100"}
    assert "chance" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == "--"]


def test_a_metric_of_a_tasks_own_is_given_no_scale_and_no_direction_that_nobody_stated(tmp_path) -> None:
    experiment, plan = bleu_results(tmp_path, "mean", "rouge_of_mine")
    for path in tmp_path.glob("runs/evaluate/*/scores.json"):
        text = path.read_text().replace('"higher_is_better": true', '"higher_is_better": null')
        path.write_text(text)
    tabulate(experiment, plan, tmp_path)
    line = markdown_tables(tmp_path / "made-up" / "table.md")[0][0]
    assert line["task"] == "topic (rouge_of_mine, which is better is not stated, 400 documents)"
    assert line["gpt-90k (90.1 K parameters)"] == "0.408 ± 0.000 (n 2, se 0.020)"


@pytest.mark.parametrize("value, text", [(0.0, "0.000"), (-0.0001, "0.000"), (-0.5, "-0.500"), (12.345, "12.35"),
                                         (1234.5, "1234"), (None, "")])  # fmt: skip
def test_a_number_has_three_decimals_or_four_digits(value, text) -> None:
    assert score(value) == text


@pytest.mark.parametrize("value, text", [(0.0, "0.000"), (0.0003, "0.0003"), (4e-6, "4e-06"), (0.0126, "0.013")])
def test_a_spread_that_is_not_zero_is_never_printed_as_zero(value, text) -> None:
    assert spread(value) == text
