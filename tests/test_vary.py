"""An axis that an experiment varies, in tables and in a figure; every number is computed a second time with NumPy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import vary_fixture as made
from scipy.stats import t
from test_tabulate import change, markdown_tables, read_csv

from cgpt.errors import UserError
from cgpt.records import DivergedRecord, write_record
from cgpt.report.figures import plot
from cgpt.report.rows import collect
from cgpt.report.tables import tabulate
from cgpt.report.vary_figure import plot_vary, vary_figure
from cgpt.spec import Train

RATES = [0.001, 0.002, 0.004, 0.008]
SIZE = "gpt-90k (90.1 K parameters)"


def tables(root: Path) -> list[list[dict[str, str]]]:
    return markdown_tables(root / "varied" / "table.md")


def text_of(root: Path) -> str:
    return (root / "varied" / "table.md").read_text()


def losses(root: Path, model: str, part: str) -> list[float]:
    """The validation losses of a model at one point, from the records themselves."""
    paths = sorted(root.glob(f"runs/pretrain/{model}.*{part}.s*/run.json"))
    return [json.loads(path.read_text())["validation_loss"] for path in paths]


def figure_of(root: Path, experiment, plan, partial: bool = False):
    rows = collect(experiment, plan, root, partial)
    pretrained = [row for row in rows.runs if row["stage"] == "pretrain"]
    return vary_figure(experiment, pretrained, rows.diverged, [row for row in rows.scores if row["primary"]])


def test_values_of_the_axis_are_rows_and_models_columns_with_mean_sd_and_n_of_the_seeds(tmp_path) -> None:
    tabulate(*made.make_varied(tmp_path, {"train.lr": RATES}), tmp_path)
    table = tables(tmp_path)[0]
    assert list(table[0]) == ["train.lr", SIZE, "gpt-350k (352 K parameters)", "gpt-1m (1.23 M parameters)"]
    assert [line["train.lr"] for line in table] == ["0.001", "0.002", "0.004", "0.008"]
    for line, lr in zip(table, RATES, strict=True):
        for header in list(line)[1:]:
            values = losses(tmp_path, header.split()[0], f"lr={lr}")
            assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in line[header]
            assert "n 3" in line[header]


def test_the_best_value_is_marked_with_an_interval_on_the_sd_of_the_better_half(tmp_path) -> None:
    tabulate(*made.make_varied(tmp_path, {"train.lr": RATES}), tmp_path)
    cells = {line["train.lr"]: line[SIZE] for line in tables(tmp_path)[0]}
    assert {lr for lr, cell in cells.items() if "**" in cell and "(best" in cell} == {"0.004"}
    settings = sorted((losses(tmp_path, "gpt-90k", f"lr={lr}") for lr in RATES), key=np.mean)
    sd = np.sqrt(np.mean([np.var(values, ddof=1) for values in settings[:2]]))  # of the better half
    half = t.ppf(1 - 0.05 / 2 / 4, 2 * 2) * sd / np.sqrt(3)
    best = np.mean(settings[0])
    wanted = f"gpt-90k: best train.lr 0.004, 95 % interval of its mean {best - half:.3f} to {best + half:.3f}"
    assert wanted in text_of(tmp_path)


def test_a_best_value_at_the_end_of_those_tried_is_said_to_have_no_bound_there(tmp_path) -> None:
    tabulate(*made.make_varied(tmp_path, {"train.lr": [0.004, 0.008, 0.016]}, models=("gpt-1m",)), tmp_path)
    assert "0.004, 95 % interval" in text_of(tmp_path) and "a better one may lie beyond" in text_of(tmp_path)
    tabulate(*made.make_varied(tmp_path / "two", {"train.lr": RATES}, models=("gpt-1m",)), tmp_path / "two")
    assert "may lie beyond" not in text_of(tmp_path / "two")


def test_values_that_seeds_cannot_tell_from_the_best_are_marked(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.lr": RATES}, loss=lambda point, model: 3.0)
    tabulate(experiment, plan, tmp_path)
    cells = [line[SIZE] for line in tables(tmp_path)[0]]
    assert sum("(best" in cell for cell in cells) == 1 and sum("(≈ best" in cell for cell in cells) == 3


def test_one_seed_each_has_a_best_and_no_interval(tmp_path) -> None:
    tabulate(*made.make_varied(tmp_path, {"train.lr": RATES}, seeds=(0,)), tmp_path)
    assert "best train.lr 0.004, one seed each, so no interval." in text_of(tmp_path)
    assert "±" not in text_of(tmp_path).partition("## Pretraining")[0] and "≈" not in text_of(tmp_path)
    tabulate(*made.make_varied(tmp_path / "s", {"train.lr": RATES}, seeds=(0,), tasks=("topic",)), tmp_path / "s")
    assert "how far seeds differ is not known" in text_of(tmp_path / "s")


def test_scores_stand_against_the_axis_too_and_what_it_does_not_touch_has_one_row(tmp_path) -> None:
    tabulate(*made.make_varied(tmp_path, {"train.lr": RATES}, tasks=("topic",)), tmp_path)
    table = tables(tmp_path)[1]
    assert [(line["condition"], line["train.lr"]) for line in table] == [
        ("chance", ""), ("from scratch", "any"),
        *(("zero-shot", f"{lr:g}") for lr in RATES), *(("fine-tuned", f"{lr:g}") for lr in RATES),
    ]  # fmt: skip
    rows = read_csv(tmp_path / "varied" / "scores.csv")
    for line in table[2:]:
        keys = {
            "model": "gpt-90k",
            "condition": line["condition"],
            "metric": "acc",
            "setting": f"train.lr={line['train.lr']}",
        }
        values = [float(row["value"]) for row in rows if all(row[key] == value for key, value in keys.items())]
        assert len(values) == 3
        assert line[SIZE].strip("*").startswith(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
    assert "**any**: what varies does not touch this result" in text_of(tmp_path)


def test_the_numeric_axis_with_most_values_makes_the_rows_and_the_others_columns(tmp_path) -> None:
    vary = {
        "train.schedule": ["linear", "cosine", "wsd", "linear-2", "x"],
        "train.weight_decay": [0.0, 0.1],
        "train.lr": RATES,
    }
    experiment, plan = made.make_varied(tmp_path, vary, seeds=(0,), models=("gpt-1m",), tasks=("topic",))
    tabulate(experiment, plan, tmp_path)
    header = list(tables(tmp_path)[0][0])
    assert header[0] == "train.lr" and len(header) == 1 + 5 * 2
    assert header[1].startswith("gpt-1m, train.schedule=") and "train.weight_decay=" in header[1]
    scratch = next(line for line in tables(tmp_path)[1] if line["condition"] == "from scratch")
    assert len({cell for cell in list(scratch.values())[3:]}) == 1  # one result, in every column


def test_lists_and_words_are_values_like_others_and_losses_on_other_texts_have_no_best(tmp_path) -> None:
    vary = {"data.corpus": [["world"], ["world", "notes"]]}
    tabulate(*made.make_varied(tmp_path, vary, models=("gpt-1m",)), tmp_path)
    table = tables(tmp_path)[0]
    assert [line["data.corpus"] for line in table] == ["world", "world+notes"] and list(table[0])[1] == "gpt-1m"
    assert "do not compare these losses" in text_of(tmp_path) and "(best" not in text_of(tmp_path)
    tabulate(*made.make_varied(tmp_path / "w", {"train.schedule": ["wsd", "linear"]}, seeds=(0,)), tmp_path / "w")
    assert [line["train.schedule"] for line in tables(tmp_path / "w")[0]] == ["wsd", "linear"]  # as written


def test_vocabularies_are_compared_by_bits_per_byte_and_not_by_nats_per_token(tmp_path) -> None:
    tabulate(*made.make_varied(tmp_path, {"data.vocab_size": [512, 1024]}, models=("gpt-1m",)), tmp_path)
    assert "## Validation bits per byte against data.vocab_size" in text_of(tmp_path)
    assert tables(tmp_path)[0][0]["gpt-1m"].strip("*").startswith("1.234 ± 0.000")


def test_a_length_given_per_parameter_is_an_axis_in_those_words_though_runs_know_tokens_only(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.tokens": [1_802_240, 3_604_480]}, models=("gpt-90k",))
    per_parameter = {"train.tokens_per_parameter": [20, 40]}
    train = Train(lr=0.004, batch_size=8, tokens_per_parameter=20)
    tabulate(replace(experiment, vary=per_parameter, train=train), plan, tmp_path)
    assert [line["train.tokens_per_parameter"] for line in tables(tmp_path)[0]] == ["20", "40"]


def test_a_seed_apart_is_flagged_under_the_table_with_the_rule(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.lr": RATES})
    change(tmp_path / "runs/pretrain/gpt-90k.lr=0.002.s1/run.json", validation_loss=7.5)
    tabulate(experiment, plan, tmp_path)
    flagged = [cell for line in tables(tmp_path)[0] for cell in line.values() if "†" in cell]
    assert len(flagged) == 1 and flagged[0] == next(
        line[SIZE] for line in tables(tmp_path)[0] if line["train.lr"] == "0.002"
    )
    assert "† gpt-90k, train.lr 0.002: seed apart: seed 1 at 7.500, the others at 4." in text_of(tmp_path)
    assert "farther from the most of its setting than 3 times their range and than 10 % of the loss" in text_of(
        tmp_path
    )


def test_diverged_runs_are_told_from_missing_ones_and_the_rest_is_tabulated_on_request(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.lr": RATES})
    for seed in (0, 2):
        folder = tmp_path / f"runs/pretrain/gpt-90k.lr=0.008.s{seed}"
        (folder / "run.json").unlink()
        write_record(folder / "diverged.json", DivergedRecord(folder.name, "pretrain", 17, None))
    (tmp_path / "runs/pretrain/gpt-1m.lr=0.001.s0/run.json").unlink()
    with pytest.raises(UserError, match=r"and so are 2 more of 36 records \(gpt-90k.lr=0.008.s0, gpt-90k.lr=0.008.s2 "
                                        r"diverged\).*`cgpt tabulate varied --partial`"):  # fmt: skip
        tabulate(experiment, plan, tmp_path)
    assert not (tmp_path / "varied").exists()
    folder = tabulate(experiment, plan, tmp_path, partial=True)
    assert folder == tmp_path / "varied" / "partial"  # never where a whole table is looked for
    table, text = markdown_tables(folder / "table.md")[0], (folder / "table.md").read_text()
    assert table[3][SIZE].endswith("(2 of 3 diverged)")
    assert f"{losses(tmp_path, 'gpt-90k', 'lr=0.008')[0]:.3f}" in table[3][SIZE]
    assert "**Not complete**: missing are 3 of 36 records: " in text
    assert "pretrain gpt-90k.lr=0.008.s0 (diverged at step 17)" in text and "pretrain gpt-1m.lr=0.001.s0;" not in text
    figure = figure_of(tmp_path, experiment, plan, partial=True)
    assert "diverged" in [entry.get_text() for entry in figure.legends[0].get_texts()]
    plot(experiment, plan, tmp_path, partial=True)
    assert {path.name for path in (folder / "figures").iterdir()} >= {"loss.png", "scores.svg"}


def test_nothing_at_all_is_no_partial_table(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.lr": RATES})
    for path in tmp_path.glob("runs/pretrain/*/run.json"):
        path.unlink()
    with pytest.raises(UserError, match="is missing, and so are 35 more of 36 records"):
        tabulate(experiment, plan, tmp_path, partial=True)


def test_the_figure_draws_the_means_of_every_line_with_their_sd_and_rings_the_best(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.lr": RATES}, tasks=("topic", "mood"))
    figure = figure_of(tmp_path, experiment, plan)
    loss = figure.axes[0]
    assert [axes.get_title() for axes in figure.axes] == ["loss", "topic", "mood"]
    assert loss.get_xscale() == "log" and loss.get_xlabel() == "train.lr"
    assert loss.get_ylabel() == "validation loss\n(nats per token)"
    for bars, model in zip(loss.containers, made.SIZES, strict=True):
        settings = [losses(tmp_path, model, f"lr={lr}") for lr in RATES]
        line, _, (segments,) = bars.lines
        assert list(line.get_xdata()) == RATES
        assert list(line.get_ydata()) == pytest.approx([np.mean(values) for values in settings])
        spans = [(high - low) / 2 for (_, low), (_, high) in segments.get_segments()]
        assert spans == pytest.approx([np.std(values, ddof=1) for values in settings])
    rings = [line for line in loss.lines if line.get_markersize() == 10]
    assert [float(line.get_xdata()[0]) for line in rings] == [0.004] * 3


def test_other_axes_are_panels_on_one_scale_for_several_models_and_lines_for_one(tmp_path) -> None:
    vary = {"model.parametrization": ["sp", "mup"], "train.lr": RATES}
    figure = figure_of(tmp_path, *made.make_varied(tmp_path, vary, seeds=(0, 1)))
    assert [axes.get_title() for axes in figure.axes] == [
        "loss\nmodel.parametrization=mup", "loss\nmodel.parametrization=sp"]  # fmt: skip
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    figure = figure_of(tmp_path / "1", *made.make_varied(tmp_path / "1", vary, models=("gpt-1m",)))
    assert [axes.get_title() for axes in figure.axes if axes.axison] == ["loss"]
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == [
        "model.parametrization=mup", "model.parametrization=sp"]  # fmt: skip


def test_words_stand_side_by_side_on_the_figures_axis(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.schedule": ["linear", "cosine"]}, tasks=("topic",))
    loss = figure_of(tmp_path, experiment, plan).axes[0]
    assert [tick.get_text() for tick in loss.get_xticklabels()] == [
        "linear",
        "cosine",
    ] and loss.get_xscale() == "linear"


def test_the_figure_is_written_twice_with_the_same_bytes_and_not_at_all_where_nothing_varies(tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, {"train.lr": RATES})
    folder = plot_vary(experiment, plan, tmp_path) / "figures"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    plot_vary(experiment, plan, tmp_path)
    assert sorted(first) == ["vary.png", "vary.svg"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    with pytest.raises(UserError, match="varied.yaml: vary: is missing, so there is no axis to draw"):
        plot_vary(replace(experiment, vary={}), plan, tmp_path)


def test_of_a_length_no_value_is_called_the_best_since_more_always_is(tmp_path) -> None:
    lengths = {"train.tokens": [20_480, 40_960]}
    tabulate(*made.make_varied(tmp_path, lengths, tasks=("topic",)), tmp_path)
    assert [line["train.tokens"] for line in tables(tmp_path)[0]] == ["20,480", "40,960"]
    assert "(best" not in text_of(tmp_path) and "best train.tokens" not in text_of(tmp_path)


@pytest.mark.parametrize("vary", [
    {"model.d_model": [32, 64]}, {"model.tie_embeddings": [True, False]}, {"finetune.lr": [0.001, 0.002]},
    {"finetune.lr": [0.001, 0.002, 0.003], "train.lr": [0.01, 0.02]}, {"train.lr": [0.001]},
    {"train.lr": [0.0, 0.1, 0.3]}, {"train.beta2": [0.9, 0.95]}, {"train.lr": [1e-5, 1e3]},
])  # fmt: skip
def test_any_key_can_be_an_axis_of_tables_and_figures_with_every_result_in_them(vary, tmp_path) -> None:
    experiment, plan = made.make_varied(tmp_path, vary, seeds=(0, 1), tasks=("topic",), loss=lambda point, model: 3.0)
    tabulate(experiment, plan, tmp_path)
    plot_vary(experiment, plan, tmp_path)
    scores = next(table for table in tables(tmp_path) if "condition" in table[0])
    assert not [line for line in scores if "" in list(line.values())[3:]], scores


def test_an_empty_value_of_an_axis_is_a_row_and_a_point_like_the_others(tmp_path) -> None:
    """What it leaves to the default was said not to be touched by the axis, and drawn as a line across."""
    experiment, plan = made.make_varied(tmp_path, {"train.warmup_tokens": [64, None, 128]}, tasks=("topic",),
                                        loss=lambda point, model: 3.0)  # fmt: skip
    tabulate(experiment, plan, tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text_of(tmp_path).splitlines() if "|" in line]
    assert [row[0] for row in rows if row[0] in ("64", "default", "128")] == ["64", "default", "128"]
    assert [row[2] for row in rows if row[:2] == ["topic", "zero-shot"]] == ["64", "default", "128"] * 2
    loss = figure_of(tmp_path, experiment, plan).axes[0]
    assert [tick.get_text() for tick in loss.get_xticklabels()] == ["64", "default", "128"]
    for bars, model in zip(loss.containers, made.SIZES, strict=True):
        means = [np.mean(losses(tmp_path, model, f"warmup_tokens={value}")) for value in (64, None, 128)]
        assert bars.lines[0].get_ydata() == pytest.approx(means)


def test_what_cannot_be_told_from_the_best_is_listed_in_the_order_of_the_axis(tmp_path) -> None:
    sizes = [8, 64, 128, 1024]
    experiment, plan = made.make_varied(tmp_path, {"train.batch_size": sizes}, loss=lambda point, model: 3.0)
    tabulate(experiment, plan, tmp_path)
    listed = [line.partition("≈ best: ")[2].rstrip(".").split("; ")[0].replace(",", "").split(" 1024")[0].split()
              for line in text_of(tmp_path).splitlines() if line.startswith("gpt-90k: best")]  # fmt: skip
    numbers = [int(number) for number in listed[0]]
    assert len(numbers) >= 2 and numbers == sorted(numbers)


def test_no_title_of_a_panel_is_wider_than_the_panel_and_no_label_is_higher(tmp_path) -> None:
    vary = {"train.lr": RATES, "model.n_layer": [1, 2], "train.schedule": ["cosine", "wsd"]}
    figure = figure_of(tmp_path, *made.make_varied(tmp_path, vary, tasks=("topic",)))
    figure.canvas.draw()
    widths = [axes.title.get_window_extent().width / axes.get_window_extent().width for axes in figure.axes]
    heights = [axes.yaxis.label.get_window_extent().height / axes.get_window_extent().height for axes in figure.axes]
    assert len(widths) == 8 and max(widths) < 1.2 and max(heights) < 1.2
