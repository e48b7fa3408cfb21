"""Names and texts from users in Markdown, HTML and CSV: shown as they stand, wherever they come from."""

from __future__ import annotations

import csv
import io

import pytest

from cgpt.files.csv_file import write_csv
from cgpt.report.page import Cell, Page, Table, html, markdown

NASTY = [
    "a|b", "<script>x</script>", "&lt;b&gt;", "two\nlines", "*stars* and _lines_", "~~gone~~", "[a](b)", "c:\\|d",
    "Größe λ 表", "# head", "- item", "1. first", "> quoted", "`code`", "a\\*b", "snake_case_name", "2 < 3 & 4 > 1",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_a_text_is_shown_as_it_stands_in_every_part_of_a_page_of_markdown(text) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    page = Page(
        text, text, [(text, text)], [Table(text, [Cell(text)], [[Cell(text, text, strong=True)]], notes=[text])]
    )
    shown: list[str] = []
    for token in parser.parse(markdown(page)):
        if token.type == "inline":
            shown.append("".join(part.content for part in token.children))
            kinds = {part.type for part in token.children} - {
                "text",
                "code_inline",
                "strong_open",
                "strong_close",
                "text_special",
            }
            assert not kinds, (text, kinds)
    flat = " ".join(text.split()).replace("`", "")
    assert shown == [flat, flat, f"{flat}: {flat}", flat, flat, f"{flat} ({flat})", flat]


@pytest.mark.parametrize("text", NASTY)
def test_a_text_is_shown_as_it_stands_in_html(text) -> None:
    page = Page(text, text, [(text, text)], [Table(text, [Cell(text)], [[Cell(text, text)]], notes=[text])])
    content = html(page).replace("<br>", "").partition("<body>")[2]
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert content.count(escaped) == 10 and "<script" not in content


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd", "@sum", "\t=1", "\r=1"])
def test_a_text_in_csv_is_no_formula_of_a_spreadsheet(tmp_path, text) -> None:
    write_csv(tmp_path / "x.csv", ("a",), [{"a": text}])
    assert list(csv.reader(io.StringIO((tmp_path / "x.csv").read_bytes().decode(), newline="")))[1] == ["'" + text]


@pytest.mark.parametrize("value", [*NASTY, 'say "so"', -1.5, "-1.5", "+3", "a,b", None])
def test_any_other_value_in_csv_is_read_back_as_it_was(tmp_path, value) -> None:
    write_csv(tmp_path / "x.csv", ("a", "b"), [{"a": value, "b": 1}])
    wanted = "" if value is None else f"'{value}" if value == "- item" else str(value)
    assert list(csv.reader(io.StringIO((tmp_path / "x.csv").read_bytes().decode(), newline="")))[1] == [wanted, "1"]
