"""From text files to documents, a piece at a time, so that neither a file nor a document has to fit in memory.

A document is a run of text between two end-of-text tokens. It comes as pieces of 32 to 64 thousand characters, cut
only before a blank or a line end that follows a visible character. The GPT-2 splitting rule, with which byte-level BPE
begins, always starts a new word there, so the tokens of the pieces, joined, are exactly the tokens of the whole
document. (Where text goes on that long without a blank, it is cut anywhere.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cgpt.errors import UserError, did_you_mean

PIECE_CHARS = 32_768
KINDS = ("file", "line", "paragraph", "wikitext", "jsonl:text")  # or a separator line
WIKITEXT_TITLE = re.compile(r" ?= (?!=).*(?<!=) = ?$")  # after a blank line; sections are ` = = Section = = `


class Piece(NamedTuple):
    """A part of a document: its text, whether the document ends with it, and whether it lies in the file's tail."""

    text: str
    ends_document: bool
    in_tail: bool


def pieces(path: Path, documents: str, tail: float, progress: Callable[[int], object]) -> Iterator[Piece]:
    """Read a file's documents, which `documents` tells apart (see cgpt.spec.Dataset), as pieces in their order.

    White space at a document's end and blank lines at its start are left out, and so are empty documents. With
    documents `file`, the last `tail` of the bytes is a document of its own. `progress` is called with the number of
    bytes just read. A line must fit in memory. Raises UserError for binary files and broken JSON lines.
    """
    text, started = "", False
    for fragment, in_tail in _fragments(path, documents, tail, progress):
        ended = fragment is None
        if fragment is not None:
            if not text and not started:
                fragment = fragment.lstrip("\r\n") if fragment.strip() else ""
            text += fragment
        else:
            text = text.rstrip()
        begin = 0
        while len(text) - begin >= 2 * PIECE_CHARS:
            end = _cut(text, begin + PIECE_CHARS, begin + 2 * PIECE_CHARS)
            yield Piece(text[begin:end], False, in_tail)
            begin, started = end, True
        text = text[begin:]
        if ended:
            if text or started:
                yield Piece(text, True, in_tail)
            text, started = "", False


def _cut(text: str, first: int, last: int) -> int:
    """Return the last place in [first, last) where a line end, else a blank, follows a visible character."""
    for mark in "\n ":
        place = text.rfind(mark, first, last)
        while place > 0 and text[place - 1].isspace():
            place = text.rfind(mark, first, place)
        if place > 0:
            return place
    return last


def _fragments(
    path: Path, documents: str, tail: float, progress: Callable[[int], object]
) -> Iterator[tuple[str | None, bool]]:
    """Yield (text, in tail) in order, with None as text where a document ends."""
    tail_start = path.stat().st_size * (1 - tail)
    in_tail = found_separator = False
    after_blank = True
    for number, start, line in _lines(path, progress):
        if documents == "file":
            if tail and not in_tail and start >= tail_start:
                yield None, False
                in_tail = True
            yield line, in_tail
        elif documents == "line":
            yield line, False
            yield None, False
        elif documents == "paragraph":
            yield (line if line.strip() else None), False
        elif documents == "wikitext":
            if after_blank and WIKITEXT_TITLE.match(line):
                yield None, False
            yield line, False
            after_blank = not line.strip()
        elif documents.startswith("jsonl:"):
            if line.strip():
                yield _json_field(line, documents.removeprefix("jsonl:"), f"{path}: line {number}"), False
                yield None, False
        else:
            separates = line.strip() == documents
            found_separator |= separates
            yield (None if separates else line), False
    yield None, in_tail
    if documents.isidentifier() and documents not in KINDS and not found_separator:
        raise UserError(
            f"workflows/data.yaml: documents: '{documents}' is no known way, and {path} has no such line; "
            f"write a separator line or one of {', '.join(KINDS)} ({did_you_mean(documents, KINDS)})"
        )


def _json_field(line: str, field: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: is not JSON ({error}); write one object per line") from None
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        known = [key for key, value in row.items() if isinstance(value, str)] if isinstance(row, dict) else []
        raise UserError(f"{where}: has no text field '{field}'; {did_you_mean(field, known)}")
    return row[field]


def _lines(path: Path, progress: Callable[[int], object]) -> Iterator[tuple[int, int, str]]:
    """Yield (number, byte offset, text with its line end), refusing what is not UTF-8 text."""
    start = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if start == 0 else "utf-8")
                bad = raw.find(b"\0")
            except UnicodeDecodeError as error:
                line, bad = "", error.start
            if bad >= 0:
                raise UserError(
                    f"{path}: byte {start + bad}: is not UTF-8 text (0x{raw[bad]:02x}); convert the file to UTF-8, "
                    "or leave it out of the corpus"
                )
            yield number, start, line
            start += len(raw)
            progress(len(raw))
