"""The readers of JSON objects, of tables and of records: what is wrong is one line, and what is right is exact."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cgpt.errors import UserError
from cgpt.files.csv_file import read_csv, read_numbers, write_csv
from cgpt.files.digest import sha256_of
from cgpt.files.json_object import read_object
from cgpt.files.typed import fill
from cgpt.scaling import published


@dataclass(frozen=True)
class Thing:
    name: str
    size: int
    share: float | None
    whole: bool = True


@pytest.mark.parametrize("text, problem", [
    ('{"a": 1', "is not JSON (Expecting ',' delimiter: line 1 column 8 (char 7)); mend it"),
    ("[1]", "holds list, no JSON object; mend it"),
    ("[" * 100_000, "is not JSON (is nested too deep); mend it"),
    (b"\xff{}", "is not UTF-8 text; mend it"),
    (None, "is missing; write it"),
])  # fmt: skip
def test_what_is_no_json_object_is_one_line_that_says_why(tmp_path, text, problem):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_object(path, "mend it", "write it")
    assert caught.value.problems == (f"{path}: {problem}",)


def test_an_object_is_read_with_or_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + '{"é": [1.5]}'.encode())
    assert read_object(tmp_path / "a.json") == {"é": [1.5]}


def test_every_problem_of_a_record_is_a_line(tmp_path):
    with pytest.raises(UserError) as caught:
        fill(Thing, {"name": 1, "size": True, "shar": 0.5, "whole": 1}, "a.json")
    assert caught.value.problems == (
        "a.json: share: is missing; every result has this key",
        "a.json: name: 1 does not fit; expected str",
        "a.json: size: True does not fit; expected int",
        "a.json: shar: is not a key of Thing; did you mean 'share'?",
        "a.json: whole: 1 does not fit; expected bool",
    )
    with pytest.raises(UserError, match="a.json: share: inf does not fit"):
        fill(Thing, {"name": "x", "size": 1, "share": float("inf")}, "a.json")
    with pytest.raises(UserError, match="a.json: size: 1000.* does not fit"):
        fill(Thing, {"name": "x", "size": 10**400, "share": 0.5}, "a.json")
    assert fill(Thing, {"name": "x", "size": 1, "share": 2}, "a.json") == Thing("x", 1, 2)


def test_numbers_of_a_table_come_back_with_every_bit(tmp_path):
    rows = [{"name": '=a, "b"\n', "x": value} for value in (0.1, 1e-308, 2 / 3, 1.7976931348623157e308, 5e-324, None)]
    write_csv(tmp_path / "a.csv", ("name", "x"), rows)
    read = read_numbers(tmp_path / "a.csv", ("name", "x"), ("name",))
    assert [row["x"] for row in read] == [row["x"] for row in rows]
    assert {row["name"] for row in read} == {'\'=a, "b"\n'}


@pytest.mark.parametrize("text, problem", [
    ("a,b\n1,2\n3\n", "row 3 has too few or too many cells"),
    ("a,b\n1,2,3\n", "row 2 has too few or too many cells"),
    ("a\n1\n", "has no column b"),
    ("a,b,c\n1,2,3\n", "has the column c, which is not known"),
    ('a,b\n"1"x,2\n', "is no CSV"),
    ("", "has no column a, b"),
])  # fmt: skip
def test_a_table_of_another_form_is_refused(tmp_path, text, problem):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_csv(tmp_path / "a.csv", ("a", "b"))


def test_a_file_is_hashed_again_where_it_was_replaced_or_written_to(tmp_path):
    path = tmp_path / "a"
    hashes = []
    for content in (b"one", b"three"):
        path.write_bytes(content)
        hashes.append(sha256_of(path))
    (tmp_path / "b").write_bytes(b"other")
    (tmp_path / "b").replace(path)
    assert len({*hashes, sha256_of(path)}) == 3
    path.unlink()
    with pytest.raises(UserError, match="a: is missing; run its stage again"):
        sha256_of(path)


def test_help_and_plans_import_neither_numpy_nor_pandas_nor_scipy_nor_tinygrad():
    program = """
import sys
from cgpt.__main__ import main
for arguments in (["--help"], ["plan", "--help"], ["forecast", "--help"]):
    try:
        main(arguments)
    except SystemExit:
        pass
import cgpt.experiment.load, cgpt.experiment.plans, cgpt.files.csv_file, cgpt.records
print([name for name in ("numpy", "pandas", "scipy", "tinygrad", "torch") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("column, cell, problem", [
    ("n_layer", "", "invalid literal"), ("d_model", "7.5", "invalid literal"), ("tokens", "0", "row 2: tokens: 0.0"),
    ("flops", "nan", "row 2: flops: nan"), ("value", "abc", "could not convert"),
])  # fmt: skip
def test_a_damaged_number_of_a_published_row_is_one_line(tmp_path, column, cell, problem):
    reference = Path(__file__).parent.parent / "results/reference" / published.FAMILY
    header, row, *_ = csv.reader(reference.read_text().splitlines())
    row[header.index(column)] = cell
    (tmp_path / "a.csv").write_text(f"{','.join(header)}\n{','.join(row)}\n")
    with pytest.raises(UserError, match=f"a.csv: cannot be read .*{problem}.*; it comes with the project: restore it"):
        published.read(tmp_path / "a.csv")
