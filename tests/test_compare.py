"""`compare`: rows joined, differences with their standard errors, and everything in which two sides are not alike."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import results_fixture as made
from scipy import stats

from cgpt.__main__ import main
from cgpt.report.comparison import difference
from cgpt.report.comparison.difference import over_documents, over_paired_documents, over_seeds
from cgpt.report.tables import tabulate

FINE_TUNED = {"task": "topic", "condition": "fine-tuned", "model": "gpt-90k", "metric": "acc"}
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """The tables of an experiment with two seeds."""
    folder = tmp_path_factory.mktemp("made")
    experiment, plan = made.make_results(folder)
    return tabulate(experiment, plan, folder)


@pytest.fixture
def results(tables, tmp_path, monkeypatch) -> Path:
    """The working directory's results, with an experiment `one` and another, `two`, that is the same."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(tables, tmp_path / "results" / name)
    return tmp_path / "results"


def edit(path: Path, change, **which: str) -> None:
    """Change the cells of the rows of a CSV file that have these values; `change` maps a row to new cells or to None
    for a row that goes."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    kept = []
    for row in rows:
        new = change(row) if all(row[key] == value for key, value in which.items()) else {}
        kept += [] if new is None else [row | new]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)


def compare(capsys, *arguments: str) -> dict:
    assert main(["compare", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> str:
    assert main(["compare", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def pair_of(comparison: dict, **names: str) -> dict:
    (pair,) = [pair for pair in comparison["scores"]
               if all(pair["names"].get(key) == value for key, value in names.items())]  # fmt: skip
    return pair


def add_samples(
    results: Path, experiment: str, values: dict[str, list[float]], prompt: str = "{}", **which: str
) -> None:
    """Samples for the rows that have these values, by seed; the rows' scores become their means."""

    def change(row: dict) -> dict:
        folder = results / "runs/evaluate" / f"{experiment}-{row['evaluate_run']}"
        folder.mkdir(parents=True, exist_ok=True)
        of_documents = values[row["seed"]]
        samples = [{"doc_id": n, "filter": "none", "prompt": prompt.format(n), "choices": ["a", "b"], "target": [n % 2],
                    "metrics": {row["metric"]: value}} for n, value in enumerate(of_documents)]  # fmt: skip
        (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        error = np.std(of_documents, ddof=1) / math.sqrt(len(of_documents))
        return {"evaluate_run": folder.name, "value": repr(float(np.mean(of_documents))), "stderr": repr(float(error))}

    edit(results / experiment / "scores.csv", change, **which)


def one_seed(results: Path, *experiments: str) -> None:
    for name in experiments:
        for table in ("scores", "runs", "hardware"):
            edit(results / name / f"{table}.csv", lambda row: None, seed="1")


def test_with_seeds_on_both_sides_the_difference_is_welchs(results, capsys):
    edit(results / "two/scores.csv", lambda row: {"value": str(float(row["value"]) ** 2)}, **FINE_TUNED)
    pair = pair_of(compare(capsys, "one", "two"), **FINE_TUNED)
    a, b = np.array([0.75, 0.77]), np.array([0.75, 0.77]) ** 2
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert pair["a"]["value"] == pytest.approx(a.mean()) and pair["b"]["value"] == pytest.approx(b.mean())
    assert pair["difference"]["value"] == pytest.approx(b.mean() - a.mean())
    assert pair["difference"]["standard_error"] == pytest.approx((b.mean() - a.mean()) / expected.statistic)
    assert 2 * stats.norm.sf(abs(pair["difference"]["z"])) == pytest.approx(expected.pvalue)
    assert (pair["difference"]["by"], pair["difference"]["n"], pair["better"]) == ("seeds", [2, 2], "A")


def test_of_one_seed_the_same_documents_are_paired(results, capsys):
    one_seed(results, "one", "two")
    rng = np.random.default_rng(1)
    easy = rng.random(200)
    values = [(rng.random(200) < easy).astype(float).tolist() for _ in range(2)]
    for name, of_side, prompt in (("one", values[0], "Is {}?"), ("two", values[1], "A shot. Is {}?")):
        add_samples(results, name, {"0": of_side}, prompt, **FINE_TUNED)
    pair = pair_of(compare(capsys, "one", "two"), **FINE_TUNED)
    expected = stats.ttest_rel(values[1], values[0])
    assert (pair["difference"]["by"], pair["difference"]["n"]) == ("documents, paired", [200, 200])
    assert pair["difference"]["standard_error"] == pytest.approx(pair["difference"]["value"] / expected.statistic)
    assert 2 * stats.norm.sf(abs(pair["difference"]["z"])) == pytest.approx(expected.pvalue)


def test_documents_of_several_seeds_against_one_are_paired_by_their_means(results, capsys):
    one_seed(results, "two")
    rng = np.random.default_rng(2)
    seeds = rng.integers(0, 2, (3, 50)).astype(float).tolist()
    add_samples(results, "one", {"0": seeds[0], "1": seeds[1]}, **FINE_TUNED)
    add_samples(results, "two", {"0": seeds[2]}, **FINE_TUNED)
    pair = pair_of(compare(capsys, "one", "two"), **FINE_TUNED)
    apart = np.array(seeds[2]) - np.mean(seeds[:2], axis=0)
    assert pair["difference"]["by"] == "documents, paired" and pair["a"]["n"] == 2
    assert pair["difference"]["standard_error"] == pytest.approx(apart.std(ddof=1) / math.sqrt(50))


@pytest.mark.parametrize("what", ["other prompts", "other answers", "fewer documents", "no mean", "no samples"])
def test_what_is_not_known_to_be_of_the_same_documents_is_not_paired(results, capsys, what):
    one_seed(results, "one", "two")
    values, others = ([float(n % every == 0) for n in range(30)] for every in (3, 4))
    add_samples(results, "one", {"0": values}, "Is {}?", **FINE_TUNED)
    add_samples(results, "two", {"0": others[:-1] if what == "fewer documents" else others},
                "Was {} it?" if what == "other prompts" else "Is {}?", **FINE_TUNED)  # fmt: skip
    samples = next((results / "runs/evaluate").glob("two-*/samples.jsonl"))
    if what == "other answers":
        samples.write_text(samples.read_text().replace('"target": [0]', '"target": [1]'))
    if what == "no mean":
        edit(results / "two/scores.csv", lambda row: {"value": "0.9"}, **FINE_TUNED)
    if what == "no samples":
        samples.unlink()
    pair = pair_of(compare(capsys, "one", "two"), **FINE_TUNED)
    assert pair["difference"]["by"] == "documents" and pair["difference"]["n"] is None
    assert pair["difference"]["standard_error"] == pytest.approx(math.hypot(pair["a"]["se"], pair["b"]["se"]))
    assert pair["difference"]["z"] == pytest.approx(pair["difference"]["value"] / pair["difference"]["standard_error"])


def test_results_elsewhere_do_not_take_the_samples_that_are_here(results, capsys):
    one_seed(results, "one", "two")
    add_samples(results, "one", {"0": [0.0, 1.0, 1.0, 0.0]}, **FINE_TUNED)
    add_samples(results, "two", {"0": [0.0, 1.0, 1.0, 1.0]}, **FINE_TUNED)
    (results / "reference").mkdir()
    (results / "two").rename(results / "reference/two")
    pair = pair_of(compare(capsys, "one", "reference/two"), **FINE_TUNED)
    assert pair["difference"]["by"] == "documents"


def test_a_run_compared_with_itself_has_no_difference(results, capsys):
    comparison = compare(capsys, "one", "two")
    pairs = [*comparison["scores"], *comparison["losses"]]
    assert len(comparison["scores"]) == 3 * 3 * 3 * 2 and len(comparison["losses"]) == 3 * 2
    assert {pair["difference"]["value"] for pair in pairs} == {0.0} and {pair["better"] for pair in pairs} == {"same"}
    assert {pair["difference"]["z"] for pair in pairs} == {None} and comparison["n_same"] == len(pairs)
    assert comparison["n_beyond"] == comparison["n_differences"] == comparison["expected_by_chance"] == 0
    assert not comparison["alone"] and not comparison["apart"]
    assert {cost["ratio"] for cost in comparison["costs"]} == {1.0}


def test_whether_training_seeds_are_part_of_the_errors_is_told(results, capsys):
    edit(results / "two/scores.csv", lambda row: {"value": str(float(row["value"]) ** 2)}, **FINE_TUNED)
    sentence = "not both sides have several seeds, so how far seeds differ is no part of it"
    for with_seeds in (True, False):
        assert main(["compare", "one", "two"]) == 0
        text = capsys.readouterr().out
        assert (sentence in text) is not with_seeds and ("2 seeds" in text) is with_seeds
        one_seed(results, "two")


def test_equal_scores_of_documents_that_differ_are_a_difference_of_nothing(results, capsys):
    one_seed(results, "one", "two")
    add_samples(results, "one", {"0": [0.0, 1.0, 0.0, 1.0]}, **FINE_TUNED)
    add_samples(results, "two", {"0": [1.0, 0.0, 0.0, 1.0]}, **FINE_TUNED)
    tie = pair_of(compare(capsys, "one", "two"), **FINE_TUNED)["difference"]
    assert (tie["value"], tie["z"], tie["by"]) == (0.0, 0.0, "documents, paired") and tie["standard_error"] > 0


def test_values_that_are_all_alike_have_no_standard_error_and_no_z():
    assert over_seeds([0.5, 0.5], [0.5, 0.5]) is None and over_seeds([0.5, 0.5], [0.6, 0.6]) is None
    assert over_paired_documents([1.0, 0.0], [1.0, 0.0]) is None
    assert over_documents(0.0, 0.0, 0.0) is None and over_documents(0.1, None, 0.1) is None
    assert over_seeds([0.5, 0.6], [0.5]) is None


@pytest.mark.parametrize("n_seeds", [(2, 2), (3, 3), (2, 8)])
def test_about_one_in_twenty_differences_of_nothing_is_beyond_over_seeds(n_seeds):
    rng = np.random.default_rng(0)
    n_beyond = sum(
        over_seeds(*(rng.normal(0.5, 0.02, n).tolist() for n in n_seeds)).is_beyond
        for _ in range(4000)  # type: ignore
    )
    # Welch's degrees of freedom are a guess of so few values: too cautious for two and two, too bold for two and eight.
    assert 0.02 < n_beyond / 4000 < (0.06 if n_seeds[0] == n_seeds[1] else 0.1)


def test_about_one_in_twenty_differences_of_nothing_is_beyond_over_documents():
    rng = np.random.default_rng(0)
    paired = unpaired = cautious = 0
    for _ in range(2000):
        easy = rng.beta(1, 1, 300)  # how likely a model is right on each document
        a, b, of_others = ((rng.random(300) < chances).astype(float) for chances in (easy, easy, rng.beta(1, 1, 300)))
        errors = [float(values.std(ddof=1) / math.sqrt(300)) for values in (a, b, of_others)]
        paired += over_paired_documents(a.tolist(), b.tolist()).is_beyond  # type: ignore[union-attr]
        unpaired += over_documents(float(of_others.mean() - a.mean()), errors[0], errors[2]).is_beyond  # type: ignore
        cautious += over_documents(float(b.mean() - a.mean()), *errors[:2]).is_beyond  # type: ignore[union-attr]
    assert 0.035 < paired / 2000 < 0.065 and 0.035 < unpaired / 2000 < 0.065
    assert cautious < 0.6 * paired  # the same documents taken for different ones: too wide, never too narrow


def test_an_interval_of_two_standard_errors_holds_a_real_difference():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        easy = rng.beta(2, 2, 400)
        a, b = ((rng.random(400) < chances).astype(float).tolist() for chances in (easy, 0.5 * easy + 0.5))
        apart = over_paired_documents(a, b)
        assert apart and apart.standard_error
        held += abs(apart.value - 0.25) < difference.BEYOND * apart.standard_error
    assert 0.935 < held / 2000 < 0.965


@pytest.mark.parametrize(("higher", "better"), [("true", "B"), ("false", "A"), ("", None)])
def test_the_direction_of_the_metric_decides_which_side_is_better(results, capsys, higher, better):
    for name in ("one", "two"):
        edit(results / name / "scores.csv", lambda row: {"higher_is_better": higher}, **FINE_TUNED)
    edit(results / "two/scores.csv", lambda row: {"value": str(float(row["value"]) + 0.1)}, **FINE_TUNED)
    assert pair_of(compare(capsys, "one", "two"), **FINE_TUNED)["better"] == better


@pytest.mark.parametrize("column, value", [
    ("task_version", "2.0"), ("n_shot", "3"), ("documents", "first 100 of 400"), ("n_prompts_cut", "7"),
    ("chance", "0.5"), ("n_samples", "100"), ("higher_is_better", "false"),
])  # fmt: skip
def test_conditions_that_the_sides_do_not_share_are_told(results, capsys, column, value):
    edit(results / "two/scores.csv", lambda row: {column: value}, **FINE_TUNED)
    pair = pair_of(compare(capsys, "one", "two"), **FINE_TUNED)
    assert len(pair["differs"]) == 1 and pair["differs"][0].startswith(f"{column} ")
    assert pair["differs"][0].endswith(f"| {float(value) if column == 'task_version' else value}")
    assert main(["compare", "one", "two"]) == 0
    text = capsys.readouterr().out
    assert f"* {pair['differs'][0]}: topic fine-tuned gpt-90k acc." in text
    assert text.count("acc *") == 1


def test_rows_of_one_side_are_listed(results, capsys):
    edit(results / "two/scores.csv", lambda row: None, **FINE_TUNED)
    edit(results / "one/scores.csv", lambda row: {"task": "another"}, task="mood", condition="zero-shot")
    alone = compare(capsys, "one", "two")["alone"]
    assert {(each["side"], each["names"]["task"], each["names"]["condition"]) for each in alone} == {
        ("A", "topic", "fine-tuned"), ("A", "another", "zero-shot"), ("B", "mood", "zero-shot")}  # fmt: skip
    main(["compare", "one", "two"])
    assert "A     scores  topic, fine-tuned, acc, gpt-90k" in capsys.readouterr().out


def test_a_column_with_one_value_a_side_keeps_no_rows_apart_and_is_told(results, capsys):
    for table in ("scores", "runs", "hardware"):
        edit(
            results / "two" / f"{table}.csv", lambda row: {"hardware": "other", "data": "books"} if row["data"] else {}
        )
    comparison = compare(capsys, "one", "two")
    assert comparison["apart"] == {"data": ["world", "books"], "hardware": ["cpu", "other"]}
    assert len(comparison["scores"]) == 54 and not comparison["alone"]


def test_measured_and_modeled_costs_have_no_ratio(results, capsys):
    edit(results / "two/hardware.csv", lambda row: {"timing": "modeled"})
    comparison = compare(capsys, "one", "two")
    assert comparison["costs"] and {cost["ratio"] for cost in comparison["costs"]} == {None}
    assert all("timing measured | modeled" in cost["differs"] for cost in comparison["costs"])
    main(["compare", "one", "two"])
    text = capsys.readouterr().out
    assert "No ratio of a measured and a modeled value" in text and "~61.5" in text


def test_costs_are_ratios_and_the_processor_is_told(results, capsys):
    edit(results / "two/hardware.csv", lambda row: {"seconds": "123", "tokens_per_s": "0"})
    edit(results / "two/runs.csv", lambda row: {"host_cpu": "Another CPU"})
    costs = compare(capsys, "one", "two")["costs"]
    assert {cost["ratio"] for cost in costs if cost["quantity"] == "seconds"} == {2.0}
    assert {cost["ratio"] for cost in costs if cost["quantity"] == "tokens_per_s"} == {0.0}
    assert all("host_cpu Some CPU @ 2.00GHz | Another CPU" in cost["differs"] for cost in costs)


def test_two_machines_of_one_experiment_are_compared(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    comparison = compare(capsys, "reference/devices", "--hardware", "h100", "cs2")
    with open("results/reference/devices/hardware.csv", newline="") as file:
        rows = {(row["model"], row["hardware"]): row for row in csv.DictReader(file)}
    costs = [cost for cost in comparison["costs"] if cost["quantity"] == "step_s"]
    assert [cost["ratio"] for cost in costs] == [
        float(rows[model, "cs2"]["step_s"]) / float(rows[model, "h100"]["step_s"])
        for model in ("gpt-0.1m", "gpt-0.2m", "gpt-0.4m")
    ]
    assert comparison["apart"] == {"hardware": ["h100", "cs2"]} and costs[0]["extrapolated"] == [True, True]


def test_kept_results_can_be_compared_with_others(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    comparison = compare(capsys, "results/reference/quickstart", "reference/devices")
    assert len(comparison["scores"]) == 56 and comparison["n_differences"] + comparison["n_same"] == 56
    assert comparison["expected_by_chance"] == 0.05 * comparison["n_differences"]
    assert all("documents all | not recorded" in pair["differs"] for pair in comparison["scores"])


def test_the_page_is_written_as_markdown_and_as_html(results, capsys):
    for name in ("page.md", "page.html"):
        compare(capsys, "one", "two", "--out", name)
        assert "60 of 60 scores and losses are the same" in Path(name).read_text()


def test_what_cannot_be_compared_is_refused_in_one_line(results, capsys):
    assert refused(capsys, "on", "two") == "on: is no folder with scores.csv or runs.csv; did you mean 'one'?"
    assert refused(capsys, "one") == "compare: 1 is named; name two experiments, or one and `--hardware A B`"
    assert refused(capsys, "one", "two", "three").startswith("compare: 3 are named")
    assert refused(capsys, "one", "results/one").startswith("compare: both sides are results/one; name another")
    assert refused(capsys, "one", "two", "--out", "x.txt").startswith("--out: 'x.txt' ends in neither")
    line = refused(capsys, "one", "--hardware", "cpu", "cqu")
    assert line == "--hardware: results/one has no results of 'cqu'; did you mean 'cpu'?"


@pytest.mark.parametrize("damage, problem", [
    (lambda text: text.replace("value", "worth"), "has no column value"),
    (lambda text: text.replace(",0.55", ",half"), "value: 'half' is no finite number"),
    (lambda text: text.replace(",0.55,", ",inf,"), "value: 'inf' is no finite number"),
    (lambda text: text + text.splitlines()[1] + "\n", "two results share"),
    (lambda text: text + "1,2\n", "cannot be read (row"),
])  # fmt: skip
def test_a_table_that_is_wrong_is_refused_in_one_line(results, capsys, damage, problem):
    path = results / "one/scores.csv"
    path.write_text(damage(path.read_text()))
    assert problem in refused(capsys, "one", "two")


def test_damaged_samples_are_refused_in_one_line(results, capsys):
    one_seed(results, "one", "two")
    for name in ("one", "two"):
        add_samples(results, name, {"0": [0.0, 1.0]}, **FINE_TUNED)
    for damaged in ("{", '{"doc_id": 0, "filter": "none", "metrics": null}'):
        next((results / "runs/evaluate").glob("one-*/samples.jsonl")).write_text(damaged)
        assert "samples.jsonl: cannot be read" in refused(capsys, "one", "two")


def test_an_experiment_of_cgpt_without_results_is_told_how_they_are_made(results, capsys):
    for name in ("smoke", "mine"):
        path = Path(f"workflows/experiments/{name}.yml")
        if name == "mine":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        assert f"results/{name}: has no tables yet; run `snakemake" in refused(capsys, "one", name)


def test_nothing_in_a_table_reaches_a_terminal_as_an_escape(results, capsys):
    for name in ("one", "two"):
        edit(results / name / "scores.csv", lambda row: {"task": "\x1b[2Jtopic"}, task="topic")
    main(["compare", "one", "two"])
    assert "\x1b" not in capsys.readouterr().out
