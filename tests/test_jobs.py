"""What stops a workflow stops its jobs, which save what they can."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import HARDWARE, edit, write_project

from cgpt import jobs
from cgpt.__main__ import main

ROOT = Path(__file__).parent.parent
JOB = (
    "import time\nfrom cgpt import jobs\nfrom cgpt.commands import ending\njobs.stop_with_workflow()\n"
    "with ending.reported('pretrain'):\n time.sleep(60)"
)

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def snakemake(until: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "1", "--until", until]


def test_a_job_stops_when_the_process_that_started_it_is_killed():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as workflow:
        environment = os.environ | {jobs.WORKFLOW_PID: str(workflow.pid)}
        with subprocess.Popen([sys.executable, "-c", JOB], stderr=-1, text=True, cwd=ROOT, env=environment) as job:
            time.sleep(1)
            assert job.poll() is None
            workflow.kill()
            workflow.wait()
            assert job.communicate(timeout=20)[1].splitlines() == [
                "the workflow that started this run is gone; it saves and stops",
                "stopped; the same command goes on from the last checkpoint",
            ]


def test_a_job_whose_workflow_is_nowhere_to_be_seen_goes_on(monkeypatch):
    monkeypatch.setattr(jobs.threading, "Thread", None)
    for pid in ("", str(2**22 + 1), str(2**31 - 1)):
        monkeypatch.setenv(jobs.WORKFLOW_PID, pid)
        jobs.stop_with_workflow()


@pytest.mark.parametrize("pid", ["none", "-1", "0", "1.5", "²", str(2**31), "9" * 30])
def test_what_is_no_process_of_a_workflow_is_refused_in_one_line(monkeypatch, capsys, pid):
    monkeypatch.setenv(jobs.WORKFLOW_PID, pid)
    assert main(["plan", "quickstart"]) == 1
    problem = capsys.readouterr().err
    assert problem.startswith("environment: CGPT_WORKFLOW_PID: must be the number of the process of a workflow")
    assert problem.count("\n") == 1


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory) -> Path:
    """A project whose training takes for ever, before it begins."""
    root = write_project(tmp_path_factory.mktemp("project"))
    (root / "hardware_profiles/cpu.yaml").write_text(HARDWARE + "kernels: native\n")
    edit(
        root,
        "workflows/experiments/quickstart.yaml",
        "steps: 10",
        "steps: 100_000_000, checkpoint_every_steps: 10_000_000",
    )
    for folder in ("workflows/rules", "workflows/report", "profiles"):
        shutil.copytree(ROOT / folder, root / folder)
    shutil.copy(ROOT / "Snakefile", root)
    done = subprocess.run(snakemake("tokenize"), cwd=root, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_to_snakemake_alone_lets_a_training_save_and_stop(tokenized, tmp_path, number):
    root = Path(shutil.copytree(tokenized, tmp_path / "project", symlinks=True))
    log = root / "snakemake.log"
    with log.open("w") as output:
        workflow = subprocess.Popen(snakemake("pretrain"), cwd=root, env=ENVIRONMENT, stdout=output, stderr=output)
    wait_for(lambda: ": step 1/100000000" in logs_of_training(root))
    assert not list(root.glob("results/runs/state/*/state.safetensors"))
    workflow.send_signal(number)
    wait_for(lambda: "stopped; the same command goes on from the last checkpoint" in logs_of_training(root))
    assert len(list(root.glob("results/runs/state/*/state.safetensors"))) == 1
    assert workflow.wait(60) != 0


def logs_of_training(root: Path) -> str:
    return "".join(path.read_text() for path in root.glob("results/runs/logs/pretrain/*.log"))


def wait_for(condition) -> None:
    """Return once it holds; fail after two minutes."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
