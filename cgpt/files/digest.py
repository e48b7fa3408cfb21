"""SHA-256 of files."""

import functools
import hashlib
from pathlib import Path

from cgpt.errors import UserError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, computed again only where it is another file or its size or time has changed.

    Raises UserError where there is no such file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; run its stage again") from None
    return _sha256(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, inode: int, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
