"""A page of tables, as Markdown and as one self-contained HTML file."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape as escape_html
from itertools import groupby

from cgpt.report.visible import visible


@dataclass(frozen=True)
class Cell:
    """`note` is what belongs to the value but is not the value: in brackets, or small below it."""

    text: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """`rows` are as long as `header`. Where `in_groups`, rows with the same first cell follow each other and belong
    together: the cell's note is then told once. `notes` are sentences under the table."""

    title: str
    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    in_groups: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """`facts` are (word, explanation) pairs above the tables."""

    title: str
    question: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]


def table_of(title: str, header: Sequence[str | Cell], rows: Iterable[Sequence[str | Cell]], in_groups: bool = False
             ) -> Table:  # fmt: skip
    """A table of plain texts and cells; a row shorter than the header ends in empty cells."""
    cells = [[each if isinstance(each, Cell) else Cell(each) for each in (*row, *[""] * (len(header) - len(row)))]
             for row in (header, *rows)]  # fmt: skip
    return Table(title, cells[0], cells[1:], in_groups)


def markdown(page: Page) -> str:
    """The page as GitHub Markdown."""
    lines = [f"# {_plain(page.title)}", "", *([f"> {_plain(page.question)}", ""] if page.question else [])]
    lines += [f"- {_bold(word)}: {_plain(text)}" for word, text in page.facts]
    for table in page.tables:
        lines += ["", f"## {_plain(table.title)}", ""]
        lines += [_markdown_row(table.header), "|" + " --- |" * len(table.header)]
        for before, row in zip([None, *table.rows[:-1]], table.rows, strict=True):
            again = table.in_groups and before is not None and before[0] == row[0]
            lines.append(_markdown_row([Cell(row[0].text), *row[1:]] if again else row))
        lines += [line for sentence in table.notes for line in ("", _plain(sentence))]
    return "\n".join(lines) + "\n"


def html(page: Page) -> str:
    """The page as one HTML file: no script, nothing loaded from elsewhere, readable on a phone and on paper."""
    facts = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>\n" for word, text in page.facts)
    tables = "\n".join(f"<h2>{escape(table.title)}</h2>\n{html_table(table)}" for table in page.tables)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(page.title)}</h1>\n<p class=question>{escape(page.question)}</p>\n"
        f"{tables}\n<h2>How to read it</h2>\n<dl>\n{facts}</dl>\n</body>\n</html>\n"
    )


def _plain(text: str) -> str:
    """Text on one line that Markdown shows as it stands: no tag, no emphasis, no link, no cell's end, no heading."""
    one_line = " ".join(text.split())
    for mark, instead in _MARKS:
        one_line = re.sub(mark, instead, one_line)
    return one_line


def _bold(text: str) -> str:
    """Plain text in bold, which a star or an underscore at the end of a word must not close."""
    marked = re.sub(r"(?<=[^\\\s])[*_](?!\w)", r"\\\g<0>", _plain(text))
    return f"**{marked}**"


def _markdown_row(row: Sequence[Cell]) -> str:
    return "| " + " | ".join(map(_markdown_cell, row)) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = _bold(cell.text) if cell.strong else _plain(cell.text)
    return f"{text} ({_plain(cell.note)})" if cell.note else text


def escape(text: str) -> str:
    """Text as HTML that shows it as it stands, with signs for characters that cannot be seen."""
    return escape_html(visible(text))


def html_table(table: Table) -> str:
    """The table and its notes as HTML, in a box of its own that scrolls where the page is narrower."""
    skipped = 1 if table.in_groups else 0
    head = "".join(f"<th scope=col>{_html_cell(cell)}</th>" for cell in table.header[skipped:])
    groups = [(cell, list(rows)) for cell, rows in groupby(table.rows, key=lambda row: row[0] if skipped else None)]
    body = ""
    for cell, rows in groups:
        body += "<tbody>\n"
        if cell is not None:
            width = len(table.header) - 1
            body += f"<tr class=group><th scope=rowgroup colspan={width}><span>{_html_cell(cell)}</span></th></tr>\n"
        for first, *rest in (row[skipped:] for row in rows):
            values = "".join(
                f"<td{' class=long' if len(value.text) > 20 else ''}>{_html_cell(value)}</td>" for value in rest
            )
            body += f"<tr><th scope=row>{_html_cell(first)}</th>{values}</tr>\n"
        body += "</tbody>\n"
    table_html = f"<table>\n<thead><tr>{head}</tr></thead>\n{body}</table>"
    notes = "".join(f"\n<p class=note>{escape(sentence)}</p>" for sentence in table.notes)
    label = escape(table.title)
    return f'<div class=wide role=region aria-label="{label}" tabindex=0>\n{table_html}\n</div>{notes}'


def _html_cell(cell: Cell) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.strong else escape(cell.text)
    return text + (f"<small>{escape(cell.note)}</small>" if cell.note else "")


# What Markdown would take for more than text, and how to write it so that it does not.
_MARKS = (
    (r"\\(?=[!-/:-@\[-`{-~])", r"\\\\"), (r"&(?=#?\w+;)", "&amp;"), (r"<(?=[A-Za-z/!?])", "&lt;"), (r"\|", r"\\|"),
    (r"\]\(", r"]\\("),
    (r"\*(?=\w)|(?<!\w)_(?=\w)|~(?=~)|(?<=~)~", r"\\\g<0>"), (r"^(#{1,6}|[-+>])(?= |$)", r"\\\g<0>"),
    (r"^(\d+)([.)])(?= |$)", r"\1\\\2"),
)  # fmt: skip

_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 84rem; margin: 0 auto;
  padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 0.5rem; }
.question { font-size: 1.1rem; margin: 0; max-width: 45rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.6rem; text-align: right; vertical-align: top; white-space: nowrap; }
td.long { white-space: normal; min-width: 9rem; }
thead th { white-space: normal; vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
thead th { border-bottom: 2px solid #1a1a1a; }
tbody th { font-weight: normal; }
tbody tr { border-bottom: 1px solid #e2e2e2; }
tr.group th { font-weight: bold; background: #f3f3f3; }
tr.group span { position: sticky; left: 0.7rem; }
tr.group small { display: inline; margin-left: 0.6em; }
small { display: block; font-weight: normal; font-size: 0.8rem; color: #595959; }
.note { max-width: 45rem; font-size: 0.9rem; margin: 0.4rem 0; }
dl { max-width: 45rem; }
dt { font-weight: bold; }
dd { margin: 0 0 0.5rem; }
@media (max-width: 40rem) { th, td { padding: 0.3rem 0.5rem; font-size: 0.9rem; } }
@page { size: landscape; margin: 12mm; }
@media print { body { font-size: 10pt; max-width: none; padding: 0; } .wide { overflow: visible; }
  th:first-child { position: static; }
  th, td { padding: 0.15rem 0.3rem; font-size: 9pt; } tr { break-inside: avoid; } }
"""
