"""From text files to documents, a piece at a time, so that neither a file nor a document has to fit in memory.

A document is a run of text between two end-of-text tokens. It comes as pieces of 32 to 64 thousand characters, cut
only before a blank or a line end that follows a visible character. The GPT-2 splitting rule, with which byte-level BPE
begins, always starts a new word there, so the tokens of the pieces, joined, are exactly the tokens of the whole
document. (Where text goes on that long without a blank, it is cut anywhere.)
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from cgpt.errors import UserError, did_you_mean
from cgpt.files.encoding import decode, without_lone_surrogates

PIECE_CHARS = 32_768
KINDS = ("file", "line", "paragraph", "wikitext", "jsonl:text")  # or a separator
BY_LINES = ("line", "paragraph", "wikitext")
MISTAKEN = {"json": "jsonl:text", "jsonl": "jsonl:text", "text": "file", "wiki": "wikitext"}  # no separators of text
LINE = re.compile(r"[^\n]*\n|[^\n]+")
WIKITEXT_TITLE = re.compile(r" ?= (?!=).*(?<!=) = ?$")  # after a blank line; sections are ` = = Section = = `


class Piece(NamedTuple):
    """A part of a document: its text, whether the document ends with it, and whether it lies in the file's tail."""

    text: str
    ends_document: bool
    in_tail: bool


class Line(NamedTuple):
    """A line of a file: its number from 1, the byte that it begins at, and its text with the line end."""

    number: int
    start: int
    text: str


@dataclass
class Met:
    """Counts of what is unusual, over several files."""

    n_separators: int = 0
    n_replaced: int = 0  # halves of characters, which U+FFFD stands for now
    n_end_of_text: int = 0  # spellings of the end-of-text token, which are text


def is_separator(documents: str) -> bool:
    """Whether `documents` is a text that stands between documents, and no kind by name."""
    return documents not in KINDS and not documents.startswith("jsonl:")


def wrong_kind(documents: str) -> str | None:
    """The problem of `documents` that can be no separator, as they are empty or a word meant for a kind; else None."""
    word = documents.lower()
    meant = MISTAKEN.get(word) or next(iter(get_close_matches(word, KINDS, n=1, cutoff=0.75)), None)
    if documents and not (is_separator(documents) and documents.isidentifier() and meant):
        return None
    hint = f"; did you mean '{meant}'?" if meant else ""
    return (
        f"'{documents}' is no known way; write one of {', '.join(KINDS)}, or the text that stands between documents"
        + hint
    )


def check_separator(documents: str, met: Met, where: str) -> None:
    """Raise UserError where files were read to their end and a separator never occurred."""
    if is_separator(documents) and met.n_separators == 0:
        raise UserError(
            f"{where}: documents: '{documents}' never occurs in its files; write the text that stands between "
            f"documents there, or one of {', '.join(KINDS)}"
        )


def pieces(
    path: Path, documents: str, tail: float, progress: Callable[[int], object], met: Met | None = None
) -> Iterator[Piece]:
    """Read a file's documents, which `documents` tells apart (see cgpt.spec.Dataset), as pieces in their order.

    White space at a document's end and blank lines at its start are left out, and so are empty documents. With
    documents `file`, the last `tail` of the bytes is a document of its own. `progress` is called with the number of
    bytes just read, and `met` counts. A line must fit in memory. Raises UserError for binary files and broken JSON
    lines.
    """
    text, visible, started = "", False, False
    for fragment, in_tail in _fragments(path, documents, tail, progress, met or Met()):
        ended = fragment is None
        if fragment is not None:
            text += fragment
            if not visible:
                text = _without_blank_lines(text)
                visible = bool(text) and not text.isspace()
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
            text, visible, started = "", False, False


def _without_blank_lines(text: str) -> str:
    """The text from the line on that has its first visible character, or the last line where all are blank."""
    n_blanks = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, n_blanks) + 1 :]


def _cut(text: str, first: int, last: int) -> int:
    """The last index in [first, last) where a line end, else a blank, follows a visible character."""
    for mark in "\n ":
        at = text.rfind(mark, first, last)
        while at > 0 and text[at - 1].isspace():
            at = text.rfind(mark, first, at)
        if at > 0:
            return at
    return last


def _fragments(
    path: Path, documents: str, tail: float, progress: Callable[[int], object], met: Met
) -> Iterator[tuple[str | None, bool]]:
    """Yield (text, in tail) in order, with None as text where a document ends."""
    lines = _lines(path, progress)
    if documents == "file":
        yield from _whole(lines, path.stat().st_size * (1 - tail) if tail else None)
        return
    if documents in BY_LINES:
        texts = _by_lines(lines, documents)
    elif documents.startswith("jsonl:"):
        texts = _json_fields(lines, documents.removeprefix("jsonl:"), path, met)
    else:
        texts = _between(lines, documents, met)
    for text in texts:
        yield text, False


def _whole(lines: Iterable[Line], tail_start: float | None) -> Iterator[tuple[str | None, bool]]:
    """The file as one document, or as two, of which the second begins at or after the byte `tail_start`."""
    in_tail = False
    for line in lines:
        if tail_start is not None and not in_tail and line.start >= tail_start:
            yield None, False
            in_tail = True
        yield line.text, in_tail
    yield None, in_tail


def _by_lines(lines: Iterable[Line], documents: str) -> Iterator[str | None]:
    after_blank = True
    for raw in lines:
        for line in LINE.findall(raw.text):
            if documents == "paragraph":
                yield line if line.strip() else None
                continue
            if documents == "wikitext" and after_blank and WIKITEXT_TITLE.match(line):
                yield None
            yield line
            if documents == "line":
                yield None
            after_blank = not line.strip()
    yield None


def _json_fields(lines: Iterable[Line], field: str, path: Path, met: Met) -> Iterator[str | None]:
    for line in lines:
        if line.text.strip():
            text, n_replaced = without_lone_surrogates(_json_field(line.text, field, f"{path}: line {line.number}"))
            met.n_replaced += n_replaced
            yield text
            yield None


def _between(lines: Iterable[Line], separator: str, met: Met) -> Iterator[str | None]:
    """Texts between separators, which may lie anywhere in a line and over several lines."""
    rest, separator = "", separator.replace("\r\n", "\n").replace("\r", "\n")  # as lines have them
    for line in lines:
        *texts, rest = (rest + line.text).split(separator)
        for text in texts:
            met.n_separators += 1
            yield text
            yield None
        sure = len(rest) - len(separator) + 1  # what follows may be the beginning of a separator
        if sure > 0:
            yield rest[:sure]
            rest = rest[sure:]
    yield rest
    yield None


def _json_field(line: str, field: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON ({error}); write one object per line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: is no JSON object; write one object per line, without a list around them")
    if not isinstance(row.get(field), str):
        known = [key for key, value in row.items() if isinstance(value, str)]
        raise UserError(f"{where}: has no text field '{field}'; {did_you_mean(field, known)}")
    return row[field]


def _lines(path: Path, progress: Callable[[int], object]) -> Iterator[Line]:
    """The lines of UTF-8 text; where a line end is a lone carriage return, several of them come as one."""
    start = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            text = decode(raw, str(path), start, "convert the file to UTF-8, or leave it out of the corpus")
            yield Line(number, start, text)
            start += len(raw)
            progress(len(raw))
