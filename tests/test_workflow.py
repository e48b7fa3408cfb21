"""The Snakemake workflow, run for real with stages that only write their files: what is redone, and what is not."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import pytest
from project import EXPERIMENT, TASK, edit, write_project
from test_profiles import WAFER

ROOT = Path(__file__).parent.parent
QUICKSTART, TOPIC = "workflows/experiments/quickstart.yaml", "workflows/tasks/topic.yaml"
MODEL = '"""A model."""\nWIDTH = 4\n'
STUB = """\
def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
"""
# The stages here leave no hashes; tests/test_chain.py has those of real ones.
CHAIN = """\
class Chain:
    def __init__(self, runs, root, redo): pass
    def above(self, run): return []
"""
CHECKPOINT = '"run.json", "model.safetensors", "config.json", "tokenizer.json", "loss.csv"'
JOB, REPORT = "job", "experiment, plan, results, partial"
STAGES = {  # function: its parameters, and what it writes
    "fetch": (JOB, 'job.folder, "fetched.json"'),
    "import_checkpoint": (JOB, f"job.folder, {CHECKPOINT}"),
    "tokenize": (JOB, 'job.folder, "tokens.json", "tokenizer.json", "train.bin", "validation.bin"'),
    "pretrain": (JOB, f"job.folder, {CHECKPOINT}"),
    "finetune": (JOB, f"job.folder, {CHECKPOINT}"),
    "baseline": (JOB, 'job.folder, "scores.json", "samples.jsonl"'),
    "evaluate": (JOB, 'job.folder, "scores.json", "samples.jsonl"'),
    "tabulate": (REPORT, 'results / experiment.name, "scores.csv", "runs.csv", "hardware.csv", "table.md", '
                 '"table.html"'),
    "plot": (REPORT, 'results / experiment.name / "figures", *(f"{name}.{kind}" '
             'for name in ("loss", "scores", "answers", "compute") for kind in ("svg", "png"))'),
    "report": (REPORT, 'results / experiment.name, "report.html"'),
    "plot_vary": (REPORT, 'results / experiment.name / "figures", "vary.svg", "vary.png"'),
    "continuations": (REPORT, 'results / experiment.name, "continuations.json"'),
}  # fmt: skip
MODULES = {"tabulate": "report/tables", "plot": "report/figures", "plot_vary": "report/vary_figure",
           "report": "report/html/report", "continuations": "report/continuations"}  # fmt: skip


def imported(tree: ast.Module) -> list[str]:
    """Dotted names that a file imports when it is imported itself."""
    names = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return [name for node in names for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
            if name.startswith("cgpt")]  # fmt: skip


def declarative() -> set[Path]:
    """The files of the package that the command line and the rules import, whatever is asked of them."""
    files: set[Path] = set()
    rules = (ROOT / "workflows/rules/common.smk").read_text().splitlines()
    first_lines = ast.parse("\n".join(line for line in rules if line.startswith(("from ", "import "))))
    waiting = ["cgpt", "cgpt.__main__", *imported(first_lines)]
    while waiting:
        name = waiting.pop()
        base = ROOT.joinpath(*name.split("."))
        path = next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
        if path and path not in files:
            files.add(path)
            waiting += [*imported(ast.parse(path.read_text())), name.rpartition(".")[0] or "cgpt"]
    return files


def write_stages(root: Path) -> None:
    """The package with stages that only write their files; only `pretrain` and what trains reach the model."""
    for path in declarative():
        (root / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to(ROOT))
    stubs = {"model/gpt": MODEL, "stub": STUB, "experiment/chain": CHAIN,
             "preview/tasks": "def preview(runs, known, workflow):\n    return []\n"}  # fmt: skip
    for function, (parameters, written) in STAGES.items():
        model = "from cgpt.model import gpt\n" if function in ("pretrain", "finetune") else ""
        stubs[MODULES.get(function, f"stages/{function}")] = (
            f"from cgpt import stub\n{model}\ndef {function}({parameters}):\n    stub.write({written})\n"
        )
    for module, text in stubs.items():
        path = root / f"cgpt/{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def snakemake(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command `snakemake` in a project, in a copy of this process: importing Snakemake takes it a second."""
    import snakemake.api  # noqa: F401  before the copy is made

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if (copy := os.fork()) == 0:
            os._exit(_be_snakemake(root, out.fileno(), err.fileno(), arguments))
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        texts = [os.pread(file.fileno(), 1 << 30, 0).decode() for file in (out, err)]
    return subprocess.CompletedProcess(["snakemake", *arguments], code, *texts)


def _be_snakemake(root: Path, out: int, err: int, arguments: tuple[str, ...]) -> int:
    """In the copy: what the command does from its first line on, with the project's package. Returns the exit code."""
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
        os.chdir(root)
        os.environ["PYTHONPATH"] = str(root)
        sys.path.insert(0, str(root))
        for name in [name for name in sys.modules if name.partition(".")[0] == "cgpt"]:
            del sys.modules[name]
        sys.argv = ["snakemake", *arguments]
        from snakemake.cli import main

        main()
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def would_run(root: Path, *targets: str) -> Counter[str]:
    """Jobs by rule of a dry run, of the default target where none is given."""
    done = snakemake(root, "--dry-run", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = Counter(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, flags=re.MULTILINE))
    del jobs["experiments"]
    return jobs


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project whose quickstart has run to the end."""
    root = write_project(tmp_path_factory.mktemp("finished"))
    edit(root, QUICKSTART, "corpus: [world]", "corpus: [world, notes]")
    write_stages(root)
    for folder in ("workflows/rules", "workflows/report", "profiles"):
        shutil.copytree(ROOT / folder, root / folder)
    shutil.copy(ROOT / "Snakefile", root)
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]  # once as a person calls it
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture
def root(finished, tmp_path) -> Path:
    """A copy of that project, with its times, to change."""
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def test_one_command_leaves_tables_and_figures_and_the_second_has_nothing_to_do(root):
    assert {path.name for path in (root / "results/quickstart").iterdir()} == {
        "report.html", "scores.csv", "runs.csv", "hardware.csv", "table.md", "table.html", "continuations.json",
        "figures",
    }  # fmt: skip
    assert "Nothing to be done" in "".join((done := snakemake(root, "--cores", "1")).stdout + done.stderr)


def test_a_comment_in_yaml_or_python_and_a_docstring_rerun_nothing(root):
    for name in (QUICKSTART, TOPIC, "workflows/models.yaml", "hardware_profiles/cpu.yaml"):
        (root / name).write_text("# a comment\n" + (root / name).read_text())
    edit(root, "cgpt/model/gpt.py", MODEL, '"""Another docstring."""\n\n# a comment\nWIDTH = 4  # another\n')
    assert not would_run(root)


def test_an_experiment_that_asks_for_scaling_laws_gets_them_and_nothing_runs_again(root):
    (root / QUICKSTART).write_text((root / QUICKSTART).read_text() + "fit: [compute]\n")
    assert would_run(root) == {"fit": 1, "report": 1}


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


def test_execution_settings_rerun_nothing(root):
    edit(root, QUICKSTART, "steps: 10", "steps: 10, checkpoint_every_steps: 7")
    edit(root, QUICKSTART, "threads_per_run: 1", "threads_per_run: 2")
    edit(root, "hardware_profiles/cpu.yaml", "threads: 2", "threads: 2, mem_mb: 900, runtime_minutes: 5")
    assert not would_run(root)


def test_a_changed_constant_in_the_model_trains_again(root):
    edit(root, "cgpt/model/gpt.py", "WIDTH = 4", "WIDTH = 5")
    shown = {"tabulate": 1, "plot": 1, "continuations": 1, "report": 1}
    assert would_run(root) == {"pretrain": 1, "finetune": 2, "evaluate": 3} | shown


def test_a_changed_constant_in_a_stage_redoes_it_and_what_follows(root):
    edit(root, "cgpt/stages/evaluate.py", '"scores.json"', '"scores" + ".json"')
    assert would_run(root) == {"evaluate": 3, "tabulate": 1, "plot": 1, "report": 1}


def test_a_changed_message_or_progress_line_reruns_nothing(root):
    edit(root, "cgpt/stages/pretrain.py", "    stub.write(", "    print('learning', job.spec['seed'])\n    stub.write(")
    edit(root, "cgpt/stages/fetch.py", "    stub.write(", "    print(f'fetching {dataset.name}')\n    stub.write(")
    assert not would_run(root)


def test_a_changed_declaration_module_reruns_nothing(root):
    (root / "cgpt/errors.py").write_text((root / "cgpt/errors.py").read_text() + "\nUNUSED = 1\n")
    assert not would_run(root)


def test_a_new_task_runs_only_what_is_its_own(root):
    (root / "workflows/tasks/mood.yaml").write_text(TASK.replace("task: topic", "task: mood"))
    edit(root, QUICKSTART, "tasks: [topic]", "tasks: [topic, mood]")
    assert would_run(root) == {"finetune": 2, "baseline": 1, "evaluate": 3, "tabulate": 1, "plot": 1, "report": 1}


def test_a_table_that_is_asked_for_brings_its_figures_and_of_what_varies_one_more(root):
    shutil.rmtree(root / "results/quickstart")
    assert would_run(root, "results/quickstart/table.md") == {"tabulate": 1, "plot": 1}
    experiment = EXPERIMENT.replace("[world]", "[world, notes]") + "vary: {train.lr: [0.001, 0.002]}\n"
    (root / "workflows/experiments/rates.yaml").write_text(experiment)
    jobs = would_run(root, "results/rates/table.md")
    assert jobs["plot"] == jobs["plot_vary"] == jobs["tabulate"] == 1
    nothing_varies = snakemake(root, "--dry-run", "results/quickstart/figures/vary.svg")
    assert nothing_varies.returncode == 1


def test_a_new_seed_trains_only_that_seed(root):
    edit(root, QUICKSTART, "models: [small]", "models: [small]\nseeds: [0, 1]")
    assert would_run(root) == {"pretrain": 1, "finetune": 2, "evaluate": 3, "tabulate": 1, "plot": 1, "report": 1}


def test_modeled_machines_are_metered_from_the_weights_that_are_there_and_get_their_own_figures(root):
    (root / "hardware_profiles/one.yaml").write_text(WAFER)
    modeled = EXPERIMENT.replace("models: [small]", "models: [small]\nhardware: [cpu, one]\nweights_from: cpu")
    (root / "workflows/experiments/devices.yaml").write_text(modeled.replace("[world]", "[world, notes]"))
    figure = "results/devices/figures/roofline.svg"
    assert would_run(root, "results/devices/table.md") == {"meter": 1, "tabulate": 1, "plot": 1, "plot_hardware": 1}
    assert snakemake(root, "--dry-run", figure.replace("devices", "quickstart", 1)).returncode == 1  # nothing modeled


def test_a_modeled_machine_that_trains_by_itself_is_trained_and_metered(root):
    (root / "hardware_profiles/one.yaml").write_text(WAFER)
    edit(root, QUICKSTART, "models: [small]", "models: [small]\nhardware: [one]")
    jobs = would_run(root)
    assert jobs["pretrain"] == jobs["meter"] == 1 and jobs["evaluate"] == 3


def test_a_finished_run_stays_finished_when_a_shorter_one_is_added(root):
    wsd = "schedule: wsd, warmup_tokens: 64, steps: 20"
    edit(root, QUICKSTART, "steps: 10", wsd)
    done = snakemake(root, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    lengths = EXPERIMENT.replace("steps: 10", wsd).replace("[world]", "[world, notes]")
    (root / "workflows/experiments/lengths.yaml").write_text(lengths + "vary: {train.steps: [10, 20]}\n")
    assert not would_run(root)
    jobs = would_run(root, "results/lengths/table.md")
    assert (jobs["pretrain"], jobs["finetune"], jobs["evaluate"]) == (1, 1, 2)
    done = snakemake(root, "--cores", "2", "results/lengths/table.md")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not would_run(root) and not would_run(root, "results/lengths/table.md")


def test_the_shorter_of_runs_that_share_steps_goes_first(root):
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "threads_per_run: 1", "threads_per_run: 2\nvary: {train.steps: [40, 10, 20]}")
    edit(
        root,
        "cgpt/stages/pretrain.py",
        "    stub.write(",
        "    print('STEPS', job.spec['train']['steps'])\n    stub.write(",
    )
    done = snakemake(root, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    logs = sorted((root / "results/runs/logs/pretrain").glob("*.log"), key=lambda path: path.stat().st_mtime)
    assert [line for path in logs for line in path.read_text().splitlines() if "STEPS" in line] == [
        "STEPS 10", "STEPS 20", "STEPS 40"]  # fmt: skip


def test_a_local_corpus_is_known_by_what_it_holds_and_not_by_its_times(root):
    before = (root / "notes.txt").stat()
    (root / "notes.txt").write_text("B note.\n")
    os.utime(root / "notes.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    jobs = would_run(root)
    assert jobs["fetch"] == jobs["tokenize"] == jobs["pretrain"] == 1


def test_a_changed_local_corpus_is_fetched_again(root):
    (root / "notes.txt").write_text("Another note.\n")
    jobs = would_run(root)
    assert jobs["fetch"] == jobs["tokenize"] == jobs["pretrain"] == 1


def test_a_typo_fails_with_one_line_even_where_all_outputs_exist(root):
    edit(root, QUICKSTART, "models: [small]", "models: [smal]")
    done = snakemake(root, "--cores", "1")
    assert done.returncode == 1
    assert f"{QUICKSTART}:3: models.0: there is no model 'smal'; did you mean 'small'?\n" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_failing_stage_shows_its_line_keeps_its_log_and_its_resume_state(root):
    (root / "cgpt/stages/pretrain.py").write_text(
        "from pathlib import Path\nfrom cgpt.errors import UserError\n\n"
        "def pretrain(job):\n"
        "    state = Path('results/runs/state') / job.id\n    state.mkdir(parents=True)\n"
        "    (state / 'step.txt').write_text('7')\n"
        "    raise UserError('loss: is not a number at step 7; lower train.lr')\n"
    )
    done = snakemake(root, "--cores", "1")
    assert done.returncode == 1
    assert "loss: is not a number at step 7; lower train.lr\n" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "MissingOutputException" not in done.stdout + done.stderr  # as where the stage's exit code is lost
    (log,) = (root / "results/runs/logs/pretrain").glob("*.log")
    assert log.read_text() == "loss: is not a number at step 7; lower train.lr\n"
    assert [path.read_text() for path in (root / "results/runs/state").glob("*/step.txt")] == ["7"]


def test_fewer_cores_than_threads_named_stop_the_run_with_one_line(root):
    edit(root, QUICKSTART, "threads_per_run: 1", "threads_per_run: 2")
    edit(root, QUICKSTART, "steps: 10", "steps: 11")
    done = snakemake(root, "--cores", "1")
    assert done.returncode == 1
    assert "the plan names 2 threads, 1 granted; run snakemake with --cores 2" in done.stderr


def test_without_a_compiler_no_job_starts_and_a_dry_run_still_works(root, monkeypatch):
    monkeypatch.setenv("CC", "no-such-clang")
    edit(root, QUICKSTART, "steps: 10", "steps: 11")
    assert would_run(root)["pretrain"] == 1
    done = snakemake(root, "--cores", "2")
    assert done.returncode == 1
    assert "environment: CC: 'no-such-clang' is not a program; name a clang, or unset CC\n" in done.stderr
    assert "localrule" not in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(
    shutil.which("snakefmt", path=Path(sys.executable).parent) is None, reason="snakefmt is not installed"
)
def test_the_rules_are_formatted():
    command = [Path(sys.executable).parent / "snakefmt", "--check", "-l", "120", "Snakefile", "workflows/rules"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_a_draft_stops_only_the_workflow_that_asks_for_it(root):
    (root / "workflows/experiments/draft.yaml").write_text("question: what\nmodles: [x]\n")
    (root / "workflows/experiments/point.yaml").write_text(EXPERIMENT + "vary: {data.vocab_size: [100]}\n")
    done = snakemake(root, "--dry-run", "results/quickstart/table.md")
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr
    assert done.stderr.count("warning: not used here, and left out: workflows/experiments/") == 2
    for name, expected in (("draft", "modles: unknown key"), ("point", "256 bytes and the end of text), not 100")):
        done = snakemake(root, "--dry-run", f"results/{name}/table.md")
        assert done.returncode == 1 and expected in done.stderr and "Traceback" not in done.stderr
    edit(root, QUICKSTART, "lr: 0.003", "lr: fast")
    done = snakemake(root, "--dry-run")
    assert done.returncode == 1 and done.stderr.rstrip().endswith(
        "train.lr: must be a number, not 'fast'; write a number"
    )


def test_an_edit_while_a_workflow_runs_changes_none_of_its_jobs(root):
    edit(root, QUICKSTART, "lr: 0.003", "lr: 0.004")
    spoil = "".join(f"    Path({name!r}).write_text('a: [')\n" for name in (QUICKSTART, "workflows/models.yaml"))
    edit(root, "cgpt/stages/pretrain.py", "from cgpt", "from pathlib import Path\nfrom cgpt")
    (root / "cgpt/stages/pretrain.py").write_text((root / "cgpt/stages/pretrain.py").read_text() + spoil)
    done = snakemake(root, "--cores", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / QUICKSTART).read_text() == "a: ["
