"""Tables: every number in them is computed a second time here, with NumPy, from the files."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import results_fixture as made

from cgpt.errors import UserError
from cgpt.formats import short
from cgpt.records import read_loss, read_run, read_scores, write_record
from cgpt.report.tables import SCORE_COLUMNS, tabulate
from cgpt.scaling.points import RUN_COLUMNS
from cgpt.spec import Experiment


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def markdown_tables(path: Path) -> list[list[dict[str, str]]]:
    """Each table as a list of rows by column name, so that a test reads the table as a person does."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", path.read_text(), flags=re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        assert all(len(line) == len(lines[0]) for line in lines)
        tables.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return tables


def change(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None as a value stays, `...` removes the key."""
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not ...}))


@pytest.fixture
def done(tmp_path: Path) -> tuple[Experiment, Path]:
    experiment, plan = made.make_results(tmp_path)
    tabulate(experiment, plan, tmp_path)
    return experiment, tmp_path / experiment.name


def test_every_cell_of_the_table_is_the_mean_and_sd_of_its_seeds_in_scores_csv(done) -> None:
    rows = read_csv(done[1] / "scores.csv")
    for table, metric in zip(markdown_tables(done[1] / "table.md"), ("acc", "bits_per_byte_of_answer")):
        cells = 0
        for line in table:
            if line["condition"] == "chance":
                continue
            task = line["task"].split(" (")[0]
            for header, cell in list(line.items())[2:]:
                wanted = (task, line["condition"], header.split(" (")[0], metric)
                keys = ("task", "condition", "model", "metric")
                values = [float(row["value"]) for row in rows if wanted == tuple(row[key] for key in keys)]
                assert cell == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} (n 2, se 0.015)"
                cells += 1
        assert cells == 3 * 3 * 3


def test_bits_per_byte_of_the_answer_have_a_table_of_their_own_without_chance(done) -> None:
    scores, bits, _ = markdown_tables(done[1] / "table.md")
    assert list(bits[0]) == list(scores[0])
    assert [line["condition"] for line in bits] == ["from scratch", "zero-shot", "fine-tuned"] * 3
    assert bits[0]["task"] == "topic (bits_per_byte_of_answer, 0 and more, lower is better, 400 documents)"
    assert "## Bits per byte of the correct answer" in (done[1] / "table.md").read_text()


def test_without_bits_per_byte_of_an_answer_there_is_no_such_table(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    for path in tmp_path.glob("runs/evaluate/*/scores.json"):
        change(path, scores=json.loads(path.read_text())["scores"][1:])
    tabulate(experiment, plan, tmp_path)
    page = (tmp_path / "made-up" / "table.md").read_text()
    assert len(markdown_tables(tmp_path / "made-up" / "table.md")) == 2 and "correct answer" not in page


def test_models_stand_from_small_to_large_and_conditions_in_a_fixed_order(done) -> None:
    table = markdown_tables(done[1] / "table.md")[0]
    assert [name.split(" (")[0] for name in table[0]] == ["task", "condition", "gpt-90k", "gpt-350k", "gpt-1m"]
    assert [line["condition"] for line in table[:4]] == ["chance", "from scratch", "zero-shot", "fine-tuned"]
    assert list(dict.fromkeys(line["task"].split(" (")[0] for line in table)) == list(made.TASKS)
    assert table[0]["task"] == "topic (acc, 0 to 1, higher is better, 400 documents)"
    assert set(list(table[0].values())[2:]) == {"0.250"}


def test_one_seed_is_printed_without_a_standard_deviation(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    tabulate(experiment, plan, tmp_path)
    assert markdown_tables(tmp_path / "made-up" / "table.md")[0][1]["gpt-90k (90.1 K parameters)"] == "0.550 (se 0.015)"


def test_the_csv_files_have_exactly_the_columns_of_the_one_list_and_a_row_per_result(done) -> None:
    runs, scores = read_csv(done[1] / "runs.csv"), read_csv(done[1] / "scores.csv")
    assert tuple(runs[0]) == RUN_COLUMNS and tuple(scores[0]) == SCORE_COLUMNS
    assert len(runs) == 3 * 2 * (1 + 3 * 2)
    assert len(scores) == 3 * 2 * 3 * 3 * 2
    assert runs[0]["versions"] == "python 3.11; tinygrad 0.13.0"
    tuned = next(row for row in scores if row["condition"] == "fine-tuned" and row["task"] == "mood")
    assert tuned["finetune_run"] == "gpt-90k.world.s0.mood.pretrained" and tuned["pretrain_run"] == "gpt-90k.world.s0"
    assert all(row["pretrain_run"] == "" for row in scores if row["condition"] == "from scratch")


def test_the_pretraining_table_gives_size_cost_and_loss_of_every_run(done) -> None:
    table = markdown_tables(done[1] / "table.md")[2]
    assert len(table) == 6
    assert table[5] == {
        "model": "gpt-1m", "seed": "1", "data": "world", "hardware": "cpu", "parameters": "1.23 M",
        "training tokens": "24.6 M", "training FLOPs": "2.12e14", "validation loss (nats per token)": "4.475",
        "validation bits per byte": "1.234", "training time (s)": "61.5", "tokens per second": "12,346",
        "peak memory (GiB)": "0.76", "energy (J)": "", "host": "Some CPU @ 2.00GHz, 2 threads",
    }  # fmt: skip


def test_measured_and_modeled_runs_never_share_a_cell_and_modeled_ones_print_with_a_tilde(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    for path in tmp_path.glob("runs/*/gpt-1m.world.s1*/run.json"):
        change(path, hardware="cs2", timing="modeled", energy_j=1500.0)
    for path in tmp_path.glob("runs/evaluate/gpt-1m.world.s1*/scores.json"):
        change(path, hardware="cs2")
    tabulate(experiment, plan, tmp_path)
    scores, _, runs = markdown_tables(tmp_path / "made-up" / "table.md")
    assert list(scores[1])[-2:] == [
        "gpt-1m, cpu, measured (1.23 M parameters)",
        "gpt-1m, cs2, modeled (1.23 M parameters)",
    ]
    assert "±" in scores[1]["gpt-90k, cpu, measured (90.1 K parameters)"] and "±" not in list(scores[1].values())[-1]
    marked = {key for line in runs for key, cell in line.items() if cell.startswith("~")}
    assert marked == {"training time (s)", "tokens per second", "peak memory (GiB)", "energy (J)"}
    assert sum("~" in str(line) for line in runs) == 1
    assert "**~**: computed by a model of the hardware" in (tmp_path / "made-up" / "table.md").read_text()


def test_the_header_gives_question_date_commit_and_what_sd_and_se_mean(done) -> None:
    text = (done[1] / "table.md").read_text()
    for part in (done[0].question, "runs of 2026-11-23", "abc1234", "sample standard deviation over n training seeds",
                 "standard error of the metric over the test documents"):  # fmt: skip
        assert part in text


def test_the_html_page_is_one_well_formed_file_that_loads_nothing_and_escapes_names(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    tabulate(replace(experiment, question="Is 1 < 2 & <b>so</b>?"), plan, tmp_path)
    text = (tmp_path / "made-up" / "table.html").read_text()
    assert "Is 1 &lt; 2 &amp; &lt;b&gt;so&lt;/b&gt;?" in text
    assert not re.search(r"src=|href=|url\(|<script|@import", text)
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(text)
    assert not open_tags


def test_the_metric_of_the_table_is_the_first_of_the_tasks_metric_list_else_acc(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    for run in plan.runs:
        if run.stage == "evaluate" and run.spec["task"]["task"] == "topic":
            run.spec["task"]["metric_list"] = [{"metric": "bits_per_byte_of_answer"}]
        elif run.stage == "evaluate":
            del run.spec["task"]["metric_list"]
    tabulate(experiment, plan, tmp_path)
    table = markdown_tables(tmp_path / "made-up" / "table.md")[0]
    headings = {line["task"] for line in table if "(" in line["task"]}
    assert "topic (bits_per_byte_of_answer, 0 and more, lower is better, 400 documents)" in headings
    assert "mood (acc, 0 to 1, higher is better, 400 documents)" in headings
    assert next(line["condition"] for line in table if line["task"].startswith("topic")) == "from scratch"


def test_a_task_that_was_scored_on_a_part_of_its_documents_says_so(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    for path in tmp_path.glob("runs/evaluate/*topic*/scores.json"):
        change(path, documents="first 400 of 3,270")
    tabulate(experiment, plan, tmp_path)
    headings = {line["task"] for line in markdown_tables(tmp_path / "made-up" / "table.md")[0] if "(" in line["task"]}
    assert "topic (acc, 0 to 1, higher is better, first 400 of 3,270 documents)" in headings
    assert "mood (acc, 0 to 1, higher is better, 400 documents)" in headings


def test_two_results_that_differ_only_in_something_unknown_are_not_averaged(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    for path in tmp_path.glob("runs/*/gpt-1m.world.s1*/run.json"):
        change(path, seed=0)
    with pytest.raises(UserError, match="made-up: two results share .* and the seed"):
        tabulate(experiment, plan, tmp_path)


def test_a_bag_of_words_baseline_gets_a_row_of_its_own(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    made.write_json(tmp_path, "baseline", "words", "scores.json", made.scores_json("words", "topic", "baseline", 0.61))
    plan = replace(plan, runs=(*plan.runs, made.run("baseline", "words", {"task": {"task": "topic"}})))
    tabulate(experiment, plan, tmp_path)
    table = markdown_tables(tmp_path / "made-up" / "table.md")[0]
    line = next(line for line in table if line["condition"] == "bag of words")
    assert line["task"] == "topic" and list(line.values())[2:] == ["0.610 (se 0.015)"] * 3


def test_a_missing_an_extra_and_a_wrong_key_are_each_one_line_and_nothing_is_written(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    bad = tmp_path / "runs/pretrain/gpt-90k.world.s0/run.json"
    worse = tmp_path / "runs/evaluate/gpt-1m.world.s0.mood-e/scores.json"
    change(bad, flops=..., tokens_per_sec=1.0, steps="20")
    change(worse, n_samples=float("nan"))
    with pytest.raises(UserError) as error:
        tabulate(experiment, plan, tmp_path)
    assert f"{bad}: flops: is missing; every result has this key" in error.value.problems
    assert (
        f"{bad}: tokens_per_sec: is not a key of PretrainRecord; did you mean 'tokens_per_s'?" in error.value.problems
    )
    assert f"{bad}: steps: '20' does not fit; expected int" in error.value.problems
    assert f"{worse}: n_samples: nan does not fit; expected int" in error.value.problems
    assert not (tmp_path / "made-up").exists()


def test_missing_records_are_one_line_with_their_number_and_the_command(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    named = [run for run in plan.runs if run.stage in ("pretrain", "finetune", "meter", "evaluate", "baseline")]
    first = tmp_path / "runs/pretrain" / plan.of("pretrain")[0].id / "run.json"
    first.unlink()
    command = f"; run `snakemake --cores 2 {tmp_path}/made-up/table.md`, which makes them"
    with pytest.raises(UserError) as error:
        tabulate(experiment, plan, tmp_path)
    rest = ", or `cgpt tabulate made-up --partial` for a table of the rest"
    assert error.value.problems == (f"{first}: is missing{command}{rest}",)
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(UserError) as error:
        tabulate(experiment, plan, tmp_path)
    more = f", and so are {len(named) - 1} more of {len(named)} records"
    assert error.value.problems == (f"{first}: is missing{more}{command}",)


def test_a_score_with_an_extra_key_a_half_file_and_a_missing_file_are_refused(tmp_path) -> None:
    made.make_results(tmp_path)
    path = tmp_path / "runs/evaluate/gpt-1m.world.s0.mood-e/scores.json"
    scores = json.loads(path.read_text())["scores"]
    change(path, scores=[scores[0] | {"std": 0.1}])
    with pytest.raises(
        UserError, match=r"scores\.json: scores\.0: std: is not a key of Score; did you mean 'stderr'\?"
    ):
        read_scores(path)
    path.write_text('{"run": "x", "ta')
    with pytest.raises(UserError, match="is not JSON"):
        read_scores(path)
    with pytest.raises(UserError, match="run.json: is missing; run its stage first"):
        read_run(tmp_path / "run.json")


def test_a_loss_csv_with_other_columns_or_a_cut_line_is_refused(tmp_path) -> None:
    made.make_results(tmp_path, seeds=(0,))
    path = tmp_path / "runs/pretrain/gpt-1m.world.s0/loss.csv"
    text = path.read_text()
    path.write_text(text[: text.rindex(",0.001")])
    with pytest.raises(UserError, match="loss.csv: cannot be read"):
        read_loss(path)
    path.write_text(text.replace("grad_norm", "norm", 1))
    with pytest.raises(UserError, match="loss.csv: cannot be read .has no column grad_norm."):
        read_loss(path)


def test_a_record_that_is_written_is_read_back_equal(tmp_path) -> None:
    made.make_results(tmp_path, seeds=(0,))
    record = read_run(tmp_path / "runs/finetune/gpt-1m.world.s0.mood.scratch/run.json")
    write_record(tmp_path / "copy.json", record)
    assert read_run(tmp_path / "copy.json") == record and list(asdict(record))[-1] == "batches"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_the_same_files_give_the_same_bytes(tmp_path, done) -> None:
    experiment, plan = made.make_results(tmp_path)
    before = {path.name: path.read_bytes() for path in done[1].iterdir()}
    tabulate(experiment, plan, tmp_path)
    assert {path.name: path.read_bytes() for path in done[1].iterdir()} == before and len(before) == 5


@pytest.mark.parametrize(
    "count, text", [(999, "999"), (1000, "1.00 K"), (999_499, "999 K"), (999_600, "1.00 M"), (9_996_000, "10.0 M"),
                    (13_000_000_000, "13.0 B"), (None, "")]
)  # fmt: skip
def test_counts_are_shortened_to_three_digits(count: float | None, text: str) -> None:
    assert short(count) == text


@pytest.mark.parametrize("outputs", [3, "x", ["config.json"], {"a" * 5000: "x"}])
def test_a_record_whose_hashes_are_damaged_is_refused_with_what_follows_from_it(tmp_path, outputs) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    run = plan.of("pretrain")[0]
    change(tmp_path / "runs/pretrain" / run.id / "run.json", outputs=outputs)
    with pytest.raises(UserError, match=f"pretrain {run.id} changed since"):
        tabulate(experiment, plan, tmp_path)
