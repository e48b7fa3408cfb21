"""The verb fit: what it reads from runs.csv, what it writes, and what it says of runs that decide no law."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from project import MODELS, edit, write_project

from cgpt.__main__ import main
from cgpt.commands import fit
from cgpt.experiment import load, plan
from cgpt.files.csv_file import write_csv
from cgpt.recipe.flops import CONVENTIONS
from cgpt.scaling.points import RUN_COLUMNS, read_runs

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results/reference"
OF_DRAWS = {"band", "ends", "best_lr_ends", "steps", "interior_share_of_draws",
            "correlation_alpha_e"}  # fmt: skip
QUICKSTART = "workflows/experiments/quickstart.yaml"
SIZES = {"a": (1, 16), "b": (2, 32), "c": (2, 48), "d": (3, 64), "e": (4, 96), "f": (5, 128)}  # n_layer, d_model
LAW = (4e13, 0.2, 1.25)  # C0, alpha, E, of FLOPs counted as in PaLM


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A project of six sizes at 20 tokens per parameter, two seeds each."""
    write_project(tmp_path)
    rows = [f"  {name}: {{n_layer: {layers}, d_model: {width}, n_head: 2, seq_len: 16}}\n"
            for name, (layers, width) in SIZES.items()]  # fmt: skip
    edit(tmp_path, "workflows/models.yaml", MODELS, "models:\n" + "".join(rows))
    edit(tmp_path, QUICKSTART, "models: [small]", f"models: [{', '.join(SIZES)}]\nseeds: [0, 1]")
    edit(tmp_path, QUICKSTART, "steps: 10", "tokens_per_parameter: 20")
    edit(tmp_path, QUICKSTART, "finetune: {start: [pretrained, scratch]}\ntasks: [topic]", "tasks: []")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loss_of(flops: float, seed: int) -> float:
    c0, alpha, e = LAW
    return ((flops / c0) ** -alpha + e) * (1 + 0.0001 * np.random.RandomState([int(flops) % 2**31, seed]).randn())


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_runs(root: Path) -> None:
    """runs.csv of the plan, with the losses of LAW, 0.01 % of noise, and a fine-tuned run."""
    workflow = load.load_workflow(root)
    rows = []
    for run in plan.make_plan(workflow.experiments["quickstart"], workflow).of("pretrain"):
        cost, loss = run.execution, loss_of(run.execution.flops, run.spec["seed"])
        varied = workflow.experiments["quickstart"].vary
        setting = ", ".join(f"{axis}={run.spec['train'][axis.removeprefix('train.')]}" for axis in varied)
        rows.append(dict.fromkeys(RUN_COLUMNS) | {
            "experiment": "quickstart", "setting": setting, "run": run.id, "stage": "pretrain",
            "model": run.spec["model"]["name"], "data": "world", "seed": run.spec["seed"], "hardware": "cpu",
            "n_parameters": cost.n_parameters, "n_parameters_non_embedding": cost.n_parameters // 2,
            "tokens": cost.tokens, "steps": 10, "validation_loss": loss, "validation_bits_per_byte": loss / 3,
        })  # fmt: skip
    rows.append(rows[-1] | {"stage": "finetune", "run": "not in the plan", "validation_loss": 9.0})
    write_csv(root / "results/quickstart/runs.csv", RUN_COLUMNS, rows)


def test_an_experiments_law_its_files_and_its_figure_come_from_runs_csv(root, capsys):
    write_runs(root)
    assert main(["fit", "quickstart", "--json"]) == 0
    fits = json.loads(capsys.readouterr().out)
    assert fits == json.loads((root / "results/quickstart/fits.json").read_text())
    study = fits["series"][""]
    assert (study["n_runs"], study["n_settings"]) == (12, 6)
    fits = {(each["form"], each["flops"], each["unit"]): each for each in study["compute"]}
    assert {convention for _, convention, _ in fits} == set(CONVENTIONS)
    nats, bits = (fits["offset", "palm", unit] for unit in ("nats_per_token", "bits_per_byte"))
    for name, value in zip(("c0_flops", "alpha", "e"), LAW):
        low, high = nats["constants"][name]["ends"]
        assert low < value < high and nats["constants"][name]["value"] == pytest.approx(value, rel=0.02)
    assert bits["constants"]["alpha"]["value"] == pytest.approx(nats["constants"]["alpha"]["value"], rel=1e-3)
    assert bits["constants"]["e"]["value"] == pytest.approx(nats["constants"]["e"]["value"] / 3, rel=1e-3)
    assert [held["model"] for held in nats["held_out"]] == ["d", "e", "f"]
    assert all(abs(held["error"]) < 0.002 for held in nats["held_out"])
    assert "tokens per parameter" in study["parametric"]["n_parameters"]["problem"]
    assert "problem" in study["isoflop"]
    written = [root / "results/quickstart" / name for name in ("fits.json", "fits.md", "figures/law.svg",
                                                               "figures/law.png")]  # fmt: skip
    first = [path.read_bytes() for path in written]
    assert ElementTree.fromstring(first[2]).tag.endswith("svg") and first[3][:4] == b"\x89PNG"
    assert main(["fit", "quickstart"]) == 0
    assert [path.read_bytes() for path in written] == first
    assert "| nats per token | palm | offset |" in first[1].decode()


def test_flops_are_counted_by_every_convention_from_the_runs_shape(root):
    write_runs(root)
    workflow = load.load_workflow(root)
    (points,) = read_runs(
        root / "results/quickstart/runs.csv", plan.make_plan(workflow.experiments["quickstart"], workflow)
    ).values()
    layers, width, vocabulary, length = 5, 128, 512, 16
    n = (vocabulary + length) * width + layers * (12 * width**2 + 13 * width) + 2 * width
    assert points.n_parameters[-1] == n and points.models[-1] == "f"
    assert points.flops["6nd"][-1] == pytest.approx(6 * n * points.tokens[-1])
    assert points.flops["palm"][-1] == pytest.approx((6 * n + 12 * layers * length * width) * points.tokens[-1])
    cerebras = 72 * layers * width**2 + 24 * layers * length * width + 10 * vocabulary * width
    assert points.flops["cerebras"][-1] == pytest.approx(cerebras * points.tokens[-1])
    assert points.setting_of.tolist() == [cell for cell in range(6) for _ in range(2)]


def test_a_law_is_of_each_sizes_best_learning_rate_and_says_of_how_many(root):
    """Two rates by turns the better one: 1.5 % below the law's loss at the other."""
    edit(root, QUICKSTART, "threads_per_run: 1", "threads_per_run: 1\nvary: {train.lr: [0.001, 0.002]}\nfit: [compute]")
    write_runs(root)
    path = root / "results/quickstart/runs.csv"
    rows = rows_of(path)
    for row in rows[:-1]:
        better = 0.001 if row["model"] in "ace" else 0.002
        if row["setting"] != f"train.lr={better}":
            row["validation_loss"] = str(1.015 * float(row["validation_loss"]))
    write_csv(path, RUN_COLUMNS, rows)
    assert main(["fit", "quickstart"]) == 0
    ((name, study),) = json.loads((root / "results/quickstart/fits.json").read_text())["series"].items()
    assert (name, study["n_runs"], study["n_settings"], study["n_settings_tried"]) == ("", 12, 6, 12)
    assert study["best_by"] == ["train.lr"]
    (law,) = (fit for fit in study["compute"] if "draws" in fit and fit["form"] == "offset")
    assert law["constants"]["alpha"]["value"] == pytest.approx(LAW[1], rel=0.02)
    page = (root / "results/quickstart/fits.md").read_text()
    assert "12 runs, 6 settings, of each size the best of 12 by train.lr" in page and "nan" not in page


def test_a_run_without_a_finite_loss_is_left_out_and_said(root):
    write_runs(root)
    path = root / "results/quickstart/runs.csv"
    rows = rows_of(path)
    rows[0]["validation_loss"], rows[1]["validation_loss"] = "nan", "inf"
    write_csv(path, RUN_COLUMNS, rows)
    assert main(["fit", "quickstart"]) == 0
    page = (root / "results/quickstart/fits.md").read_text()
    assert "10 runs, 5 settings; 2 runs without a finite loss left out" in page and "nan" not in page


def test_a_seed_apart_from_the_others_of_its_setting_is_named_above_the_law(root):
    edit(root, QUICKSTART, "seeds: [0, 1]", "seeds: [0, 1, 2]")
    write_runs(root)
    path = root / "results/quickstart/runs.csv"
    rows = rows_of(path)
    (strange,) = (row for row in rows if row["model"] == "d" and row["seed"] == "1" and row["stage"] == "pretrain")
    strange["validation_loss"] = str(2 * float(strange["validation_loss"]))
    write_csv(path, RUN_COLUMNS, rows)
    assert main(["fit", "quickstart"]) == 0
    page = (root / "results/quickstart/fits.md").read_text()
    loss = float(strange["validation_loss"])
    assert f"a seed apart from the others of its setting and part of its mean: d at {loss:.3f})" in page  # and no other


def test_runs_of_different_weight_decays_are_different_series(root):
    edit(
        root,
        QUICKSTART,
        "threads_per_run: 1",
        "threads_per_run: 1\nvary: {train.weight_decay: [0.1, 0.2]}\nfit: [compute]",
    )
    write_runs(root)
    assert main(["fit", "quickstart"]) == 0
    fits = json.loads((root / "results/quickstart/fits.json").read_text())
    assert set(fits["series"]) == {"train.weight_decay=0.1", "train.weight_decay=0.2"}
    assert all(study["n_runs"] == 12 and "isoflop" not in study for study in fits["series"].values())


@pytest.mark.parametrize(("spoil", "expected"), [
    (lambda path: path.unlink(), "results/quickstart/runs.csv: cannot be read (No such file or directory); run "
     "`snakemake --cores 2 results/quickstart/fits.md`, which makes it from the experiment"),
    (lambda path: path.write_text(path.read_text().replace(".s1-", ".s9-")),
     "is not in the plan; run `cgpt tabulate quickstart`"),
    (lambda path: path.write_text(path.read_text().replace("pretrain,a,", "pretrain,")),
     "row 2 has too few or too many cells; run tabulate again"),
    (lambda path: path.write_text(path.read_text().replace("pretrain,a,world,0,cpu,,", "pretrain,a,world,0,cpu,,x")),
     "holds what is no number"),
    (lambda path: path.write_text(path.read_text().split("\n")[0] + "\n"), "has no pretraining run"),
    (lambda path: path.write_text("run,stage\n"), "has no column"),
])  # fmt: skip
def test_runs_that_cannot_be_read_get_one_line(root, capsys, spoil, expected):
    write_runs(root)
    spoil(root / "results/quickstart/runs.csv")
    assert main(["fit", "quickstart"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_a_law_that_is_not_known_is_refused_before_anything_runs(root, capsys):
    edit(root, QUICKSTART, "threads_per_run: 1", "threads_per_run: 1\nfit: [compute, isoflops]")
    assert main(["plan", "quickstart"]) == 1
    assert "fit.1: 'isoflops' is not a choice; did you mean 'isoflop'?" in capsys.readouterr().err


def test_three_sizes_decide_no_offset_law(root):
    edit(root, QUICKSTART, "models: [a, b, c, d, e, f]", "models: [a, b, c]")
    write_runs(root)
    assert main(["fit", "quickstart"]) == 0
    fits = json.loads((root / "results/quickstart/fits.json").read_text())["series"][""]["compute"]
    problems = {each["form"]: each.get("problem") for each in fits}
    assert problems["power"] is None and problems["offset"].startswith("settings at 3 different costs cannot decide 3")


def numbers(tree: object, path: tuple = ()) -> dict[tuple, object]:
    """The leaves of fits.json by their keys, without the draws."""
    if not isinstance(tree, (dict, list)):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {where: leaf for key, item in items if key != "draws" for where, leaf in numbers(item, (*path, key)).items()}


@pytest.mark.parametrize("name", [
    pytest.param(path.parent.name, marks=[pytest.mark.slow] * (path.parent.name in ("scaling", "overtraining")))
    for path in sorted(REFERENCE.glob("*/fits.json"))
])  # fmt: skip
def test_the_fits_that_are_kept_are_those_of_the_runs_that_are_kept(tmp_path, monkeypatch, name):
    """To rounding; an end of an interval may be the next draw on another processor, a few percent away."""
    workflow = load.load_workflow(ROOT)
    experiment = workflow.experiments[name]
    (tmp_path / name).mkdir()
    for table in ("runs.csv", "hardware.csv"):
        if (REFERENCE / name / table).exists():
            (tmp_path / name / table).write_bytes((REFERENCE / name / table).read_bytes())
    monkeypatch.setattr(fit, "write_figure", lambda path, draw: None)
    fit.fit(experiment, plan.make_plan(experiment, workflow), tmp_path)
    fresh, kept = (numbers(json.loads((folder / name / "fits.json").read_text())) for folder in (tmp_path, REFERENCE))
    assert fresh.keys() == kept.keys() and len(kept) > 50
    for where, value in kept.items():
        if isinstance(value, float):
            from_draws = OF_DRAWS & set(where)
            tolerance = {"rel": 0.05, "abs": 1e-2} if from_draws else {"rel": 1e-4, "abs": 1e-6}
            assert fresh[where] == pytest.approx(value, **tolerance), where
        else:
            assert fresh[where] == value, where


@pytest.mark.slow
def test_the_published_fits_that_are_kept_are_those_of_the_published_numbers(tmp_path):
    for name in ("published.csv", "chinchilla_points.csv"):
        (tmp_path / name).write_bytes((REFERENCE / name).read_bytes())
    fit.fit_published(tmp_path, tmp_path, {})
    fresh, kept = (json.loads((folder / "published_fits.json").read_text()) for folder in (tmp_path, REFERENCE))
    assert fresh.keys() == kept.keys() and fresh["series"].keys() == kept["series"].keys()
    for name, study in kept["series"].items():
        for each, again in zip(study.get("compute", ()), fresh["series"][name].get("compute", ()), strict=True):
            for constant in each["constants"]:
                values = [one["constants"][constant]["value"] for one in (each, again)]
                assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_every_published_row_names_its_source():
    rows = rows_of(REFERENCE / "published.csv")
    assert len(rows) == 644
    assert all(row["source"] and row["verified"] in ("read", "second hand") for row in rows)
    assert all(np.isfinite(float(row["value"])) for row in rows)
