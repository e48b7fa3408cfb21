"""cgpt in Python: what docs/python.md says, the types of data frames, and what is refused."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from project import edit, write_project

import cgpt
from cgpt import checkpoint
from cgpt.errors import UserError

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results/reference/quickstart"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), flags=re.DOTALL)


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Path:
    """A folder with the quickstart's files, its kept tables, and the best of its models, untrained."""
    for folder in ("workflows", "hardware_profiles"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for folder in ("results/quickstart", "results/reference/quickstart"):
        shutil.copytree(REFERENCE, tmp_path / folder)
    rows = [row for row in read_rows(REFERENCE / "runs.csv") if row["stage"] == "pretrain"]
    best = min(rows, key=lambda row: float(row["validation_loss"]))["run"]
    tiny.write_tokenizer(tmp_path / "tokenizer.json")
    config = replace(tiny.CONFIG, d_ffn=4 * tiny.CONFIG.d_model)
    params = tiny.rough_parameters(config)
    checkpoint.save(tmp_path / "results/runs/pretrain" / best, config, params, tmp_path / "tokenizer.json")
    monkeypatch.chdir(tmp_path)
    tiny.operations("native")  # with the threads that all tests run
    return tmp_path


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("block", BLOCKS)
def test_the_code_of_the_page_runs_where_the_quickstart_was_run(block, finished, capsys):
    exec(compile(block, "docs/python.md", "exec"), {})
    assert capsys.readouterr().out


def test_importing_cgpt_imports_nothing_heavy_and_names_what_it_offers():
    script = (
        "import cgpt, sys\n"
        "assert not {'numpy', 'pandas', 'tinygrad', 'yaml', 'cgpt.errors'} & set(sys.modules)\n"
        "assert set(cgpt.__all__) <= set(dir(cgpt)) and all(getattr(cgpt, name) for name in cgpt.__all__)\n"
        "from cgpt import load_experiment, results, checkpoint, UserError\n"
        "assert results is cgpt.results and checkpoint is sys.modules['cgpt.checkpoint']\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="module 'cgpt' has no attribute 'nothing'"):
        cgpt.nothing  # noqa: B018


def test_an_experiment_comes_with_its_plan_and_prints_as_a_summary(tmp_path, monkeypatch):
    monkeypatch.chdir(write_project(tmp_path))
    experiment, plan = loaded = cgpt.load_experiment("quickstart")
    assert experiment.models == ("small",) and plan.experiment == "quickstart"
    assert repr(loaded).splitlines() == [
        "quickstart: Is larger better?",
        "models: small",
        "data: world; tasks: topic",
        "hardware: cpu; seeds: 0",
        "9 runs: 1 fetch, 1 tokenize, 1 pretrain, 2 finetune, 1 baseline, 3 evaluate",
    ]


def test_every_problem_of_an_experiment_is_a_line_of_the_error(tmp_path, monkeypatch):
    monkeypatch.chdir(write_project(tmp_path))
    with pytest.raises(UserError, match=r"there is no experiment 'quikstart'; did you mean 'quickstart'\?"):
        cgpt.load_experiment("quikstart")
    edit(tmp_path, "workflows/experiments/quickstart.yaml", "[small]", "[smal]")
    edit(tmp_path, "workflows/experiments/quickstart.yaml", "steps: 10", "stepz: 10")
    with pytest.raises(UserError) as raised:
        cgpt.load_experiment("quickstart")
    lines = str(raised.value).splitlines()
    assert len(lines) >= 2 and any("'small'" in line for line in lines) and any("'steps'" in line for line in lines)


def test_data_frames_hold_every_cell_of_the_tables_with_its_type(finished):
    frames = cgpt.results("quickstart")
    assert repr(frames).startswith("Results(scores: 56 rows x 31 columns; runs: 21 rows x 38 columns; hardware: 3 rows")
    for name, frame in frames._asdict().items():
        rows = read_rows(REFERENCE / f"{name}.csv")
        assert list(frame.columns) == list(rows[0]) and len(frame) == len(rows)
        for row, (_, cells) in zip(rows, frame.iterrows()):
            for column, text in row.items():
                cell = cells[column]
                if column == "setting":
                    assert cell == text
                elif not text:
                    assert pd.isna(cell), (name, column)
                elif column == "date":
                    assert cell.isoformat() == text
                elif isinstance(cell, bool | np.bool_):
                    assert str(bool(cell)).lower() == text
                else:
                    assert cell == (text if isinstance(cell, str) else float(text)), (name, column)
    kinds = {frames.scores.dtypes[column].name for column in ("primary", "higher_is_better")}
    assert kinds == {"boolean"} and frames.runs.dtypes["n_labels"].name == "Int64"
    assert frames.scores.dtypes["value"].name == "float64" and frames.scores.dtypes["task"].name == "string"


def test_a_table_without_rows_has_its_columns_and_a_folder_by_a_path_is_the_same(finished):
    header = (REFERENCE / "scores.csv").read_text().splitlines()[0]
    Path("results/quickstart/scores.csv").write_text(header + "\n")
    frames = cgpt.results(Path("results/quickstart"))
    assert list(frames.scores.columns) == header.split(",") and frames.scores.empty
    pd.testing.assert_frame_equal(frames.runs, cgpt.results("results/reference/quickstart").runs)


@pytest.mark.parametrize(("name", "problem"), [
    ("smoke", "results/smoke/scores.csv: is missing; run `snakemake --cores 2 results/smoke/table.md`"),
    ("quikstart", r"there is no experiment 'quikstart'; did you mean 'quickstart'\?"),
    ("results/reference", "results/reference: has no scores.csv; name an experiment, or a folder with its tables"),
])  # fmt: skip
def test_tables_that_are_not_there_are_one_line(finished, name, problem):
    with pytest.raises(UserError, match=problem) as raised:
        cgpt.results(name)
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize(("column", "text"), [("n_samples", "many"), ("primary", "yes"), ("value", "0.5.1")])
def test_a_damaged_table_is_one_line_with_its_column(finished, column, text):
    path = Path("results/quickstart/scores.csv")
    header, first, *_ = path.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index(column)] = text
    path.write_text(f"{header}\n{','.join(cells)}\n")
    with pytest.raises(UserError, match=f"results/quickstart/scores.csv: {column}: holds a cell that is no "):
        cgpt.results("quickstart")
    path.write_text(f"{header}\na,b\n")
    with pytest.raises(UserError, match="scores.csv: cannot be read"):
        cgpt.results("quickstart")


@pytest.mark.parametrize("threads", [-1, 0, 10**9, True, 2.0, "2", float("nan")])
def test_threads_that_no_process_can_have_are_refused_in_one_line(finished, threads):
    (folder,) = Path("results/runs/pretrain").iterdir()
    checkpoint.export_hf(*checkpoint.load(folder), finished / "exported")
    for open_model in (lambda: checkpoint.load(folder, threads=threads),
                       lambda: checkpoint.import_hf(finished / "exported", threads=threads)):  # fmt: skip
        with pytest.raises(UserError, match="^threads: must be ") as raised:
            open_model()
        assert len(raised.value.problems) == 1
