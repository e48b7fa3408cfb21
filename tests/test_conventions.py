"""What holds for the whole repository: the direction of imports, sizes of files and words in them, the shipped YAML."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cgpt import csv_columns, records
from cgpt.experiment import load, plan
from cgpt.hardware import Hardware
from cgpt.report.tables import SCORE_COLUMNS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cgpt"
# The package from the ground up: a file imports from its own folder and from floors below.
FLOORS = (
    "errors",
    "bounds code_hash host imports",
    "spec",
    "csv_columns formats files hardware",
    "provenance recipe records jobs",
    "data kernels cost",
    "tasks model",
    "experiment inference training checkpoint",
    "scaling stages",
    "preview report bench",
    "commands",
    "__main__ api",
)
# What a plan, a dry run or a table needs; it must start at once, and on a machine that cannot train.
DECLARATIVE = (
    "commands.clean commands.compare commands.completion commands.ending commands.fit commands.folders "
    "commands.forecast commands.init commands.listing commands.plan "
    "cost cost.batch cost.calibrate cost.cerebras_gpt cost.forecast "
    "cost.gpu cost.job cost.measurements cost.memory cost.shapes cost.step cost.wafer_inference cost.wafer_training "
    "code_hash data.checkpoint_files data.content data.documents data.download data.end_tokens data.hub data.mirror "
    "data.shards data.task_rows data.world errors "
    "experiment.bases experiment.chain experiment.checkpoint_rows experiment.contradictions experiment.entries "
    "experiment.from_yaml model.config "
    "experiment.load experiment.plan experiment.planned_time experiment.plans experiment.rates experiment.rules "
    "experiment.run experiment.shared_steps experiment.show_plan experiment.uses experiment.written files.cache "
    "files.csv_file files.declarations files.digest files.json_object files.layers files.typed files.user_files "
    "files.whole files.yaml_file formats hardware host jobs preview.corpora preview.kept_checks preview.sources "
    "preview.tasks provenance recipe.flops recipe.generation_config records report.axes "
    "report.conclusions.conclude report.figures report.flags report.html.report report.samples "
    "report.laws.figure report.laws.machines_figure report.laws.page report.machines.cerebras_gpt "
    "report.machines.fidelity report.machines.figures report.machines.forecast_page report.machines.roofline "
    "report.machines.table report.page report.printed report.rows report.scales report.score_table report.tables "
    "report.vary_figure scaling scaling.cost_law scaling.downstream scaling.fitted_law "
    "scaling.isoflop scaling.machines scaling.parametric_law scaling.points scaling.published scaling.seeds "
    "scaling.statistics scaling.study scaling.target_loss spec stages.baseline stages.fetch stages.tokenize "
    "tasks.answers tasks.documents tasks.examples tasks.lm_eval_tasks tasks.text_task".split()
)
# The data mirror beside a checkout, which tests and CI use, is no machine's path.
FOREIGN = re.compile(r"/wor[k]/|/roo[t]/|/op[t]/|/hom[e]/|share[d]/(?!data)|pyp[i]\.org|pythonhoste[d]|npmj[s]")
# Words that do not say what a name holds.
EMPTY_WORDS = {"found", "chosen", "place", "own", "said", "told"}
LONGEST_FUNCTION = 60  # lines, its docstring among them
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b")


@cache
def modules() -> dict[str, Path]:
    """The package's modules by dotted name."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


@cache
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


Function = ast.FunctionDef | ast.AsyncFunctionDef


def names_given(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of all that a file names: functions, classes, parameters, variables, attributes, imports."""
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


def length_of(node: Function) -> int:
    """Lines of a function, without its decorators."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def public(tree: ast.Module) -> Iterator[ast.ClassDef | Function]:
    """The functions and classes of a file, and the methods of such classes, whose names have no leading underscore."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node
            waiting += node.body if isinstance(node, ast.ClassDef) else []


def drawn_package() -> list[dict[str, str]]:
    """docs/develop.md's tree, a mapping for each floor from the top down: path below cgpt/ and its line."""
    section = (ROOT / "docs/develop.md").read_text().split("## The package")[1]
    lines = section.split("```text\ncgpt/\n")[1].split("```")[0].splitlines()
    floors: list[dict[str, str]] = [{}]
    folders: list[str] = []
    for line in lines:
        if not line:
            floors.append({})
            continue
        name, _, about = line.strip().partition(" ")
        folders = folders[: (len(line) - len(line.lstrip())) // 2 - 1]
        path = "".join([*folders, name])
        assert path not in floors[-1], f"{path} stands twice"
        floors[-1][path] = about.strip()
        folders += [name] if name.endswith("/") else []
    return floors


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


@pytest.mark.parametrize("path", tracked("*.py"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_say_what_they_hold(path):
    given = [(line, name) for line, name in names_given(ast.parse(path.read_text())) if not name.startswith("test_")]
    assert not [(line, name) for line, name in given if EMPTY_WORDS & set(name.lower().split("_"))]


@pytest.mark.parametrize("name", sorted(modules()))
def test_docstrings_say_what_comes_back_and_functions_fit_on_a_screen_or_two(name):
    tree = ast.parse(modules()[name].read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | Function)]
    assert not [ast.get_docstring(node) for node in nodes if (ast.get_docstring(node) or "").startswith("What ")]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    protocols = [each for each in classes if "Protocol" in map(ast.unparse, each.bases)]  # whose docstring is enough
    documented = {node.name for each in protocols for node in public(each) if ast.get_docstring(node)}
    bare = [node for node in public(tree) if not ast.get_docstring(node) and node.name not in documented]
    assert ast.get_docstring(tree) and not [node.name for node in bare]
    assert not [node.name for node in nodes if isinstance(node, Function) and length_of(node) > LONGEST_FUNCTION]


def test_the_drawn_package_names_each_file_once_and_on_its_floor():
    floors = drawn_package()
    drawn = {path: about for floor in floors for path, about in floor.items()}
    files = {path.relative_to(PACKAGE).as_posix() for path in tracked("cgpt") if path.name != "__init__.py"}
    assert sorted(path for floor in floors for path in floor if not path.endswith("/")) == sorted(files)
    assert not [path for path, about in drawn.items() if not about]
    rooms = [{path.partition("/")[0].removesuffix(".py") for path in floor} for floor in floors]
    assert rooms == [set(floor.split()) for floor in reversed(FLOORS)]


def test_every_key_of_a_hardware_profile_is_either_part_of_a_runs_identity_or_not():
    keys = [field.name for field in fields(Hardware)]
    assert sorted(plan.HARDWARE_IDENTITY + Hardware.EXECUTION) == sorted(keys)
    assert set(plan.HARDWARE_COST) < set(Hardware.EXECUTION)


def test_columns_names_and_files_of_the_glossary_are_there():
    kinds = (records.FinetuneRecord, records.MeterRecord, records.ScoresRecord)
    columns = {field.name for kind in kinds for field in fields(kind)}
    columns.update(SCORE_COLUMNS, csv_columns.LOSS_COLUMNS, csv_columns.KERNEL_COLUMNS)
    texts = {path: path.read_text() for path in modules().values()}
    lines = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith("| **")]
    assert len(lines) > 60
    for line in lines:
        _, word, _, _, as_columns, in_code, _ = line.split("|")
        assert set(re.findall(r"`(\w+)`", as_columns)) <= columns, word
        for name in re.findall(r"`([\w./]+)[()]*`", in_code):
            module, identifier = name.partition(".")[0], name.rpartition(".")[2]
            within = [path for path in texts if path.stem == module] or list(texts)
            is_used = any(re.search(rf"\b{identifier}\b", texts[path]) for path in within)
            is_path = "/" in name or name.endswith(".py")
            assert (PACKAGE / name).exists() if is_path else is_used, (word, name)


def test_no_tracked_file_names_a_machine_or_is_unfinished():
    texts = tracked(
        "*.py", "*.c", "*.h", "*.smk", "*.yaml", "*.toml", "*.md", "*.rst", "Snakefile", "Makefile", ".ci/run"
    )
    assert not [(path.name, match[0]) for path in texts for pattern in (FOREIGN, UNFINISHED)
                for match in pattern.finditer(path.read_text())]  # fmt: skip


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


@pytest.mark.parametrize("path", tracked("*.md"), ids=lambda path: path.name)
def test_links_of_pages_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    targets = [link.split("#")[0] for link in links if "://" not in link]
    assert not [target for target in targets if not (path.parent / target).exists()]
