"""Files as memory: their pages come when they are read, and the system may take them back."""

import mmap
from pathlib import Path

ALIGNMENT = 64  # bytes: of a cache line, and of the widest vector that a kernel loads


class PrivateMapping(mmap.mmap):
    """The bytes of a file. What is written to them stays with this process, and the file as it is."""


def map_file(path: Path) -> PrivateMapping:
    """A file's bytes, without reading them. Raises OSError, and ValueError for an empty file."""
    with path.open("rb") as file:
        return PrivateMapping(file.fileno(), 0, access=mmap.ACCESS_COPY)
