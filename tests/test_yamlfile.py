"""A YAML file of any content is read in a moment: what it says, or one line that says what is wrong with it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from cgpt.files.yaml_file import MOST_BYTES, MOST_LEVELS, MOST_VALUES, read

ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)


def only_problem(path: Path) -> str:
    """The one problem of a file, which is one line."""
    file = read(path, path.parent)
    (problem,) = file.problems
    assert problem.isprintable() and not file.value
    return problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: " + b"[" * 1200 + b"]" * 1200, "is not valid YAML (exceeded maximum nesting depth)"),
        (b"a: " + b"[" * 900 + b"]" * 900, f"is nested more than {MOST_LEVELS} levels deep"),
        (b"".join(b" " * i + b"a:\n" for i in range(500)), f"is nested more than {MOST_LEVELS} levels deep"),
        (b"a: " + b"[" * 500_000, "is not valid YAML"),
        (ALIAS_BOMB.encode(), f"holds more than {MOST_VALUES:,} values, aliases written out"),
        (b"a: 1\n" + b"#" * MOST_BYTES, f"has more than {MOST_BYTES:,} bytes"),
        (b"a: caf\xe9\n", "is not UTF-8 text"),
        (b"\xff\xfea\x00:\x00", "is not UTF-8 text"),
        (b"a: \x00\n", "is not valid YAML"),
        (b"a: 1\n---\nb: 1\n", "is not valid YAML (but found another document)"),
        (b"a: *nothing\n", "is not valid YAML (found undefined alias)"),
        (b"%YAML 9.9\n---\na: 1\n", "is not valid YAML (found incompatible YAML document)"),
        (b"!!python/object/apply:os.system [id]\n", "holds no mapping"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_no_file_of_ours_looks_like_is_refused_at_once(tmp_path, content, expected):
    (tmp_path / "x.yaml").write_bytes(content)
    assert expected in only_problem(tmp_path / "x.yaml")


def test_a_pipe_a_device_a_folder_and_a_missing_file_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    problem = {name: only_problem(tmp_path / f"{name}.yaml") for name in ("pipe", "folder", "device", "gone", "loop")}
    assert all(
        "is no plain file but a folder, a pipe or a device" in problem[name] for name in ("pipe", "folder", "device")
    )
    assert "No such file or directory" in problem["gone"] and "symbolic links" in problem["loop"]


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(tmp_path / "x.yaml", tmp_path).value == {"a": 1}


def test_a_thousand_damaged_files_end_in_values_or_in_lines(tmp_path):
    good = (Path(__file__).parent.parent / "workflows/experiments/devices.yaml").read_text()
    pieces = ["!!binary aGk=", ".inf", "-.nan", "1e400", "0o17", "1:30", "<<: {a: 1}", "&a [*a]", "!!set {a, b}", "\0",
              "? [a]\n: b", '"\\ud83d"', "\t", "--- a", "*x", "{", "[", "- - -", "|", "2026-01-01", "\x1b[31m",
              "9" * 500, "\ufeff", "\u2028", "!foo"]  # fmt: skip
    draw = random.Random(0)
    for _ in range(1000):
        at, width = draw.randrange(len(good)), draw.choice([0, 0, 5, 50])
        text = good[:at] + draw.choice(pieces) + good[at + width :]
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8", errors="replace")
        file = read(tmp_path / "x.yaml", tmp_path)
        assert isinstance(file.value, dict) and all("object at 0x" not in line for line in file.problems)
