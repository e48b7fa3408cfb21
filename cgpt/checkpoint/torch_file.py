"""The tensors of a file that torch.save wrote, read without torch and without running what is in it.

Such a file is a pickle, a program for a small machine that may call any function by name. Here it may name nothing but
the few that make up a tensor, and these are our own; the first other name refuses the file.
"""

import contextlib
import math
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cgpt.checkpoint.stored import Stored, Weights, as_float32
from cgpt.errors import UserError

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch before 1.6, whose files are no zip archives
BFLOAT16 = "bfloat16"  # NumPy has no such type
STORAGES = {
    "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": BFLOAT16, "DoubleStorage": "<f8",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip
MOST_PICKLE_BYTES = 1 << 26  # names and shapes; those of a model of a thousand layers take 2 MB


class Storage(NamedTuple):
    """A run of numbers in the file that tensors are views of."""

    dtype: str
    key: str
    size: int


class Part(NamedTuple):
    """A storage's bytes: how many there are, and what reads them from the file of a path."""

    n_bytes: int
    read: Callable[[Path], bytes]


class View(NamedTuple):
    """A tensor: where it begins in its storage, its shape, and its strides, in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: Path) -> Weights:
    """The tensors, float16 and bfloat16 as float32. Raises UserError for what is no state dict, or would run code."""
    with _reading(path), path.open("rb") as file:
        views, starts = (_read_zip if zipfile.is_zipfile(file) else _read_legacy)(file, str(path))
        if not isinstance(views, dict) or not all(isinstance(view, View) for view in views.values()):
            raise UserError(f"{path}: holds other things than tensors by name; save the model's state_dict() alone")
        return Weights({str(name): _stored(path, view, starts[view.storage.key]) for name, view in views.items()})


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError, IndexError, TypeError,
            AttributeError, MemoryError, OverflowError, RecursionError) as error:  # fmt: skip
        raise UserError(f"{path}: is truncated or no PyTorch file ({error}); get the file again") from None


def _storage_dtype(dtype: str) -> np.dtype:
    return np.dtype("<u2" if dtype == BFLOAT16 else dtype)


def _stored(path: Path, view: View, part: Part) -> Stored:
    """A tensor of a file, of which it is checked that it lies in its storage."""
    n_numbers = part.n_bytes // _storage_dtype(view.storage.dtype).itemsize
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides))
    negative = min((view.offset, *view.shape, *view.strides)) < 0
    if negative or len(view.shape) != len(view.strides) or (math.prod(view.shape) > 0 and last >= n_numbers):
        raise ValueError("a tensor reaches beyond its storage")
    if math.prod(view.shape) > n_numbers:  # with strides of 0, which may fill the memory
        raise ValueError("a tensor repeats its storage")
    dtype = view.storage.dtype if view.storage.dtype == BFLOAT16 else np.dtype(view.storage.dtype).name
    return Stored(view.shape, dtype, partial(_read, path, view, part))


def _read(path: Path, view: View, part: Part) -> np.ndarray:
    """The values of a tensor. Raises UserError where its storage is not what the file says of it."""
    with _reading(path):
        content = part.read(path)
        if len(content) != part.n_bytes:  # the file was another one when it was opened
            raise EOFError("a storage ends early")
        numbers = np.frombuffer(content, _storage_dtype(view.storage.dtype))
        strides = [stride * numbers.itemsize for stride in view.strides]
        values = np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, strides, writeable=False)
        dtype = BFLOAT16 if view.storage.dtype == BFLOAT16 else numbers.dtype.name
        return as_float32(np.ascontiguousarray(values), dtype)


class _Unpickler(pickle.Unpickler):
    """Makes dicts, numbers, text and views of storages, and nothing else."""

    def __init__(self, file: BinaryIO, where: str):
        super().__init__(file, encoding="utf-8")
        self.where, self.storages = where, dict[str, Storage]()

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name that the pickle wants to use."""
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if (module, name) not in _ALLOWED:
            raise UserError(f"{self.where}: would run {module}.{name} when it is opened, so it is not; "
                            "get the weights as safetensors")  # fmt: skip
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Called where the pickle refers to a storage."""
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or dtype not in STORAGES.values() or (len(pid) > 5 and pid[5] is not None):
            raise pickle.UnpicklingError("it refers to what is no storage")
        return self.storages.setdefault(str(key), Storage(dtype, str(key), int(size)))


def _unpickled(file: BinaryIO, unpickler: _Unpickler) -> Any:
    """The object that a pickle at the file's position makes, after a look at what it would have this process keep."""
    start = file.tell()
    for opcode, argument, at in pickletools.genops(file):
        if at is not None and at - start > MOST_PICKLE_BYTES:
            raise ValueError("its list of tensors is too long")
        if "PUT" in opcode.name and isinstance(argument, int) and argument > MOST_PICKLE_BYTES:
            raise ValueError("it counts more objects than it has")
    file.seek(start)
    return unpickler.load()


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> View:
    return View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


_ALLOWED: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda view, *_: view,
}

Read = tuple[Any, dict[str, Part]]


def _read_zip(file: BinaryIO, where: str) -> Read:
    """torch 1.6 and later: an archive of data.pkl and of one file per storage."""
    archive = zipfile.ZipFile(file)
    (pickled,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("its numbers are big-endian")
    packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:  # torch never does that, and unpacked they might fill the memory
        raise ValueError(f"{packed[0]} is compressed")
    unpickler: Any
    with archive.open(pickled) as content:
        unpickler = _Unpickler(content, where)  # type: ignore[arg-type]
        views = _unpickled(content, unpickler)  # type: ignore[arg-type]
    names = {key: f"{folder}data/{key}" for key in unpickler.storages}
    return views, {key: Part(archive.getinfo(name).file_size, partial(_read_entry, name=name))
                   for key, name in names.items()}  # fmt: skip


def _read_entry(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _read_legacy(file: BinaryIO, where: str) -> Read:
    """Before torch 1.6: pickles of a magic number, a version, the machine, the object and the storages' keys, then each
    storage as its length and its numbers."""
    file.seek(0)
    head = [_unpickled(file, _Unpickler(file, where)) for _ in range(3)]
    if head[:2] != [LEGACY_MAGIC, LEGACY_PROTOCOL] or not head[2].get("little_endian", False):
        raise ValueError("it does not begin as one")
    unpickler = _Unpickler(file, where)
    views, keys = _unpickled(file, unpickler), _unpickled(file, _Unpickler(file, where))
    end, parts = os.fstat(file.fileno()).st_size, dict[str, Part]()
    for key in keys:
        size = int.from_bytes(file.read(8), "little", signed=True)
        n_bytes = size * _storage_dtype(unpickler.storages[key].dtype).itemsize
        at = file.tell()
        if size < 0 or at + n_bytes > end:
            raise EOFError("a storage ends early")
        parts[key] = Part(n_bytes, partial(_read_bytes, at=at, n_bytes=n_bytes))
        file.seek(at + n_bytes)
    return views, parts


def _read_bytes(path: Path, at: int, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(n_bytes)
