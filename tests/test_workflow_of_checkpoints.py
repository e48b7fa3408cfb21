"""The workflow of published models, and of code that changes while a model trains, run for real with stages that only
write their files."""

from __future__ import annotations

import os
import subprocess
import sys

from project import edit
from test_workflow import QUICKSTART, finished, root, snakemake, would_run

__all__ = ["finished", "root"]  # the fixtures


def test_a_published_model_is_imported_once_and_nothing_of_the_others_runs_again(root):
    edit(root, "workflows/models.yaml", "models:\n", "models:\n  theirs: {checkpoint: {path: hf}}\n")
    (root / "hf").mkdir()
    (root / "hf/config.json").write_text('{"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}')
    edit(root, QUICKSTART, "models: [small]", "models: [small, theirs]\nnum_fewshot: [0, 1]")
    alone = (root / QUICKSTART).with_name("alone.yaml")
    alone.write_text("question: What of theirs alone?\nmodels: [theirs]\ntasks: [topic]\nthreads_per_run: 1\n")
    # Evaluations: small with a shot, theirs with none and one, and its two fine-tunings.
    assert would_run(root, "results/quickstart/report.html") == {
        "import": 1, "finetune": 2, "evaluate": 5, "tabulate": 1, "plot": 1, "report": 1}  # fmt: skip
    made = snakemake(root, "--cores", "2", "results/alone/table.md", "results/quickstart/table.md")
    assert made.returncode == 0, made.stdout + made.stderr
    assert (root / "results/alone/table.md").is_file() and not would_run(root, "results/alone/table.md")
    assert len(list((root / "results/runs/import").iterdir())) == 1


def test_code_that_changes_while_a_model_trains_does_not_take_its_early_scores_for_its_own(root):
    [before] = (root / "results/runs/early").iterdir()
    change = "__import__('pathlib').Path('cgpt/stages/evaluate.py').open('a').write('print()\\n')"
    edit(root, "cgpt/stages/finetune.py", "    stub.write(", f"    {change}\n    stub.write(")
    run = next((root / "results/runs/finetune").iterdir()).name
    command, environment = [sys.executable, "-m", "cgpt", "finetune", run], os.environ | {"PYTHONPATH": str(root)}
    subprocess.run(command, cwd=root, env=environment, check=True)
    assert [*(root / "results/runs/early").iterdir()] == [before] and len([*before.iterdir()]) == 1
