"""The hash of a stage's code changes with what the code says and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cgpt import code_hash, provenance

SOURCES = {
    "train.py": '"""Trains."""\nfrom cgpt import layers\n\ndef train():\n    from .fast import core\n    return core\n',
    "layers.py": "WIDTH = 4\n",
    "other.py": "UNRELATED = 1\n",
    "errors.py": "MESSAGE = 'no'\n",
    "fast/__init__.py": "from cgpt import errors\n",
    "fast/core.py": "SPEED = 1\n",
    "fast/core.c": "int a = 1; /* one */\n",
}


@pytest.fixture
def package(tmp_path) -> Path:
    (tmp_path / "cgpt/fast").mkdir(parents=True)
    for name, text in SOURCES.items():
        (tmp_path / "cgpt" / name).write_text(text)
    return tmp_path / "cgpt"


def hash_of_train(package: Path) -> str:
    clear_caches()
    return code_hash.code_sha256("train", package)


def clear_caches() -> None:
    for function in (code_hash.code_sha256, code_hash._normalised, code_hash._source):
        function.cache_clear()


def test_what_a_stage_reaches_includes_imports_within_functions_and_c_sources(package):
    paths = {path.relative_to(package).as_posix() for path in code_hash.reached("train", package)}
    assert paths == {"train.py", "layers.py", "fast/__init__.py", "fast/core.py", "fast/core.c"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.py", '"""Learns."""\n# why\n' + SOURCES["train.py"].partition("\n")[2]),
        ("layers.py", "WIDTH   =  4  # cells\n"),
        ("fast/core.c", "int a\n  = 1; // uno\n"),
        ("other.py", "UNRELATED = 2\n"),
        ("errors.py", "MESSAGE = 'never'\n"),
    ],
)
def test_comments_docstrings_layout_and_unreached_modules_do_not_count(package, name, text):
    before = hash_of_train(package)
    (package / name).write_text(text)
    assert hash_of_train(package) == before


@pytest.mark.parametrize(
    ("name", "text"), [("layers.py", "WIDTH = 5\n"), ("fast/core.py", "SPEED = 2\n"), ("fast/core.c", "int a = 2;\n")]
)
def test_a_changed_constant_counts_wherever_it_is_reached(package, name, text):
    before = hash_of_train(package)
    (package / name).write_text(text)
    assert hash_of_train(package) != before


def test_training_reaches_the_kernels_and_not_the_tables():
    paths = {path.relative_to(code_hash.PACKAGE).as_posix() for path in code_hash.reached("stages.pretrain")}
    assert {"stages/pretrain.py", "model/gpt.py", "kernels/native/call.py", "kernels/native/c/gpt.c"} <= paths
    assert not {"report/tables.py", "experiment/plan.py", "experiment/load.py", "errors.py"} & paths


def test_the_record_names_versions_commit_processor_and_day():
    record = provenance.record("stages.tokenize")
    assert record["versions"]["tinygrad"] == "0.13.0"
    assert record["date"].endswith("+00:00")
    assert len(record["code_sha256"]) == 64


COMPUTES = {
    "train.py": (
        "import sys\nfrom typing import TYPE_CHECKING\nfrom cgpt import layers\nfrom cgpt import show\n"
        "from cgpt.errors import UserError\n"
        "from cgpt.layers import WIDTH\n\nif TYPE_CHECKING:\n    from cgpt.table import Table\n\n"
        "def train(n: int) -> int:\n    if n < 1:\n        raise UserError(f'n: is {n}')\n"
        "    print('training', file=sys.stderr)\n    show.line(n)\n    return layers.wide(n) * WIDTH\n"
    ),
    "layers.py": "from math import floor as whole\nWIDTH = 4\nHEADING = 'width'\n\ndef wide(n):\n    return _twice(n)\n"
    "\ndef _twice(n):\n    if n > 99:\n        raise ValueError(f'{n} is above 99')\n    half: int = whole(n)\n"
    "    return 2 * n + half\n\ndef unused(n):\n    return n\n",
    "show.py": "def line(n):\n    print(n)\n",
    "table.py": "class Table:\n    columns = 1\n",
    "errors.py": "class UserError(Exception):\n    pass\n",
}


@pytest.fixture
def computing(tmp_path) -> Path:
    (tmp_path / "cgpt").mkdir()
    for name, text in COMPUTES.items():
        (tmp_path / "cgpt" / name).write_text(text)
    return tmp_path / "cgpt"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("train.py", "n: is {n}", "n: must be above 0, not {n}"),
        ("train.py", "'training'", "'now it trains'"),
        ("train.py", "    show.line(n)", "    print('more')\n    show.line(n)"),
        ("train.py", "n: int", "n: float"),
        ("train.py", "    from cgpt.table import Table", "    from cgpt.table import Table, Row"),
        ("table.py", "columns = 1", "columns = 2"),
        ("layers.py", "'width'", "'width (cells)'"),
        ("layers.py", "is above 99", "is too large"),
        ("layers.py", "half: int", "half: float"),
        ("layers.py", "    return n\n", "    return n + 1\n"),
        ("show.py", "print(n)", "print('step', n)"),
    ],
)
def test_messages_type_hints_and_definitions_that_are_not_reached_do_not_count(computing, name, old, new):
    before = hash_of_train(computing)
    text = (computing / name).read_text()
    assert old in text
    (computing / name).write_text(text.replace(old, new))
    assert hash_of_train(computing) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("layers.py", "2 * n", "3 * n"),
        ("layers.py", "WIDTH = 4", "WIDTH = 5"),
        ("layers.py", "_twice(n)\n\n", "unused(n)\n\n"),
        ("layers.py", "WIDTH = 4\n", "WIDTH = 4\nglobals()['WIDTH'] += 1\n"),
        ("train.py", "* WIDTH", "+ WIDTH"),
        ("train.py", "n < 1", "n < 2"),
        ("layers.py", "import floor as", "import ceil as"),
    ],
)
def test_what_is_computed_counts_however_indirectly_it_is_reached(computing, name, old, new):
    before = hash_of_train(computing)
    text = (computing / name).read_text()
    assert old in text
    (computing / name).write_text(text.replace(old, new, 1))
    assert hash_of_train(computing) != before


def test_a_module_under_another_name_is_the_same_code(computing):
    text = COMPUTES["train.py"].replace("    show.line", "    from cgpt import show\n    show.line")
    (computing / "train.py").write_text(text)
    before = hash_of_train(computing)
    (computing / "sub").mkdir()
    (computing / "sub/__init__.py").write_text("")
    for old, new in (("layers", "sub/blocks"), ("show", "sub/show")):
        (computing / f"{old}.py").rename(computing / f"{new}.py")
    text = (computing / "train.py").read_text().replace("from cgpt import show", "from cgpt.sub import show")
    text = text.replace("from cgpt import layers", "from cgpt.sub import blocks as layers")
    text = text.replace("cgpt.layers", "cgpt.sub.blocks")
    (computing / "train.py").write_text(text)
    assert hash_of_train(computing) == before


def test_a_renamed_module_a_renamed_import_and_a_moved_function_are_the_same_code(computing):
    before = hash_of_train(computing)
    (computing / "layers.py").rename(computing / "blocks.py")
    moved, blocks = "def _twice(n):\n", (computing / "blocks.py").read_text()
    at, end = blocks.index(moved), blocks.index("def unused")
    (computing / "sums.py").write_text("from math import floor as whole\n" + blocks[at:end])
    (computing / "blocks.py").write_text("from cgpt.sums import _twice as double\n" + (blocks[:at] + blocks[end:])
                                         .replace("return _twice(n)", "return double(n)"))  # fmt: skip
    text = (computing / "train.py").read_text().replace("cgpt.layers import WIDTH", "cgpt.blocks import WIDTH as WIDE")
    text = text.replace("import layers", "import blocks").replace("layers.wide", "blocks.wide")
    (computing / "train.py").write_text(text.replace("* WIDTH", "* WIDE"))
    assert hash_of_train(computing) == before


def test_of_a_package_that_exports_only_what_is_used_counts(computing):
    (computing / "sub").mkdir()
    (computing / "sub/__init__.py").write_text("from cgpt.sub.io import load, save\n\n__all__ = ['load', 'save']\n")
    (computing / "train.py").write_text("from cgpt import sub\n\ndef train():\n    return sub.load()\n")
    hashes = {}
    for load, save in ((1, 2), (1, 3), (4, 2)):
        (computing / "sub/io.py").write_text(f"def load():\n    return {load}\n\n\ndef save():\n    return {save}\n")
        hashes[load, save] = hash_of_train(computing)
    assert hashes[1, 2] == hashes[1, 3] != hashes[4, 2]


EDITS = {  # of this package: what is edited, and a stage whose hash that changes
    ("report/labels.py", '"training tokens"', '"tokens seen"'): {"tabulate", "plot"},
    ("training/progress.py", "MiB  {left} left", "MiB, {left} to go"): set(),
    ("stages/pretrain.py", "the run diverged at step", "the loss grew at step"): set(),
    ("stages/evaluate.py", 'print(f"evaluate: {checkpoint.name} on', 'print(f"{checkpoint.name} is scored on'): set(),
    ("training/trainer.py", "beta1: float = 0.9", "beta1: float = 0.8"): {"pretrain", "finetune"},
    ("kernels/native/c/optimizer.c", "#include", "static int more = 1;\n#include"): {
        "pretrain",
        "finetune",
        "evaluate",
    },
    ("data/content.py", 'SPLITS = ("train", "validation")', 'SPLITS = ("train", "valid")'): {"tokenize", "pretrain"},
    ("data/content.py", 'sorted(source.rglob("*"))', 'sorted(source.rglob("*"), key=str)'): {"fetch"},
    ("checkpoint/folder.py", "model_card(", "model_card.__call__("): set(),
    ("model/ids.py", "is no token of the model", "is none of the model's tokens"): set(),
    ("data/shards.py", "HEADER_BYTES = 1024", "HEADER_BYTES = 2048"): {"tokenize", "pretrain"},
}


def hashes(package: Path) -> dict[str, str]:
    """The hash of each stage, and of tables and figures."""
    clear_caches()
    stages = {stage: f"stages.{stage}" for stage in "fetch tokenize pretrain finetune evaluate baseline".split()}
    stages |= {"tabulate": "report.tables.tabulate", "plot": "report.figures.plot"}
    return {stage: code_hash.code_sha256(name, package) for stage, name in stages.items()}


@pytest.fixture(scope="module")
def this_package(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A copy of this package, and its hashes."""
    package = tmp_path_factory.mktemp("this") / "cgpt"
    shutil.copytree(code_hash.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package, hashes(package)


@pytest.mark.parametrize("edited", EDITS, ids=lambda edited: f"{edited[0]}: {edited[1]}")
def test_of_this_package_an_axis_label_or_a_progress_line_trains_nothing_again_and_a_constant_does(
    this_package, edited
):
    (package, before), (name, old, new) = this_package, edited
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new, 1))
    after = hashes(package)
    (package / name).write_text(text)
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed >= EDITS[edited] and (changed == EDITS[edited] or EDITS[edited] & {"pretrain"})


def test_a_code_hash_is_kept_until_a_file_of_the_package_changes_or_what_is_kept_is_damaged(fresh, monkeypatch):
    package, asked = fresh / "package", []
    package.mkdir()
    (package / "train.py").write_text("A = 1\n")
    monkeypatch.setattr(code_hash, "PACKAGE", package)
    monkeypatch.setattr(code_hash, "code_sha256", lambda stage: asked.append(stage) or f"{len(asked):064d}")

    def ask() -> int:
        for function in (provenance.code_sha256, provenance._sources_sha256):
            function.cache_clear()
        return int(provenance.code_sha256("train"))

    assert [ask(), ask()] == [1, 1]
    (package / "train.py").write_text("A = 2\n")
    assert [ask(), ask()] == [2, 2]
    for kept in (fresh / "code").iterdir():
        kept.write_text("half")
    assert [ask(), ask()] == [3, 3]
    for function in (provenance.code_sha256, provenance._sources_sha256):
        function.cache_clear()
