"""How a table names the shots that a score was made with, and the prompts that a model did not see whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import results_fixture as made
from test_tabulate import change, markdown_tables, read_csv

from cgpt.report.tables import tabulate


def write(root: Path, stage: str, **changes: object) -> Path:
    """The tables of a made-up experiment in which every score of a stage differs in this."""
    experiment, plan = made.make_results(root)
    for run in plan.of("evaluate"):
        if ("pretrained" in run.id or "scratch" in run.id) == (stage == "finetune"):
            change(root / "runs" / "evaluate" / run.id / "scores.json", **changes)
    tabulate(experiment, plan, root)
    return root / experiment.name


@pytest.mark.parametrize("stage, n_shot, conditions", [
    ("pretrain", 0, {"zero-shot", "fine-tuned", "from scratch"}),
    ("pretrain", 3, {"3-shot", "fine-tuned", "from scratch"}),
    ("finetune", 3, {"zero-shot", "fine-tuned, 3-shot", "from scratch, 3-shot"}),
])  # fmt: skip
def test_the_shots_of_a_score_are_part_of_its_condition(tmp_path, stage, n_shot, conditions):
    table = markdown_tables(write(tmp_path, stage, n_shot=n_shot) / "table.md")[0]
    assert {row["condition"] for row in table} - {"chance"} == conditions


def test_prompts_that_were_cut_are_counted_in_the_cell_explained_above_and_in_the_csv(tmp_path):
    folder = write(tmp_path, "pretrain", n_samples=300, n_prompts_cut=41)
    for row in markdown_tables(folder / "table.md")[0]:
        cells = [cell for column, cell in row.items() if column not in ("task", "condition")]
        assert all(("41 of 300 prompts cut" in cell) == (row["condition"] == "zero-shot") for cell in cells)
    assert "- **prompts cut**: were longer than the model" in (folder / "table.md").read_text()
    assert {row["n_prompts_cut"] for row in read_csv(folder / "scores.csv")} == {"0", "41"}


def test_nothing_is_said_of_cuts_and_shots_where_there_are_none(tmp_path):
    text = (write(tmp_path, "pretrain") / "table.md").read_text()
    assert "prompts cut" not in text and "3-shot" not in text
