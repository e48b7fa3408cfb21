"""Files of safetensors: read tensor by tensor or mapped into memory, and written tensor by tensor.

The library's own functions take and give all tensors at once; it checks the header here.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.stored import Stored, Weights, as_float32
from cgpt.errors import UserError
from cgpt.files.json_object import AGAIN
from cgpt.files.mapped import ALIGNMENT, PrivateMapping, map_file

MOST_HEADER_BYTES = 100_000_000  # the limit of the format
# What its names of types are called elsewhere; more would be refused as weights in any case.
TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "BOOL": "bool", "U8": "uint8",
         "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}  # fmt: skip
Shapes = Mapping[str, tuple[int, ...]]


def read_safetensors(path: Path, remedy: str = AGAIN, mapped: bool = False) -> Weights:
    """The tensors of a file, float16 and bfloat16 as float32.

    With `mapped`, float32 that is aligned is memory of the file's own pages, which is to be treated as a copy. Raises
    UserError for what is no whole file of safetensors, which `remedy` ends; FileNotFoundError.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            if not 0 < n_header <= min(MOST_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError(f"its header would take {n_header:,} bytes")
            with safe_open(path, framework="numpy"):  # the header alone is read, and checked against the file's length
                header = json.loads(file.read(n_header))
        memory = map_file(path) if mapped else None
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: is truncated or no safetensors file ({error}); {remedy}") from None
    header.pop("__metadata__", None)
    return Weights({name: _stored(path, entry, 8 + n_header, memory) for name, entry in header.items()})


def _stored(path: Path, entry: dict[str, Any], start: int, memory: PrivateMapping | None) -> Stored:
    shape, at = tuple(entry["shape"]), start + entry["data_offsets"][0]
    dtype = TYPES.get(entry["dtype"], entry["dtype"])
    if memory and dtype == "float32" and at % ALIGNMENT == 0:
        return Stored(shape, dtype, lambda: np.frombuffer(memory, "<f4", math.prod(shape), at).reshape(shape))
    return Stored(shape, dtype, partial(_read, path, at, shape, dtype))


def _read(path: Path, at: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A tensor that begins at a byte of a file. Raises UserError where it cannot be read any more."""
    there = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
    try:
        return as_float32(np.fromfile(path, there, math.prod(shape), offset=at).reshape(shape), dtype)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {AGAIN}") from None


def write_safetensors(path: Path, shapes: Shapes, params: Mapping[str, np.ndarray]) -> str:
    """Write float32 tensors of these shapes, each of which is asked of `params` once; returns the file's SHA-256.

    In the order of their names, as the library writes them. The header's end is padded so that the first number is
    aligned, and with it all numbers of models whose widths are multiples of 16: mapped into memory, kernels can read
    them there.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + 4 * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for content in _contents(text, shapes, params):
            file.write(content)
            digest.update(content)
    return digest.hexdigest()


def _contents(header: bytes, shapes: Shapes, params: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The bytes of a file, in pieces."""
    yield len(header).to_bytes(8, "little") + header
    for name in sorted(shapes):
        values = np.ascontiguousarray(params[name], "<f4")
        if values.shape != shapes[name]:
            raise ValueError(f"{name}: has shape {values.shape}, not {shapes[name]}")
        yield values.data
