"""A file that is not finished, or edited while a workflow runs, stops only what asks for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from project import EXPERIMENT, HARDWARE, TASK, edit, write_project

from cgpt.__main__ import main
from cgpt.errors import UserError
from cgpt.experiment import load
from cgpt.experiment.plan import make_plan
from cgpt.experiment.plans import make_plans
from cgpt.files import declarations

QUICKSTART = "workflows/experiments/quickstart.yaml"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A project with a sound experiment, and something wrong in a file of each kind."""
    monkeypatch.chdir(write_project(tmp_path))
    edit(tmp_path, "workflows/models.yaml", "n_layer: 2, d_model: 64, n_head: 4", "n_layer: 2, d_model: 65, n_head: 4")
    edit(tmp_path, "workflows/data.yaml", "path: notes.txt", "path: later.txt")
    (tmp_path / "workflows/tasks/draft.yaml").write_text(TASK.replace("data: world", "data: wrold"))
    (tmp_path / "workflows/experiments/draft.yaml").write_text("question: what\nmodles: [x]\n")
    (tmp_path / "hardware_profiles/draft.yaml").write_text("description: 2026-01-01\n")
    return tmp_path


WRONG = ("models.large.d_model", "datasets.notes.path", "tasks/draft.yaml", "experiments/draft.yaml", "profiles/draft")


def test_what_an_experiment_does_not_use_is_named_in_one_warning_each(root, capsys):
    assert main(["plan", "quickstart"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(WRONG) and all(line.startswith("warning: not used here, and left out: ") for line in lines)
    assert all(any(name in line for line in lines) for name in WRONG)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("models: [small]", "models: [small, large]", ["models.large.d_model: d_model 65 is not divisible"]),
        ("corpus: [world]", "corpus: [world, notes]", ["datasets.notes.path: there is no later.txt"]),
        ("tasks: [topic]", "tasks: [topic, draft]", ["'topic' is not the file's name", "no data set 'wrold'"]),
        ("tasks: [topic]", "tasks: [topic]\nhardware: [draft]", ["description: YAML reads 2026-01-01 as a date"]),
        ("tasks: [topic]", "tasks: [topic]\nvary: {data.corpus: [[notes]]}", ["datasets.notes.path: there is no"]),
    ],
)
def test_what_an_experiment_uses_stops_it(root, capsys, old, new, expected):
    edit(root, QUICKSTART, old, new)
    assert main(["plan", "quickstart"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")]
    assert all(any(text in line for line in lines) for text in expected), lines


def test_all_problems_of_an_experiment_and_its_parts_come_at_once(root, capsys):
    edit(root, QUICKSTART, "models: [small]", "models: [small, large]\nhardware: [draft]")
    edit(root, QUICKSTART, "lr: 0.003", "lr: 3e-3")
    assert main(["plan", "quickstart"]) == 1
    printed = capsys.readouterr().err
    assert all(text in printed for text in ("large.d_model", "YAML reads 3e-3", "YAML reads 2026-01-01"))


def test_a_run_of_a_sound_experiment_is_found_beside_broken_ones_and_an_unknown_one_names_them(root):
    (root / "workflows/experiments/point.yaml").write_text(EXPERIMENT + "vary: {data.vocab_size: [100]}\n")
    workflow = load.read_workflow(root)
    run = make_plan(workflow.experiments["quickstart"], workflow).runs[-1]
    assert make_plans(workflow).find_run(run.stage, run.id) == run
    assert set(make_plans(workflow).broken) == {"draft", "point"}
    with pytest.raises(UserError) as caught:
        make_plans(workflow).find_run("pretrain", "other")
    assert [line.partition(":")[0] for line in caught.value.problems] == ["pretrain", "left out", "left out"]


def test_a_wrong_entry_is_named_where_it_is_looked_up_and_an_unknown_one_is_not_there(root):
    workflow = load.read_workflow(root)
    models = workflow.models
    assert set(models) - workflow.shipped["models"] == {"small"}
    assert "large" in models and "huge" not in models and models.get("huge") is None
    for look_up in (models.__getitem__, models.get):
        with pytest.raises(UserError, match="65 is not divisible"):
            look_up("large")


def test_a_profile_on_a_broken_base_says_so(root):
    (root / "hardware_profiles/mine.yaml").write_text("base: draft\n")
    (root / "hardware_profiles/odd.yaml").write_text("base: [cpu]\n")
    hardware = load.read_workflow(root).hardware
    assert "base: 'draft' is wrong itself" in hardware.broken["mine"][0]
    assert "base: ['cpu'] is no hardware profile" in hardware.broken["odd"][0]


def test_a_hidden_file_of_an_editor_is_none_of_the_experiments(root):
    (root / "workflows/experiments/.#quickstart.yaml").symlink_to("someone@host.1234")
    assert ".#quickstart" not in load.read_workflow(root).experiments


@pytest.mark.parametrize("other", ["quickstart.yml", "Quickstart.yaml"])
def test_two_files_of_one_name_are_refused(root, other):
    (root / "workflows/experiments" / other).write_text(EXPERIMENT)
    broken = load.read_workflow(root).experiments.broken
    assert any("has the name of workflows/experiments/" in line for lines in broken.values() for line in lines)


def test_jobs_read_the_files_that_their_workflow_started_with(root, monkeypatch):
    before = load.read_workflow(root)
    run = make_plan(before.experiments["quickstart"], before).of("pretrain")[0]
    monkeypatch.setenv(declarations.STARTED_WITH, str(declarations.keep(declarations.contents(root), root)))
    edit(root, QUICKSTART, "lr: 0.003", "lr: 0.004")
    (root / "hardware_profiles/cpu.yaml").write_text(HARDWARE.replace("device: CPU", "device: ["))
    (root / "workflows/models.yaml").write_text("models: [")
    kept = load.read_workflow(root, declarations.folder_of(root))
    assert make_plans(kept).find_run("pretrain", run.id) == run
    monkeypatch.delenv(declarations.STARTED_WITH)
    with pytest.raises(UserError, match="is not valid YAML"):
        load.read_workflow(root, declarations.folder_of(root))


def test_files_are_kept_once_for_each_content_and_are_no_others_than_declarations(root):
    os.mkfifo(root / "workflows/experiments/pipe.yaml")
    (root / "workflows/tasks/prompts.py").write_text("def text(doc): return doc\n")
    first = declarations.keep(declarations.contents(root), root)
    assert declarations.keep(declarations.contents(root), root) == first
    kept = {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()}
    assert {"workflows/tasks/prompts.py", "workflows/data.yaml", QUICKSTART, "hardware_profiles/cpu.yaml"} < kept
    assert not {"notes.txt", "workflows/experiments/pipe.yaml"} & kept
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_job_whose_files_are_gone_says_to_start_again(root, monkeypatch):
    monkeypatch.setenv(declarations.STARTED_WITH, str((root / declarations.KEPT).resolve() / "0123"))
    with pytest.raises(UserError, match="start the workflow again"):
        declarations.folder_of(root)
    monkeypatch.setenv(declarations.STARTED_WITH, "/elsewhere")  # of another project
    assert declarations.folder_of(root) == root
