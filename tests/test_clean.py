"""`clean`: what goes, what stays for others, what is never touched, and what Snakemake does afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import EXPERIMENT, edit, write_project

from cgpt.__main__ import main
from cgpt.experiment import leftovers, load
from cgpt.experiment.plans import Plans, make_plans
from cgpt.experiment.rule_values import report_files
from cgpt.experiment.run import last_file
from cgpt.files.whole import lock

ROOT = Path(__file__).parent.parent
CHECKPOINT = ("model.safetensors", "config.json", "tokenizer.json", "loss.csv")
BESIDE = {"tokenize": ("tokenizer.json", "train.bin", "validation.bin"), "pretrain": CHECKPOINT, "finetune": CHECKPOINT,
          "baseline": ("samples.jsonl",), "evaluate": ("samples.jsonl",)}  # fmt: skip
OTHER = EXPERIMENT.replace("models: [small]", "models: [small, large]").replace("tasks: [topic]\n", "")
OTHER = OTHER.replace("finetune: {start: [pretrained, scratch]}\n", "")


def plans_here() -> Plans:
    return make_plans(load.read_workflow(Path.cwd()))


def make_files(*experiments: str) -> None:
    """All files of finished experiments, upstream first, and the logs and locks beside them."""
    workflow, plans = load.read_workflow(Path.cwd()), plans_here()
    for name in experiments:
        plan = plans.by_experiment[name]
        files = [path for run in plan.runs for path in (
            *(last_file(*run.key).with_name(beside) for beside in BESIDE.get(run.stage, ())), last_file(*run.key),
            *(Path("results/runs") / kind / run.stage / f"{run.id}{end}"
              for kind, end in (("logs", ".log"), ("benchmarks", ".tsv"), ("locks", ""))),
        )]  # fmt: skip
        files += [Path(path) for path in sorted(report_files(workflow.experiments[name], plan))]
        files += [Path(f"results/runs/logs/tabulate/{name}.log"), Path(f"results/runs/benchmarks/plot/{name}.tsv")]
        start = time.time() - 1000
        for n, path in enumerate(files):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_text("x" * 100)
                os.utime(path, (start + n, start + n))


def files_below(folder: str = "results") -> set[str]:
    return {str(path) for path in Path(folder).rglob("*") if path.is_file()}


def folders_of(experiment: str) -> set[str]:
    return {str(last_file(*run.key).parent) for run in plans_here().by_experiment[experiment].runs}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project with two finished experiments: they share all runs of `small` that need no task."""
    root = write_project(tmp_path_factory.mktemp("finished"))
    (root / "workflows/experiments/other.yaml").write_text(OTHER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_files("quickstart", "other")
    reference = root / "results/reference/quickstart/table.md"
    reference.parent.mkdir(parents=True)
    reference.write_text("kept")
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch) -> Path:
    """A copy of that project, with its times, in which commands run."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    before = files_below()
    assert main(["clean", *arguments]) == 1
    assert files_below() == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_the_experiment_alone_uses_goes_and_nothing_else(project, capsys):
    before, alone = files_below(), folders_of("quickstart") - folders_of("other")
    assert main(["clean", "quickstart", "--yes", "--json"]) == 0
    removed = json.loads(capsys.readouterr().out)
    ids = {run["run"] for run in removed["runs"]}
    gone = before - files_below()
    assert alone and {Path(folder).name for folder in alone} == ids
    assert {file for file in before if str(Path(file).parent) in alone} < gone
    for file in gone:
        of_tables = file.startswith("results/quickstart/") or Path(file).stem == "quickstart"
        assert of_tables or any(id in file for id in ids), file
    assert not [file for file in before - gone if "/quickstart" in file and "reference" not in file]
    assert files_below("results/other") and Path("results/reference/quickstart/table.md").read_text() == "kept"
    assert {kept["run"] for kept in removed["kept"]} == {Path(each).name for each in folders_of("quickstart") - alone}
    assert all(kept["needed_by"] == ["other"] for kept in removed["kept"])
    assert removed["bytes"] == 100 * len([file for file in gone if "/locks/" not in file])
    assert not Path("results/quickstart").exists() and not any(Path(folder).exists() for folder in alone)


def test_sizes_come_first_and_a_dry_run_prints_the_same_and_removes_nothing(project, capsys):
    before = files_below()
    assert main(["clean", "quickstart", "--dry-run"]) == 0
    dry = capsys.readouterr()
    assert files_below() == before and dry.err == ""
    assert main(["clean", "quickstart", "--yes"]) == 0
    done = capsys.readouterr()
    assert done.err == dry.out and files_below() != before
    sizes = dict(re.findall(r"^(\S[\w ]*?)  +\d* +([\d.]+ k?B)$", dry.out, flags=re.MULTILINE))
    assert {"tables and figures", "evaluate", "baseline", "finetune", "logs and benchmarks", "sum"} <= set(sizes)
    assert done.out == f"removed: {sizes['sum']}\n"
    assert re.search(r"^kept: 3 runs that other needs$", dry.out, flags=re.MULTILINE)


def test_a_second_clean_has_nothing_to_remove(project, capsys):
    assert main(["clean", "quickstart", "--yes"]) == 0 and main(["clean", "quickstart"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_afterwards_snakemake_does_again_exactly_what_was_removed(project, capsys):
    for folder in ("workflows/rules", "workflows/report", "profiles"):
        shutil.copytree(ROOT / folder, project / folder)
    shutil.copy(ROOT / "Snakefile", project)

    command = [sys.executable, "-m", "snakemake", "--dry-run", "results/quickstart/table.md", "results/other/table.md"]

    def jobs() -> set[str]:
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stdout + done.stderr
        return set(re.findall(r"wildcards: (?:run|experiment)=(\S+)", done.stdout + done.stderr))

    assert jobs() == set()
    assert main(["clean", "quickstart", "--yes", "--json"]) == 0
    assert jobs() == {run["run"] for run in json.loads(capsys.readouterr().out)["runs"]} | {"quickstart"}


def test_without_a_terminal_nothing_is_removed_unless_yes_is_written(project, capsys):
    class Closed:
        def isatty(self):
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Closed())
        assert "write --yes to remove" in refused(capsys, "quickstart")


@pytest.mark.parametrize(
    ("answer", "goes"), [("y\n", True), ("yes\n", True), ("\n", False), ("", False), ("n\n", False)]
)
def test_at_a_terminal_it_asks(project, capsys, answer, goes):
    class Terminal:
        def isatty(self):
            return True

        def readline(self):
            return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal())
        assert main(["clean", "quickstart"]) == (0 if goes else 1)
    assert "[y/N]" in capsys.readouterr().err and Path("results/quickstart").exists() is not goes


def test_runs_of_earlier_versions_go_as_unused_and_no_others(project, capsys):
    assert main(["clean", "--unused"]) == 0 and capsys.readouterr().out == "nothing to remove\n"
    before = files_below()
    gone = folders_of("quickstart")
    for experiment in ("quickstart", "other"):
        edit(project, f"workflows/experiments/{experiment}.yaml", "steps: 10", "steps: 20")
    gone -= folders_of("quickstart")
    states = [f"results/runs/state/{folder}/state.safetensors" for folder in ("gone-1", "gone-2.shared")]
    states += ["results/runs/early/0f/gone-4/scores.json", "results/runs/logs/evaluate/gone-3.log"]
    for name in (*states, "results/runs/checks/topic-1.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("old")
    assert main(["clean", "--unused", "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert main(["clean", "--unused", "--yes", "--json"]) == 0
    ids = {run["run"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert {Path(folder).name for folder in gone} | {"gone-1", "gone-2", "gone-3", "gone-4"} <= ids
    assert all(f" {id}: " in listed for id in ids)
    assert not [file for file in files_below("results/runs") if any(id in file for id in ids)]
    assert {file for file in before if not any(id in file for id in ids)} <= files_below()
    assert Path("results/runs/checks/topic-1.json").exists()
    assert {str(last_file(*run.key)) for run in plans_here().runs.values()} & before <= files_below()


def test_an_experiment_that_comes_from_elsewhere_keeps_its_runs_only_with_results_here(project, monkeypatch):
    plans = plans_here()
    monkeypatch.chdir(project / "workflows")  # as in a study where the file of `other` is not
    write_project(Path.cwd())
    make_files("quickstart")
    only, kept = leftovers.only_of("quickstart", plans)
    assert not kept and len(only) == 1 + len(plans.by_experiment["quickstart"].runs)
    Path("results/other").mkdir()
    assert len(leftovers.only_of("quickstart", plans)[1]) == 3


@pytest.mark.parametrize("held", ["evaluate", "tables"])
def test_a_run_that_is_under_way_is_refused(project, capsys, held):
    run = plans_here().by_experiment["quickstart"].of("evaluate")[0]
    with lock(Path("results/runs/locks") / held / (run.id if held == "evaluate" else "quickstart")):
        assert "is under way; wait until it ends" in refused(capsys, "quickstart", "--yes")


def test_a_workflow_at_work_is_refused(project, capsys):
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.output.lock").write_text("results/quickstart/table.md\n")
    assert refused(capsys, "quickstart", "--yes").startswith(".snakemake/locks: a workflow is at work here;")


def test_what_is_behind_a_link_is_never_removed(project, tmp_path_factory, capsys):
    outside = tmp_path_factory.mktemp("outside")
    run = plans_here().by_experiment["quickstart"].of("finetune")[0]
    folder = last_file(*run.key).parent
    for inside, name in ((folder, "run"), (Path("results/quickstart"), "tables")):
        shutil.move(inside, outside / name)
        inside.symlink_to(outside / name)
    kept = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    assert main(["clean", "quickstart", "--yes"]) == 0
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == kept
    assert not folder.is_symlink() and not Path("results/quickstart").is_symlink()


@pytest.mark.parametrize("target", ["outside", "results/reference"])
def test_a_folder_of_runs_that_is_a_link_is_refused(project, tmp_path_factory, capsys, target):
    outside = tmp_path_factory.mktemp("outside") if target == "outside" else Path(target).resolve()
    shutil.move("results/runs/evaluate", outside / "evaluate")
    Path("results/runs/evaluate").symlink_to(outside / "evaluate")
    assert refused(capsys, "quickstart", "--yes").startswith("results/runs/evaluate: is a link, or below one;")
    assert files_below(str(outside))


def test_results_on_another_disk_are_cleaned_there(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk") / "results"
    shutil.move("results", elsewhere)
    Path("results").symlink_to(elsewhere)
    assert main(["clean", "quickstart", "--yes"]) == 0
    assert not (elsewhere / "quickstart").exists() and (elsewhere / "other/table.md").exists()


def test_broken_yaml_of_another_experiment_is_refused_with_its_name(project, capsys):
    edit(project, "workflows/experiments/other.yaml", "steps: 10", "steps: ten")
    line = "workflows/experiments: which runs other needs is not known; `cgpt plan other` says what is wrong"
    assert refused(capsys, "quickstart", "--yes").startswith(line)
    assert refused(capsys, "--unused", "--yes").startswith(line)


def test_an_experiment_whose_yaml_is_gone_is_told_what_to_do(project, capsys):
    Path("workflows/experiments/other.yaml").unlink()
    line = refused(capsys, "other", "--yes")
    assert "there is no 'other' any more" in line and "delete results/other, and run" in line
    assert main(["clean", "--unused", "--yes"]) == 0
    assert {str(path.parent) for path in Path("results/runs").glob("*/*/*.json")} >= folders_of("quickstart")
    assert not list(Path("results/runs/pretrain").glob("large*"))


@pytest.mark.parametrize("name", ["..", "reference/kept", "runs", "reference"])
def test_nobody_is_told_to_delete_what_is_no_experiments_folder(project, capsys, name):
    tables = Path("results") / name / "table.md"
    tables.parent.mkdir(parents=True, exist_ok=True)
    tables.write_text("")
    line = refused(capsys, name, "--yes")
    assert "there is no experiment" in line and "delete" not in line and tables.exists()


def test_unknown_names_and_no_name_are_refused_in_one_line(project, capsys):
    assert "did you mean 'quickstart'?" in refused(capsys, "quickstat", "--yes")
    assert "there is no experiment 'reference'" in refused(capsys, "reference", "--yes")
    assert refused(capsys).startswith("clean: name an experiment, or write --unused")
    assert refused(capsys, "quickstart", "--unused").startswith("clean: name an experiment, or write --unused")


def test_an_interrupted_removal_leaves_nothing_that_looks_finished_and_the_same_command_goes_on(project, capsys):
    removed = shutil.rmtree
    n_calls = 0

    def interrupted(path, *rest, **options):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            (Path(path) / "samples.jsonl").unlink(missing_ok=True)
            signal.raise_signal(signal.SIGINT)
        removed(path, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        assert main(["clean", "quickstart", "--yes"]) == 128 + signal.SIGINT
    assert "stopped; the same command removes the rest" in capsys.readouterr().err
    for run in plans_here().runs.values():
        record = last_file(*run.key)
        if record.exists():
            assert all(record.with_name(name).exists() for name in BESIDE.get(run.stage, ()))
            assert all(last_file(*key).exists() for key in run.upstream())
    assert not Path("results/quickstart/table.md").exists()
    assert main(["clean", "quickstart", "--yes"]) == 0
    assert not Path("results/quickstart").exists() and not list(Path("results/runs/evaluate").glob("*topic*"))
