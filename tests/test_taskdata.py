"""Files of tasks: every form that the `datasets` library reads gives the rows that it gives, or one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from cgpt.data.task_rows import read_split
from cgpt.errors import UserError

ROWS = [{"question": "a café, 川?", "n": 3}, {"question": 'say "hi"', "n": 4}, {"question": "x\u2028y", "n": 5}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = "question,n\none,1\ntwo,2\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "toy").mkdir()
    return tmp_path


def write(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / "toy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def task(data_files, kind: str = "json", **options) -> dict:
    return {"task": "toy", "data": "toy", "dataset_path": kind,
            "dataset_kwargs": {"data_files": data_files, **options}}  # fmt: skip


def rows(folder: Path, data_files="test.jsonl", kind: str = "json", split: str = "train", **options) -> list[dict]:
    return read_split(task(data_files, kind, **options), folder, split, "toy.yaml")


def problem(folder: Path, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        rows(folder, *arguments, **options)
    (line,) = caught.value.problems
    assert "\n" not in line and line.startswith("toy.yaml: ")
    return line


def theirs(folder: Path, data_files, kind: str = "json", split: str = "train", **options) -> list[dict]:
    """The rows that the `datasets` library gives for the same files."""
    import datasets

    def absolute(names):
        return [absolute(name) for name in names] if isinstance(names, list) else str(folder / "toy" / names)

    files = ({key: absolute(names) for key, names in data_files.items()} if isinstance(data_files, dict)
             else absolute(data_files))  # fmt: skip
    cache = str(folder / "cache")
    return datasets.load_dataset(kind, data_files=files, split=split, cache_dir=cache, **options).to_list()


@pytest.mark.parametrize("data_files, split", [
    ("a.jsonl", "train"), (["a.jsonl", "b.jsonl"], "train"), ("*.jsonl", "train"), ({"test": "[ab].jsonl"}, "test"),
    ({"train": "a.jsonl", "dev": ["b.jsonl", "deep/**/*.jsonl"]}, "dev"),
])  # fmt: skip
def test_files_are_named_as_for_the_datasets_library(folder, data_files, split):
    for name in ("b.jsonl", "a.jsonl", "deep/er/c.jsonl", ".hidden.jsonl"):
        write(folder, name, f'{{"at": "{name}"}}\n')
    ours = rows(folder, data_files, split=split)
    assert ours == theirs(folder, data_files, split=split) and ours


def test_splits_are_named_by_a_list_of_split_and_path(folder):
    write(folder, "a.jsonl", LINES)
    assert rows(folder, [{"split": "test", "path": "a.jsonl"}], split="test") == ROWS
    assert "an entry is not {split: <name>, path: <file>}" in problem(folder, [{"path": "a.jsonl"}])


def test_one_file_alone_is_the_split_train_and_another_split_says_so(folder):
    write(folder, "test.jsonl", LINES)
    assert rows(folder) == ROWS
    assert "has no split 'test'; files without a split are 'train'" in problem(folder, split="test")


ARRAY = json.dumps([{"q": "one", "n": 1}, {"q": "two", "n": 2}], indent=1)


@pytest.mark.parametrize("content, options", [
    (LINES, {}), ("\ufeff" + LINES, {}), (LINES.replace("\n", "\r\n"), {}), ("\n\n" + LINES + "\n", {}),
    (ARRAY, {}), ("\ufeff" + ARRAY, {}), ('["one", "two"]', {}), (f'{{"data": {ARRAY}}}', {"field": "data"}),
    (LINES.encode("utf-16"), {"encoding": "utf-16"}),
])  # fmt: skip
def test_every_form_of_json_gives_the_rows_of_the_datasets_library(folder, content, options):
    write(folder, "test.json", content)
    ours = rows(folder, "test.json", **options)
    assert ours == (ROWS if options.get("encoding") else theirs(folder, "test.json", **options)) and len(ours) > 1


@pytest.mark.parametrize("content, options", [
    (CSV, {}), ("\ufeff" + CSV, {}), (CSV.replace("\n", "\r\n"), {}), (CSV.replace(",", ";"), {"sep": ";"}),
    (CSV.replace(",", "\t"), {"delimiter": "\t"}), ("one,1\ntwo,2\n", {"names": ["question", "n"]}),
    ("one,1\ntwo,2\n", {"column_names": ["question", "n"], "header": None}), ("# no\n" + CSV, {"skiprows": 1}),
    ('question,n\n"two\nlines, and ""quotes""",1\n', {}), ("question,n\n\nw,9\n", {}),
    ("question,n\n'a,b',1\n", {"quotechar": "'"}), (CSV, {"nrows": 1}), (CSV, {"usecols": ["n"]}),
])  # fmt: skip
def test_every_option_of_csv_gives_the_rows_of_the_datasets_library(folder, content, options):
    write(folder, "test.csv", content)
    ours = rows(folder, "test.csv", "csv", **options)
    assert ours == theirs(folder, "test.csv", "csv", **options) and ours


@pytest.mark.parametrize("pack, ending", [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (lzma.compress, ".xz")])
def test_packed_files_are_unpacked(folder, pack, ending):
    write(folder, f"test.jsonl{ending}", pack(LINES.encode()))
    assert rows(folder, f"test.jsonl{ending}") == ROWS


def test_the_packed_name_of_a_fetched_file_means_the_unpacked_one(folder):
    write(folder, "test.jsonl", LINES)
    assert rows(folder, "test.jsonl.gz") == ROWS


def test_parquet_is_read(folder):
    import pandas

    pandas.DataFrame(ROWS).to_parquet(folder / "toy" / "test.parquet")
    assert rows(folder, "test.parquet", "parquet") == ROWS
    write(folder, "bad.parquet", "no")
    assert "is not Parquet" in problem(folder, "bad.parquet", "parquet")


@pytest.mark.parametrize("by, expected", [
    ("line", ["a", "b", "c"]), ("paragraph", ["a\nb", "c\n"]), ("document", ["a\nb\n\nc\n"]),
])  # fmt: skip
def test_text_is_read_by_line_paragraph_or_document(folder, by, expected):
    write(folder, "test.txt", "\ufeffa\r\nb\r\n\r\nc\r\n")
    assert [row["text"] for row in rows(folder, "test.txt", "text", sample_by=by)] == expected


def test_half_a_character_that_an_escape_left_alone_is_replaced_and_counted(folder, capsys):
    pair = json.dumps("\U0001f600")
    write(folder, "test.jsonl", f'{{"q": "a\\ud83d b", "deep": [{{"k\\uDE00": {pair}}}]}}\n')
    assert rows(folder) == [{"q": "a\ufffd b", "deep": [{"k\ufffd": "\U0001f600"}]}]
    assert "toy.yaml: test.jsonl: 2 lone surrogates" in capsys.readouterr().err


@pytest.mark.parametrize("content, expected", [
    (LINES.encode("latin-1", "replace"), "test.jsonl: line 1: is not utf-8 text"),
    (LINES + '{"q": NaN}\n', "test.jsonl: line 4: NaN is not JSON, write null or text"),
    (LINES + '{"q": 1e999}\n', "test.jsonl: line 4: 1e999 is larger than a number can be"),
    (LINES + "[1]\n", "test.jsonl: line 4: is not an object; write one JSON object per line"),
    (LINES + '{"q": \n', "test.jsonl: line 4: Expecting value"),
    ("[1, 2]", "test.jsonl: entry 1: is not an object"),
    ('{\n "q": 1\n}\n', "test.jsonl: line 1: Expecting property name"),
    ("[" * 100_000, "test.jsonl: is nested too deeply"),
    (gzip.compress(LINES.encode(), mtime=0)[:40], "test.jsonl: cannot be unpacked"),
    ("", "split 'train' holds no documents"),
])  # fmt: skip
def test_what_cannot_be_read_is_one_line_with_the_file_and_the_line(folder, content, expected):
    write(folder, "test.jsonl", content)
    assert expected in problem(folder)


def test_an_option_that_a_format_does_not_have_is_refused(folder):
    write(folder, "test.jsonl", LINES)
    assert "dataset_kwargs.feild: is no option of this format; did you mean 'field'?" in problem(folder, feild="x")
    assert rows(folder, trust_remote_code=True, data_dir=".") == ROWS
    write(folder, "test.csv", CSV)
    assert "check dataset_kwargs" in problem(folder, "test.csv", "csv", seperator=";")
    assert "dataset_kwargs.encoding: 'utf-9'" in problem(folder, encoding="utf-9")
    assert "dataset_kwargs.field: ['a'] is no key" in problem(folder, field=["a"])
    assert "dataset_kwargs.iterator: gives no rows" in problem(folder, "test.csv", "csv", iterator=True)


def test_lines_with_more_cells_than_the_header_are_refused(folder):
    write(folder, "test.csv", "question,n\none,1,2\n")
    assert "more cells than its header" in problem(folder, "test.csv", "csv")


def test_a_missing_file_is_named_with_the_nearest_one(folder):
    write(folder, "test.jsonl", LINES)
    assert "data set 'toy' has no file 'tset.jsonl'; did you mean 'test.jsonl'?" in problem(folder, "tset.jsonl")
    assert "has no file '*.csv'" in problem(folder, "*.csv")
    assert "names no file" in problem(folder, "x" * 5000) and "names no file" in problem(folder, "**bad/*.js")
    assert "'../toy/test.jsonl' is no file of data set 'toy'" in problem(folder, "../toy/test.jsonl")


def test_a_slice_beyond_the_documents_that_there_are_is_refused(folder):
    write(folder, "test.jsonl", LINES)
    assert [row["n"] for row in rows(folder, split="train[1:]")] == [4, 5]
    assert [row["n"] for row in rows(folder, split="train[:50%]")] == [3, 4]  # as `datasets`: to the nearest
    assert theirs(folder, "test.jsonl", split="train[:50%]") == ROWS[:2]
    assert "'train' has 3 documents" in problem(folder, split="train[:5]")


def test_files_without_a_data_set_are_of_the_studys_folder(folder, monkeypatch):
    write(folder, "test.jsonl", LINES)
    monkeypatch.chdir(folder)
    local = task("toy/test.jsonl")
    del local["data"]
    assert read_split(local, Path("elsewhere"), "train", "toy.yaml") == ROWS
    local["dataset_kwargs"]["data_files"] = "toy/tset.jsonl"
    with pytest.raises(
        UserError, match=r"the study's folder has no file 'toy/tset.jsonl', .*; did you mean 'test.jsonl'\?"
    ):
        read_split(local, Path("elsewhere"), "train", "toy.yaml")
