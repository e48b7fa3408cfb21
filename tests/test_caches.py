"""What can be made again is kept where it can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgpt.errors import UserError
from cgpt.files import cache


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch) -> Path:
    """An empty study, and no folder named by the environment."""
    for name in (cache.CACHE, "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    cache._in_study.cache_clear()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


def test_the_usual_folder_is_in_the_home(tmp_path, monkeypatch):
    assert cache.cache_folder() == tmp_path / "home/.cache/cgpt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg/cgpt"
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "own"))
    assert cache.cache_folder() == tmp_path / "own" and (tmp_path / "own").is_dir()


@pytest.mark.parametrize("home", ["/dev/null", "/proc/nowhere"])
def test_where_the_home_cannot_be_written_it_is_in_the_study_and_said_once(study, monkeypatch, capsys, home):
    monkeypatch.setenv("HOME", home)
    assert cache.cache_folder() == cache.cache_folder() == study / "results/cache"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cache: {home}/.cache/cgpt cannot be written (") and "CGPT_CACHE" in line


def test_a_folder_that_is_named_is_used_or_refused(monkeypatch):
    monkeypatch.setenv(cache.CACHE, "/dev/null/cache")
    with pytest.raises(UserError, match="environment: CGPT_CACHE: /dev/null/cache cannot be written"):
        cache.cache_folder()


def test_where_nothing_can_be_written_it_is_one_line(study, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    (study / "results").write_text("")
    with pytest.raises(UserError, match="cache: neither /dev/null/.cache/cgpt") as caught:
        cache.cache_folder()
    assert len(caught.value.problems) == 1


def test_matplotlib_keeps_its_fonts_with_the_rest(tmp_path, monkeypatch):
    import os

    cache.prepare_matplotlib()
    assert os.environ.pop("MPLCONFIGDIR") == str(tmp_path / "home/.cache/cgpt/matplotlib")
