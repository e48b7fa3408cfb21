"""The hash of a stage's code changes with what the code says and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgpt import provenance

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
    for function in (provenance.code_sha256, provenance._tree, provenance._normalised):
        function.cache_clear()
    return provenance.code_sha256("train", package)


def test_what_a_stage_reaches_includes_imports_within_functions_and_c_sources(package):
    found = {path.relative_to(package).as_posix() for path in provenance.reached("train", package)}
    assert found == {"train.py", "layers.py", "fast/__init__.py", "fast/core.py", "fast/core.c"}


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
    found = {path.relative_to(provenance.PACKAGE).as_posix() for path in provenance.reached("pretrain")}
    assert {"pretrain.py", "model.py", "kernels/native.py", "kernels/gpt.c"} <= found
    assert not {"tabulate.py", "plan.py", "load.py", "errors.py"} & found


def test_the_record_names_versions_commit_processor_and_day():
    found = provenance.record("tokenize")
    assert found["versions"]["tinygrad"] == "0.13.0"
    assert found["date"].endswith("+00:00")
    assert len(found["code_sha256"]) == 64
