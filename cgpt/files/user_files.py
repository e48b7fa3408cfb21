"""Files that a person writes or downloads, read within bounds: plain files of UTF-8 text, of a size that text has."""

import os
import stat
from pathlib import Path

MOST_BYTES = 64 << 20  # of a CSV file; JSON and YAML have bounds of their own


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
