"""Fixtures of several test files."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bigram
import pytest

from cgpt import host
from cgpt.__main__ import main
from cgpt.experiment import load, rates
from cgpt.kernels import compiler

ROOT = Path(__file__).parent.parent
NUMBERS = itertools.count()  # of the tests of a process
READ_ONCE = functools.cache(load.read_workflow)


def pytest_collection_finish():
    """The garbage collector looks no more at the thousands of tests, which stay, and looks less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def checkout(monkeypatch):
    """Commands run in the checkout, whose YAML files are read once for all tests that ask for this: none writes one."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(load, "read_workflow", READ_ONCE)


@pytest.fixture
def forecast(capsys, checkout):
    """Calls the verb forecast in the project and returns its JSON."""

    def call(*arguments: str) -> dict:
        assert main(["forecast", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache, and nothing remembered of compiler or processor; what was is back afterwards."""
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path))
    for function in (compiler.find_compiler, host.cpu_info, host.cpu_model):
        function.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for function in (compiler.find_compiler, host.cpu_info, host.cpu_model):
        function.cache_clear()


@pytest.fixture
def unforced(monkeypatch):
    """No level is forced, also where these tests are run as on an older processor."""
    monkeypatch.delenv("CGPT_CPU", raising=False)
    monkeypatch.delenv("CGPT_BLAS_CORE", raising=False)
    monkeypatch.delenv("CGPT_BLAS", raising=False)


@pytest.fixture(scope="session")
def rates_folder(tmp_path_factory) -> Path:
    """Holds a name per test, not a folder: thousands of folders take seconds to make."""
    return tmp_path_factory.mktemp("rates")


@pytest.fixture(autouse=True)
def no_rates_of_this_machine(rates_folder, monkeypatch):
    """What `cgpt measure` once found on the machine of the tests decides no plan of theirs."""
    path = rates_folder / f"{next(NUMBERS)}.json"
    monkeypatch.setattr(rates, "path", lambda: path)


@pytest.fixture
def bigram_decoder(monkeypatch):
    """Answers are generated with the stand-in of bigram.py."""
    monkeypatch.setattr("cgpt.inference.generate.Decoder", bigram.Decoder)


@pytest.fixture(scope="session")
def copy(tmp_path_factory) -> Path:
    """A repository with what git would commit now, and an environment that `make setup` takes for its own."""
    root = tmp_path_factory.mktemp("copy")
    for name in call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith(".installed"):
            (root / ".venv" / part.name).symlink_to(part)
    for name in (".installed", ".installed-dev"):
        (root / ".venv" / name).touch()
    call(root, "git", "init", "--quiet")
    call(root, "git", "add", "--all")
    call(root, "git", "-c", "user.name=test", "-c", "user.email=test@test", "commit", "--quiet", "--message", "copy")
    return root


@pytest.fixture(scope="session")
def installed(tmp_path_factory, copy) -> Path:
    """The folder of the programs of a fresh environment into which cgpt's wheel was installed, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    wheels, environment = folder / "wheels", folder / "venv"
    sources = shutil.copytree(copy, folder / "sources", ignore=shutil.ignore_patterns(".venv", "results/*/runs"))
    call(folder, sys.executable, "-m", "venv", str(environment))
    pip = str(environment / "bin/pip")
    call(folder, pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(sources))
    compiler_too = [] if shutil.which(os.environ.get("CC", "clang")) else ["ziglang"]  # as in the Makefile
    uv = shutil.which("uv")  # several times as fast
    install = [uv, "pip", "install", "--python", str(environment / "bin/python")] if uv else [pip, "install"]
    call(folder, *install, "--quiet", *map(str, wheels.glob("*.whl")), *compiler_too)
    return environment / "bin"


def call(folder: Path, *command: str) -> str:
    """Standard output of a command that must succeed in the folder."""
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
    return done.stdout
