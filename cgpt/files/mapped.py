"""Files as memory: their pages come when they are read, and the system may take them back."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: of a cache line, and of the widest vector that a kernel loads


class PrivateMapping(mmap.mmap):
    """The bytes of a file. What is written to them stays with this process, and the file as it is."""


def map_file(path: Path) -> PrivateMapping:
    """A file's bytes, without reading them. Raises OSError, and ValueError for an empty file."""
    with path.open("rb") as file:
        return PrivateMapping(file.fileno(), 0, access=mmap.ACCESS_COPY)


def mapping_of(array: np.ndarray) -> PrivateMapping | None:
    """The mapping in whose pages an array lies; None where it is other memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base.obj if isinstance(base, memoryview) and isinstance(base.obj, PrivateMapping) else None


def release(array: np.ndarray) -> None:
    """Give the pages back in which an unwritten array is mapped; when it is read again, they come from the file."""
    mapping = mapping_of(array)
    if mapping is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = array.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    first, last = -(-begin // mmap.PAGESIZE), (begin + array.nbytes) // mmap.PAGESIZE
    if last > first:
        mapping.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)
