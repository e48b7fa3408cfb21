"""Figures: what is drawn is what the files say, and equal files give equal bytes."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import results_fixture as made

from cgpt.errors import UserError
from cgpt.records import read_loss
from cgpt.report.figures import answers_figure, compute_figure, loss_figure, plot, scores_figure
from cgpt.report.rows import collect


def test_each_figure_is_an_svg_and_a_png_and_the_same_files_give_the_same_bytes(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    plot(experiment, plan, tmp_path)
    folder = tmp_path / "made-up" / "figures"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(first) == sorted(
        f"{name}.{kind}" for name in ("answers", "compute", "loss", "scores") for kind in ("png", "svg")
    )
    for name, content in first.items():
        assert (
            content[:4] == b"\x89PNG" if name.endswith("png") else ElementTree.fromstring(content).tag.endswith("svg")
        )
        assert b"<dc:date>" not in content
    plot(experiment, plan, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_the_loss_figure_draws_every_step_and_every_evaluation_of_every_seed(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    runs = [row for row in collect(experiment, plan, tmp_path).runs if row["stage"] == "pretrain"]
    curves = {row["run"]: read_loss(tmp_path / "runs/pretrain" / row["run"] / "loss.csv") for row in runs}
    (axes,) = loss_figure(runs, curves).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [20, 4] * 6
    assert list(axes.lines[1].get_xdata()) == [step * made.SIZES["gpt-90k"] for step in (5, 10, 15, 20)]
    assert axes.get_xlabel() == "training tokens" and axes.get_ylabel() == "loss (nats per token)"


def test_error_bars_are_the_sd_over_seeds_or_for_one_seed_the_standard_error(tmp_path) -> None:
    for seeds, expected in (((0, 1), np.std([0.25 + 0.3, 0.25 + 0.3 + 0.02], ddof=1)), ((0,), 0.015)):
        experiment, plan = made.make_results(tmp_path / str(len(seeds)), seeds)
        scores = [row for row in collect(experiment, plan, tmp_path / str(len(seeds))).scores if row["primary"]]
        figure = scores_figure(scores, experiment.tasks)
        assert [axes.get_title() for axes in figure.axes] == list(made.TASKS)
        bar = figure.axes[0].collections[0].get_segments()[0]  # from scratch, smallest model
        assert (bar[1][1] - bar[0][1]) / 2 == pytest.approx(expected)
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == ["from scratch", "zero-shot", "fine-tuned", "chance"]
        dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashed] == [0.25]


def test_the_answers_figure_draws_bits_per_byte_over_the_main_metric_of_each_task_against_loss(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    rows = collect(experiment, plan, tmp_path)
    pretrained = [row for row in rows.runs if row["stage"] == "pretrain"]
    kinds = {row["run"]: "SP" for row in pretrained}
    figure = answers_figure(rows.scores, pretrained, experiment.tasks, kinds)
    assert [axes.get_title() for axes in figure.axes] == [*made.TASKS, "", "", ""]
    for upper, lower in zip(figure.axes[:3], figure.axes[3:], strict=True):
        assert lower.get_ylabel() == "acc, 0 to 1" and upper.xaxis_inverted() and lower.xaxis_inverted()
        for axes, value in ((upper, lambda acc: 3 - 2 * acc), (lower, lambda acc: acc)):
            drawn = [(bars.lines[0].get_xdata()[0], bars.lines[0].get_ydata()[0]) for bars in axes.containers]
            expected = []
            for n, model in enumerate(made.SIZES):
                losses = [row["validation_loss"] for row in pretrained if row["model"] == model]
                expected.append((np.mean(losses), value(np.mean([0.3 + 0.05 * n, 0.31 + 0.05 * n]))))
            assert np.array(drawn) == pytest.approx(np.array(expected))
        assert [text.get_text() for text in upper.texts] == ["90.1 K, n=2", "352 K, n=2", "1.23 M, n=2"]
        drawn = [bars.lines[0].get_xydata()[0] for bars in upper.containers]
        assert np.array([text.xy for text in upper.texts]) == pytest.approx(np.array(drawn))
    dashed = [[line.get_linestyle() for line in axes.lines].count("--") for axes in figure.axes]
    assert dashed == [0, 0, 0, 1, 1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["zero-shot", "chance"]


def test_six_tasks_have_two_panels_each_and_the_rest_of_the_last_row_is_empty(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    rows = collect(experiment, plan, tmp_path)
    scores = rows.scores + [row | {"task": row["task"] + " again"} for row in rows.scores]
    kinds = {row["run"]: "SP" for row in rows.runs}
    axes = answers_figure(scores, rows.runs, experiment.tasks, kinds).axes
    assert [panel.get_title() for panel in axes if panel.axison and panel.get_title()] == [
        *made.TASKS, *(f"{task} again" for task in sorted(made.TASKS))]  # fmt: skip
    assert [panel.axison for panel in axes] == [True] * 10 + [True, False, False, False, False] * 2


def test_the_compute_figure_labels_each_mean_with_size_and_number_of_seeds(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    runs = [row for row in collect(experiment, plan, tmp_path).runs if row["stage"] == "pretrain"]
    (axes,) = compute_figure(runs).axes
    wanted = ["gpt-90k, 90.1 K, n=2", "gpt-350k, 352 K, n=2", "gpt-1m, 1.23 M, n=2"]
    assert [text.get_text() for text in axes.texts] == wanted
    for model, label in zip(made.SIZES, axes.texts, strict=True):
        mine = [row for row in runs if row["model"] == model]
        expected = np.mean([row["flops"] for row in mine]), np.mean([row["validation_loss"] for row in mine])
        assert label.xy == pytest.approx(expected)
    assert axes.get_xscale() == "log"


def test_thirty_models_have_a_legend_that_fits_its_figure_and_no_label_lies_on_another(tmp_path, monkeypatch) -> None:
    sizes = {f"a-model-with-a-long-name-{n:02}": 50_000 + 40_000 * n for n in range(30)}
    monkeypatch.setattr(made, "SIZES", sizes)
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    rows = collect(experiment, plan, tmp_path)
    runs = [row for row in rows.runs if row["stage"] == "pretrain"]
    curves = {row["run"]: read_loss(tmp_path / "runs/pretrain" / row["run"] / "loss.csv") for row in runs}
    primary = [row for row in rows.scores if row["primary"]]
    answers = answers_figure(rows.scores, runs, experiment.tasks, {row["run"]: "SP" for row in runs})
    for figure in (loss_figure(runs, curves), compute_figure(runs), scores_figure(primary, experiment.tasks), answers):
        figure.set_layout_engine("constrained")
        figure.draw_without_rendering()
        legend, paper = figure.legends[0].get_window_extent(), figure.bbox
        assert legend.x0 >= paper.x0 and legend.x1 <= paper.x1 and legend.y0 >= paper.y0 and legend.y1 <= paper.y1
        for axes in figure.axes:
            assert axes.get_window_extent().height > 50  # the legend left room to draw
            boxes = [text.get_window_extent() for text in axes.texts]
            assert not [1 for n, box in enumerate(boxes) for other in boxes[:n] if box.overlaps(other)]


def test_an_experiment_without_tasks_still_gets_its_four_figures(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    plot(experiment, replace(plan, runs=plan.of("pretrain")), tmp_path)
    assert len(list((tmp_path / "made-up" / "figures").iterdir())) == 8


def test_a_missing_loss_csv_is_one_line(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    (tmp_path / "runs/pretrain/gpt-1m.world.s0/loss.csv").unlink()
    with pytest.raises(UserError, match="gpt-1m.world.s0/loss.csv: cannot be read"):
        plot(experiment, plan, tmp_path)
