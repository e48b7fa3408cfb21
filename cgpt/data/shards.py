"""Token shards: a binary file of uint16 or uint32 tokens behind a header, written as a stream and read memory-mapped.

Bytes 0-7 are the magic `CGPTSHRD`. Bytes 8-1023 are a JSON object padded with blanks: format_version, vocab_size,
tokenizer_sha256, n_tokens, n_bytes (UTF-8 bytes of the text, end-of-text tokens not counted), n_documents, dtype,
sha256 (of the tokens' bytes), header_sha256 (of the other keys). From byte 1024 on come the tokens, little-endian.
"""

import functools
import hashlib
import json
import math
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from cgpt.data import content
from cgpt.errors import UserError
from cgpt.files.whole import whole_file
from cgpt.spec import Model

MAGIC = b"CGPTSHRD"
FORMAT_VERSION = 1
HEADER_BYTES = 1024
LARGEST = 1 << 48  # of a count: more than any disk holds
HEADER_KEYS = {  # and what each holds; numbers are counts
    "format_version": int, "vocab_size": int, "tokenizer_sha256": str, "n_tokens": int, "n_bytes": int,
    "n_documents": int, "dtype": str, "sha256": str, "header_sha256": str,
}  # fmt: skip
REMEDY = "delete its folder, so that tokenize runs again"


def dtype_of(vocab_size: int) -> np.dtype:
    """The smallest type that holds every token, little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Write a shard token by token; it gets its final name when the `with` block ends without an error."""

    def __init__(self, path: Path, vocab_size: int, tokenizer_sha256: str):
        self.path = path
        self.dtype = dtype_of(vocab_size)
        self.header: dict[str, Any] = {
            "format_version": FORMAT_VERSION, "vocab_size": vocab_size, "tokenizer_sha256": tokenizer_sha256,
            "n_tokens": 0, "n_bytes": 0, "n_documents": 0, "dtype": self.dtype.name,
        }  # fmt: skip
        self._hash = hashlib.sha256()
        self._stack = ExitStack()

    def append(self, tokens: Iterable[int], n_bytes: int, n_documents: int) -> None:
        """Append tokens, which stand for `n_bytes` of text and end `n_documents` documents."""
        block = np.asarray(tokens, dtype=self.dtype).tobytes()
        self._file.write(block)
        self._hash.update(block)
        self.header["n_tokens"] += len(block) // self.dtype.itemsize
        self.header["n_bytes"] += n_bytes
        self.header["n_documents"] += n_documents

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._file = stack.enter_context(whole_file(self.path)).open("wb")
            stack.push(self._end)
            self._file.write(bytes(HEADER_BYTES))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def _end(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the header, if there was no error."""
        with self._file:
            if kind is None:
                self.header["sha256"] = self._hash.hexdigest()
                self.header["header_sha256"] = header_sha256(self.header)
                self._file.seek(0)
                self._file.write(MAGIC + json.dumps(self.header).encode().ljust(HEADER_BYTES - len(MAGIC)))


def header_sha256(header: dict[str, Any]) -> str:
    """Hash of what a header says, that of the tokens included, so that it stands for the whole shard."""
    hashed = {key: value for key, value in header.items() if key != "header_sha256"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def read_header(path: Path) -> dict[str, Any]:
    """Return a shard's header. Raises UserError when the file is missing, foreign, of another version or truncated."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; run tokenize first") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from None
    if not head.startswith(MAGIC):
        raise UserError(f"{path}: magic: is {head[:8]!r}, so this is no token shard; {REMEDY}")
    try:
        header = json.loads(head[len(MAGIC) :])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise UserError(f"{path}: header: cannot be read; {REMEDY}")
    if header.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version: is {header.get('format_version')}, expected {FORMAT_VERSION}; {REMEDY}"
        )
    if set(header) != set(HEADER_KEYS):
        raise UserError(f"{path}: header: has other keys than a shard's ({', '.join(HEADER_KEYS)}); {REMEDY}")
    for key, kind in HEADER_KEYS.items():
        if type(header[key]) is not kind or (kind is int and not 0 <= header[key] <= LARGEST):
            raise UserError(f"{path}: header: {key}: is {header[key]!r:.60}, which no shard has; {REMEDY}")
    if header["dtype"] != dtype_of(header["vocab_size"]).name:
        raise UserError(
            f"{path}: header: dtype: is {header['dtype']}, not that of {header['vocab_size']} tokens; {REMEDY}"
        )
    if header["header_sha256"] != header_sha256(header):
        raise UserError(f"{path}: header_sha256: the header is not what was written; {REMEDY}")
    expected = HEADER_BYTES + header["n_tokens"] * np.dtype(header["dtype"]).itemsize
    if size != expected:
        raise UserError(f"{path}: size: is {size} bytes, expected {expected} (truncated or appended to); {REMEDY}")
    return header


def open_shard(path: Path, tokenizer_sha256: str | None = None, check_hash: bool = False) -> np.memmap:
    """Map a shard's tokens, shape (n_tokens,), uint16 or uint32, read-only.

    The header and the file's size are always checked; with `tokenizer_sha256` also that the shard belongs to that
    tokenizer, and with `check_hash` every byte. Raises UserError.
    """
    header = read_header(path)
    if tokenizer_sha256 is not None and header["tokenizer_sha256"] != tokenizer_sha256:
        raise UserError(f"{path}: tokenizer_sha256: belongs to another tokenizer.json; {REMEDY}")
    if header["n_tokens"] == 0:
        raise UserError(f"{path}: n_tokens: is 0; {REMEDY}")
    tokens = np.memmap(path, np.dtype(header["dtype"]).newbyteorder("<"), "r", HEADER_BYTES, (header["n_tokens"],))
    if check_hash and hashlib.sha256(tokens.data).hexdigest() != header["sha256"]:
        raise UserError(f"{path}: sha256: the tokens are not those that were written; {REMEDY}")
    return tokens


def open_split(folder: Path, split: str, config: Model) -> np.memmap:
    """Map the shard of a split, (n_tokens,), checked byte by byte and against tokenizer and model. Raises UserError."""
    path = folder / f"{split}.bin"
    header = read_header(path)
    if header["vocab_size"] > (config.vocab_size or 0):
        raise UserError(
            f"{path}: vocab_size: has {header['vocab_size']} tokens, model '{config.name}' {config.vocab_size}; "
            "give the model the tokenizer's vocab_size"
        )
    tokens = open_shard(path, content.sha256_of(folder / "tokenizer.json"), check_hash=True)
    if len(tokens) < 2:
        raise UserError(f"{path}: n_tokens: is {len(tokens)}, a loss needs 2; take a larger corpus")
    return tokens


def bits_per_byte(nats_per_token: float, header: dict[str, Any]) -> float:
    """Turn a mean loss per token into bits per byte of text: it no longer depends on the vocabulary.

    Equals total nats / (ln 2 x bytes), as in The Pile (Gao et al. 2020); end-of-text tokens cost nats, not bytes.
    """
    return nats_per_token * header["n_tokens"] / (header["n_bytes"] * math.log(2))


def n_windows(n_tokens: int, seq_len: int) -> int:
    """Return how many training windows an epoch has: all but a remainder of at most two windows' tokens."""
    return max(1, (n_tokens - seq_len) // seq_len)


def batches(tokens: np.ndarray, seq_len: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Return the int32 batch (batch_size, seq_len + 1) of training step `step`, counted from 0.

    It depends on (seed, step) alone, so a run resumed at any step sees the batches it would have seen. An epoch cuts
    the tokens into windows of `seq_len` (each with one more token, the last target) that do not overlap, starting from
    an offset below `seq_len` drawn per epoch, and visits each once in a random order drawn per epoch. A batch may
    reach over the end of an epoch. Raises UserError when the tokens do not fill one window.
    """
    if len(tokens) < seq_len + 1:
        raise UserError(
            f"seq_len: {seq_len} needs at least {seq_len + 1} tokens, the shard has {len(tokens)}; "
            "write a smaller seq_len or take a larger corpus"
        )
    count = n_windows(len(tokens), seq_len)
    batch = np.empty((batch_size, seq_len + 1), dtype=np.int32)
    for row in range(batch_size):
        epoch, window = divmod(step * batch_size + row, count)
        offset, order = _epoch(seed, epoch, count, min(seq_len, len(tokens) - count * seq_len))
        start = offset + int(order[window]) * seq_len
        batch[row] = tokens[start : start + seq_len + 1]
    return batch


@functools.lru_cache(maxsize=2)  # a batch may reach over the end of an epoch
def _epoch(seed: int, epoch: int, count: int, offsets: int) -> tuple[int, np.ndarray]:
    """Return an epoch's offset, in [0, offsets), and its order of `count` windows."""
    # RandomState, because NumPy promises that its numbers stay the same in every release (NEP 19).
    random = np.random.RandomState([seed, epoch])
    return int(random.randint(offsets)), random.permutation(count)
