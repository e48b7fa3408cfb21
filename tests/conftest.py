"""Fixtures of several test files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cgpt import rates
from cgpt.__main__ import main

ROOT = Path(__file__).parent.parent


@pytest.fixture
def forecast(capsys, monkeypatch):
    """Calls the verb forecast in the project and returns its JSON."""
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> dict:
        assert main(["forecast", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(autouse=True)
def no_rates_of_this_machine(tmp_path_factory, monkeypatch):
    """What `cgpt measure` once found on the machine of the tests decides no plan of theirs."""
    folder = tmp_path_factory.mktemp("rates")
    monkeypatch.setattr(rates, "path", lambda: folder / "rates.json")
