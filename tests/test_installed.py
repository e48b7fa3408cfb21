"""An installed cgpt, without its repository: from `cgpt init` in an empty folder to tables, a report and text."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT

from cgpt.experiment import load

pytestmark = pytest.mark.slow


def environment(programs: Path) -> dict[str, str]:
    names = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return names | {"PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin"}


def run(programs: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the installation in a folder."""
    return subprocess.run(command, cwd=folder, env=environment(programs), capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)  # fmt: skip


def succeed(programs: Path, folder: Path, *command: str) -> str:
    done = run(programs, folder, *command)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def study(installed, tmp_path_factory) -> Path:
    """A study of `cgpt init` whose example experiment was made, on a path with a space and an umlaut."""
    folder = tmp_path_factory.mktemp("leer") / "meine Studie ü"
    succeed(installed, folder.parent, "cgpt", "init", folder.name)
    assert "6 runs; 800,768 tokens" in succeed(installed, folder, "cgpt", "plan", "days")
    succeed(installed, folder, "snakemake", "--cores", "2")
    return folder


def test_an_installed_cgpt_has_all_that_the_checkout_declares_and_the_reference_that_verbs_read(installed, tmp_path):
    shipped = Path(succeed(installed, tmp_path, "python", "-c", "import cgpt; print(cgpt.SHIPPED)").strip())
    assert shipped.is_relative_to(installed.parent)
    for folder in (
        "workflows/experiments",
        "workflows/tasks",
        "workflows/report",
        "workflows/rules",
        "hardware_profiles",
    ):
        names = {path.name for path in (ROOT / folder).iterdir()}
        assert {path.name for path in (shipped / folder).iterdir()} == names
    load.load_workflow(shipped)
    files = {path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.is_file()}
    assert {name for name in files if name.startswith("results/")} == {
        f"results/reference/{name}"
        for name in ("accelerator_measurements.csv", "cerebras_gpt_runs.csv", "chinchilla_points.csv", "published.csv",
                     "published_fits.json", "scaling/runs.csv")
    }  # fmt: skip
    assert not (shipped / "workflows/bench").exists()


def test_the_example_of_a_new_study_goes_from_its_text_to_its_score(installed, study):
    table = (study / "results/days/table.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| good_day | zero-shot |") and "(se" in line][:1]
    scores = [float(cell.split()[0]) for cell in line.split("|")[3:-1]]
    assert scores[1] > 0.8 and min(scores) > 0.6  # chance is 0.5
    assert "- **Commit**: not recorded" in table
    assert "Nothing to be done" in succeed(installed, study, "snakemake", "--cores", "1")


def test_generate_list_and_forecast_work_there(installed, study):
    (checkpoint,) = (study / "results/runs/pretrain").glob("two-layers*")
    text = succeed(installed, study, "cgpt", "generate", "--checkpoint", str(checkpoint), "--prompt", "In the morning")
    assert "In the morning" in text
    assert "6 of 6 done" in succeed(installed, study, "cgpt", "list")
    asked = ("cgpt", "forecast", "--model", "cerebras-gpt-13b", "--hardware", "cs2", "--tokens", "20B")
    assert "modeled" in succeed(installed, study, *asked)
    assert "Loss 2.0" in succeed(installed, study, "cgpt", "forecast", "--target-loss", "2", "--hardware", "cs2")


def test_snakemakes_own_report_has_the_tables_and_figures_with_their_captions(installed, study):
    succeed(installed, study, "snakemake", "--report", "results/days/provenance.html")
    page = (study / "results/days/provenance.html").read_text()
    assert all(f"results/days/{name}" in page for name in ("table.html", "figures/loss.svg", "figures/scores.svg"))
    assert "Loss while pretraining" in page


def test_experiments_of_cgpt_can_be_asked_for_and_what_is_not_installed_says_so(installed, study):
    assert "rule pretrain:" in succeed(installed, study, "snakemake", "--dry-run", "results/smoke/table.md")
    assert "rule forecast_family:" in succeed(installed, study, "snakemake", "-n", "results/devices/cerebras-gpt.md")
    done = run(installed, study, "snakemake", "--dry-run", "results/bench/native/table.md")
    assert done.returncode == 1 and done.stderr.rstrip().endswith(
        "workflows/bench/table.py: is of cgpt's own repository and not installed with it; ask for it there"
    )


def test_before_the_first_job_tasks_are_checked_and_the_files_are_kept(installed, study):
    assert list((study / "results/runs/started").glob("*/workflows/experiments/days.yaml"))
    broken = (study / "workflows/tasks/good_day.yaml").read_text().replace("doc_to_target: good", "doc_to_target: bad")
    (study / "workflows/tasks/other.yaml").write_text(broken.replace("task: good_day", "task: other"))
    experiment = "base: days\nmodels: [one-layer]\ntrain: {steps: 3}\ntasks: [other]\n"
    (study / "workflows/experiments/wrong.yaml").write_text(experiment)
    done = run(installed, study, "snakemake", "--cores", "1", "results/wrong/table.md")
    for name in ("tasks/other", "experiments/wrong"):
        (study / f"workflows/{name}.yaml").unlink()
    assert done.returncode == 1 and "workflows/tasks/other.yaml: " in done.stderr
    assert "rule pretrain" not in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_is_passed_on_and_the_job_says_that_it_goes_on(installed, study):
    (study / "workflows/experiments/long.yaml").write_text("base: days\nmodels: [one-layer]\ntrain: {steps: 4000}\n")
    command = ["snakemake", "--cores", "1", "results/long/table.md"]
    started = subprocess.Popen(command, cwd=study, env=environment(installed), text=True, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    state = study / "results/runs/state"
    known = set(state.glob("*"))
    try:
        while not any(each for each in set(state.glob("*")) - known if any(each.iterdir())):
            assert started.poll() is None
            time.sleep(0.2)
        started.send_signal(signal.SIGINT)
        _, error = started.communicate(timeout=120)
    finally:
        started.kill()
    (study / "workflows/experiments/long.yaml").unlink()
    assert "stopped; the same command goes on from the last checkpoint" in error
