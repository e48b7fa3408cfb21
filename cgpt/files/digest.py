"""SHA-256 of files."""

import functools
import hashlib
from pathlib import Path

from cgpt.errors import UserError
from cgpt.files.cache import cache_folder
from cgpt.files.whole import write_whole

LARGE_BYTES = 1 << 24  # takes a moment to read; its hash is kept for the processes to come


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


def sha256_kept(path: Path) -> str:
    """SHA-256 of a file's bytes; of a large one from the cache folder, until its size or time has changed.

    Raises UserError where there is no such file.
    """
    status = path.stat() if path.is_file() else None
    if status is None or status.st_size < LARGE_BYTES:
        return sha256_of(path)
    seen = f"{path.resolve()} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    kept = cache_folder() / "sha256" / hashlib.sha256(seen.encode()).hexdigest()
    if not kept.is_file():
        write_whole(kept, sha256_of(path).encode())
    return kept.read_text()
