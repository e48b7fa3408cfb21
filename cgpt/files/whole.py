"""Files and folders that are there whole or not at all, and the lock that keeps a second process off a run."""

import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgpt.errors import UserError
from cgpt.host import is_alive

UNWRITABLE = (errno.EIO, errno.EFBIG, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP)
PART = re.compile(r"\.(?P<host>[^.]*)\.(?P<pid>\d+)\.[0-9a-f]{8}\.part")
HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())  # without dots, which part a temporary name's fields
WAIT_S = 0.1  # between two looks at a lock that another process holds


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name of its own beside it, then move it: what has the final name is whole.

    Both the file and its folder are on the disk when this returns. Raises UserError where they cannot be written.
    """
    with whole_file(path) as part:
        part.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which is moved to `path` at the end; nothing is left where that is not reached.

    Raises UserError where the disk is full or the folder cannot be written.
    """
    with writing(path.parent), _moved_whole(path) as part:
        yield part
        _sync(part)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill under a temporary name, which is moved to `path` at the end, so that no half one is ever there.

    Raises UserError where `path` holds something already, the disk is full or the folder cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: is there already and not empty; name a new folder")
    with writing(path), _moved_whole(path) as part:
        part.mkdir()
        yield part
        for inner in (*part.rglob("*"), part):
            _sync(inner)


@contextmanager
def _moved_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which at the end is moved there, or removed where that is not reached."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        yield part
        os.replace(part, path)
        _sync(path.parent)
    finally:
        _remove(part)


@contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which the system lets go of when this process ends, however it does.

    Raises UserError, or waits if told to, while another process holds it. Where the file system has no locks there is
    none.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _locked(file):
            if not wait:
                holder = path.read_text().strip() or "another process"
                raise UserError(f"{path.parent.name} {path.name}: {holder} is at it; wait until it ends, or end it")
            time.sleep(WAIT_S)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {HOST}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path`."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _locked(file)
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _part(path: Path) -> Path:
    """A temporary name beside `path` that no other process has; what ended processes left of theirs is removed."""
    for other in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        named = PART.fullmatch(other.name.removeprefix(path.name))
        if named and named["host"] == HOST and not is_alive(int(named["pid"])):
            _remove(other)
    return path.with_name(f"{path.name}.{HOST}.{os.getpid()}.{secrets.token_hex(4)}.part")


def _remove(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which some file systems answer for a folder
            raise
    finally:
        os.close(file)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full disk, or a place that may not be read or written, into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{folder}: no disk space is left; free some, then run again") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"{error.filename or folder}: {error.strerror}; change its permissions") from None
        if error.errno in UNWRITABLE:
            raise UserError(f"{error.filename or folder}: cannot be written ({error.strerror}); name another place"
                            ) from None  # fmt: skip
        raise
