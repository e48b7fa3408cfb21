"""Files that a person writes or downloads, read within bounds: plain files of UTF-8 text, of a size that text has."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20  # of a JSON or CSV file; YAML has a smaller bound of its own


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text of a plain file without a byte order mark.

    Raises OSError where it cannot be read, and ValueError, with one line, where it is a folder, a pipe or a device, is
    larger than `most_bytes` or is no UTF-8.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would block for ever
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is no plain file but a folder, a pipe or a device")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise ValueError(f"has more than {most_bytes:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """What a JSON file says. Raises OSError and ValueError, as `read_text`, and ValueError where it is no JSON."""
    return parse_json(read_text(path, most_bytes))


def parse_json(text: str | bytes) -> Any:
    """What JSON text says. Raises ValueError where it is none, or is nested so deep that Python's reader gives up."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deep") from None
