"""Fixtures of several test files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
