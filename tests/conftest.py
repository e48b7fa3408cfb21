"""Fixtures of several test files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import bigram
import pytest

from cgpt import host
from cgpt.__main__ import main
from cgpt.experiment import rates
from cgpt.kernels import compiler

ROOT = Path(__file__).parent.parent
NUMBERS = itertools.count()  # of the tests of a process


@pytest.fixture
def forecast(capsys, monkeypatch):
    """Calls the verb forecast in the project and returns its JSON."""
    monkeypatch.chdir(ROOT)

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
