"""What holds for the whole repository: the direction of imports, sizes of files and words in them, the shipped YAML."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cgpt.experiment import load, plan

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cgpt"
# The package from the ground up: a file imports from its own folder and from floors below.
FLOORS = (
    "errors",
    "bounds code_hash host",
    "spec",
    "formats files hardware",
    "provenance recipe records jobs",
    "data kernels cost",
    "tasks model",
    "experiment inference training checkpoint",
    "scaling stages",
    "preview report bench",
    "commands",
    "__main__",
)
# What a plan, a dry run or a table needs; it must start at once, and on a machine that cannot train.
DECLARATIVE = (
    "commands.ending commands.fit commands.folders commands.forecast commands.plan "
    "cost cost.batch cost.calibrate cost.cerebras_gpt cost.forecast "
    "cost.gpu cost.job cost.measurements cost.memory cost.shapes cost.step cost.wafer_inference cost.wafer_training "
    "code_hash data.content data.documents data.download data.end_tokens data.shards data.task_rows data.world errors "
    "experiment.bases experiment.chain experiment.contradictions experiment.entries experiment.from_yaml "
    "experiment.load experiment.plan experiment.planned_time experiment.plans experiment.rates experiment.rules "
    "experiment.run experiment.shared_steps experiment.show_plan files.cache files.csv_file files.declarations "
    "files.digest files.json_object files.typed files.user_files files.whole files.yaml_file formats hardware host "
    "jobs preview.corpora preview.kept_checks preview.sources preview.tasks "
    "provenance recipe.flops recipe.generation_config records report.axes report.figures report.flags "
    "report.laws.figure report.laws.machines_figure report.laws.page report.machines.cerebras_gpt "
    "report.machines.fidelity report.machines.figures report.machines.forecast_page report.machines.roofline "
    "report.machines.table report.page report.rows report.scales report.score_table report.tables "
    "report.vary_figure scaling scaling.cost_law scaling.downstream scaling.fitted_law "
    "scaling.isoflop scaling.machines scaling.parametric_law scaling.points scaling.published scaling.seeds "
    "scaling.statistics scaling.study scaling.target_loss spec stages.baseline stages.fetch stages.tokenize "
    "tasks.answers tasks.documents tasks.examples tasks.lm_eval_tasks tasks.text_task".split()
)
# The data mirror beside a checkout, which tests and CI use, is no machine's path.
FOREIGN = re.compile(r"/wor[k]/|/roo[t]/|/op[t]/|/hom[e]/|share[d]/(?!data)|pyp[i]\.org|pythonhoste[d]|npmj[s]")
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b")


@cache
def modules() -> dict[str, Path]:
    """The package's modules by dotted name."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, also within functions; those for the type checker alone left out."""
    tree = ast.parse(path.read_text())
    typing_only = {inner for node in ast.walk(tree) if isinstance(node, ast.If)
                   and getattr(node.test, "id", "") == "TYPE_CHECKING" for inner in ast.walk(node)}  # fmt: skip
    names: set[str] = set()
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: writes a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def graph() -> dict[str, frozenset[str]]:
    """The modules of the package that each one imports: the name itself, or the module that defines it."""
    return {
        name: frozenset(full if full in modules() else full.rpartition(".")[0]
                        for full in imported(path) if full.startswith("cgpt.") or full == "cgpt")
        for name, path in modules().items()
    }  # fmt: skip


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def room(module: str) -> str:
    """The folder or file just below the package that a module stands in; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def test_imports_go_one_way():
    tuple(TopologicalSorter({name: needs - {"cgpt"} for name, needs in graph().items()}).static_order())


def test_every_folder_and_file_of_the_package_stands_on_one_floor():
    rooms = [each for floor in FLOORS for each in floor.split()]
    assert sorted(rooms) == sorted({room(name) for name in modules()} - {""})


def test_imports_go_down_from_floor_to_floor():
    floor_of = {each: number for number, floor in enumerate(FLOORS) for each in floor.split()}
    climbs = [(name, needed) for name, needs in graph().items() for needed in needs
              if room(name) and room(needed) not in ("", room(name))
              and floor_of[room(needed)] >= floor_of[room(name)]]  # fmt: skip
    assert not climbs


def test_nothing_imports_the_command_line():
    assert not [name for name, needs in graph().items() if "cgpt.__main__" in needs]


@pytest.mark.parametrize("name", DECLARATIVE)
def test_what_only_declares_or_reads_never_reaches_tinygrad(name):
    reached, waiting = set(), [f"cgpt.{name}"]
    while waiting:
        if (module := waiting.pop()) not in reached:
            reached.add(module)
            waiting += graph()[module]
    assert not [m for m in reached for full in imported(modules()[m]) if full.split(".")[0] == "tinygrad"]


def test_tinygrad_outside_kernels_is_its_public_interface():
    inner = {name: [full for full in imported(path) if full.startswith("tinygrad") and full.count(".") > 1]
             for name, path in modules().items() if not name.startswith("cgpt.kernels")}  # fmt: skip
    assert not {name: full for name, full in inner.items() if full}


def test_no_source_file_is_longer_than_400_lines():
    sources = tracked("*.py", "*.c", "*.h", "*.smk", "Snakefile", "Makefile", ".ci/run")
    assert not [path for path in sources if len(path.read_text().splitlines()) > 400]


def test_no_tracked_file_names_a_machine_or_is_unfinished():
    texts = tracked(
        "*.py", "*.c", "*.h", "*.smk", "*.yaml", "*.toml", "*.md", "*.rst", "Snakefile", "Makefile", ".ci/run"
    )
    found = [(path.name, match[0]) for path in texts for match in FOREIGN.finditer(path.read_text())]
    found += [(path.name, match[0]) for path in texts for match in UNFINISHED.finditer(path.read_text())]
    assert not found


def test_nothing_generated_is_tracked():
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    assert not [name for name in names if name.startswith("results/") and not name.startswith("results/reference/")]


def test_every_shipped_file_loads_and_every_shipped_experiment_plans():
    workflow = load.load_workflow(ROOT)
    assert set(workflow.tasks) == {path.stem for path in (ROOT / "workflows/tasks").iterdir()}
    assert set(workflow.hardware) == {path.stem for path in (ROOT / "hardware_profiles").iterdir()}
    assert set(workflow.experiments) == {path.stem for path in (ROOT / "workflows/experiments").iterdir()}
    for experiment in workflow.experiments.values():
        assert plan.make_plan(experiment, workflow).runs, experiment.name


def test_every_address_of_data_is_https():
    files = [file for dataset in load.load_workflow(ROOT).datasets.values() for file in dataset.files]
    assert not [file.url for file in files if file.url and not file.url.startswith("https://")]


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert not [target for target in targets if not (ROOT / target).exists()]
