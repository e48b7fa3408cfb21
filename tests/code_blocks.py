"""The code blocks of a documentation page, in order and in one folder: what a page says is what happens.

A block's language says what is done with it:

- any language with a title, as ```yaml title="workflows/tasks/mine.yaml", is written to that file, whole
- ```bash is run (`bash -euo pipefail`), ```python too, each a program of its own; one that fails fails the page, and
  the next block is in the folder that a `cd` went to
- ```console right below a block that was run is its standard output, letter for letter; `...` stands for anything,
  with the blanks around it
- ```output is the same, for what another machine computes otherwise: numbers, their flags and blanks may be others
- ```text and the other languages of SHOWN are read by people alone
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}
COMPARED = ("console", "output")
SHOWN = ("text", "yaml", "json", "csv", "toml", "c", "mermaid", "bibtex", "makefile")
FENCE = re.compile(r'^(?P<indent> *)(?P<ticks>```+) *(?P<language>[\w+-]*)(?: +title="(?P<title>[^"]*)")?(?P<rest>.*)$')
NUMBER = re.compile(r"(?:(?<!\w)[-+~−])?\d+(?:[.,_]\d+)*(?:e[+-]?\d+)?")  # with its sign, but not a name's dash
TIMEOUT_S = 600


@dataclass(frozen=True)
class Block:
    """A fenced block: line of its opening fence (from 1), language, title, text; whether it follows a block at once."""

    line: int
    language: str
    title: str | None
    text: str
    follows: bool


class PageError(Exception):
    """A block that does not do what its page says; the message begins with the page and the line."""


def read_blocks(text: str) -> list[Block]:
    """All fenced blocks of a page. Raises ValueError for a fence that is not closed or is no fence of ours."""
    blocks, lines, at, follows = [], text.splitlines(), 0, False
    while at < len(lines):
        opening = FENCE.match(lines[at])
        if not opening:
            follows = follows and not lines[at].strip()
            at += 1
            continue
        if opening["rest"].strip():
            raise ValueError(f'line {at + 1}: {opening["rest"].strip()!r} after the language; only title="..." is read')
        closing = opening["indent"] + opening["ticks"]
        end = next((n for n in range(at + 1, len(lines)) if lines[n].rstrip() == closing), None)
        if end is None:
            raise ValueError(f"line {at + 1}: the block is not closed")
        inside = [line.removeprefix(opening["indent"]) for line in lines[at + 1 : end]]
        text = "".join(f"{line}\n" for line in inside)
        blocks.append(Block(at + 1, opening["language"], opening["title"], text, follows))
        at, follows = end + 1, True
    return blocks


def check_blocks(blocks: list[Block]) -> list[str]:
    """What is wrong with a page's blocks before any is run, one line each."""
    problems, above = [], None
    for block in blocks:
        if block.language not in (*RUN, *COMPARED, *SHOWN):
            known = ", ".join((*RUN, *COMPARED, *SHOWN))
            problems.append(f"line {block.line}: language {block.language!r}; write one of {known}")
        if block.title is not None and not _inside(block.title):
            problems.append(f"line {block.line}: title {block.title!r} is no file in the reader's folder")
        ran = above is not None and above.language in RUN and above.title is None
        if block.language in COMPARED and not (block.follows and ran):
            problems.append(f"line {block.line}: {block.language} does not stand right below a block that is run")
        above = block
    return problems


def run_page(page: str, text: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Do what a page says in a folder; raises PageError at the first block that fails or says something else."""
    printed = ""
    for block in read_blocks(text):
        where = f"{page}:{block.line}"
        if block.title is not None:
            file = folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.language in RUN:
            printed, folder = _run(where, block, folder, environment)
        elif block.language in COMPARED and not agrees(block.text, printed, block.language):
            raise PageError(f"{where}: the page says\n\n{block.text}\nand the command printed\n\n{printed}")


def agrees(expected: str, printed: str, language: str) -> bool:
    """Whether a page's console or output block is what was printed."""
    expected, printed = (_plain(text, language) for text in (expected, printed))
    pattern = ".*".join(re.escape(part.strip(" ")) for part in expected.split("..."))
    return re.fullmatch(pattern, printed, flags=re.DOTALL) is not None


def _plain(text: str, language: str) -> str:
    """A text without blanks at line ends and empty lines around it; of an output also without numbers, widths and
    flags, which stand at numbers."""
    text = "\n".join(line.rstrip() for line in text.strip().splitlines())
    if language != "output":
        return text
    return re.sub(r"[ \t]+", " ", NUMBER.sub("#", re.sub(r"-{2,}", "--", text.replace(" †", ""))))


def _inside(title: str) -> bool:
    """Whether a title is a relative path that stays in its folder."""
    path = Path(title)
    return bool(title) and not path.is_absolute() and ".." not in path.parts


def _run(where: str, block: Block, folder: Path, environment: Mapping[str, str]) -> tuple[str, Path]:
    """Standard output of a block that must succeed, and the folder it ends in; nothing that it started outlives it."""
    with tempfile.NamedTemporaryFile("r") as end_folder:
        going = f"trap 'pwd >{end_folder.name}' EXIT\n" if block.language == "bash" else ""
        with subprocess.Popen([*RUN[block.language], going + block.text], cwd=folder, env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as process:  # fmt: skip
            try:
                printed, errors = process.communicate(timeout=TIMEOUT_S)
                ending = f"exit code {process.returncode}"
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                printed, errors = process.communicate()
                ending = f"not done after {TIMEOUT_S} s"
        if process.returncode != 0:
            raise PageError(f"{where}: {ending}\n\n{block.text}\n{printed[-4000:]}{errors[-8000:]}")
        return printed, Path(end_folder.read().rstrip("\n") or folder)
