"""The stage `fetch`: bring a data set of workflows/data.yaml into a folder, verified, unpacked and listed there."""

import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cgpt.bounds import problems
from cgpt.data.content import local_files, sha256_of
from cgpt.data.download import download as get
from cgpt.data.hub import load_split, mirror_path
from cgpt.data.mirror import MIRROR, find_in_mirror
from cgpt.errors import UserError
from cgpt.files.layers import file_of
from cgpt.files.whole import whole_file, write_whole, writing
from cgpt.jobs import Job
from cgpt.spec import MAX_BYTES, DataFile, Dataset, Hub

BLOCK_BYTES = 1 << 20
RECORD = "fetched.json"
SPLIT_NAMES = re.compile(r"(?:(train)|(valid|validation|val|dev)|(test))(?![a-z])", re.IGNORECASE)


def fetch(job: Job) -> dict[str, Any]:
    """Bring the job's data set into its folder, as `fetch_dataset` does."""
    assert job.dataset is not None
    return fetch_dataset(job.dataset, job.folder)


def fetch_dataset(dataset: Dataset, out: Path) -> dict[str, Any]:
    """Fill the folder `out` with a data set's files, by their names without folder and without .gz.

    A file that is there already with the right checksum is kept. Returns fetched.json: name, origin,
    licence and files (name, bytes, sha256, split). Raises UserError with a line per file that is missing, unreachable
    or wrong.
    """
    if wrong := [f"{_named(dataset)}.{'.'.join(map(str, keys))}: {problem}"
                 for keys, problem in problems(Dataset, dataset)]:  # fmt: skip
        raise UserError(*wrong)
    if dataset.licence_status not in ("", "open"):
        print(f"{dataset.name}: licence {dataset.licence_status}: {dataset.licence}", file=sys.stderr)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if dataset.builtin is not None:
            files = _make_builtin(dataset, out)
        elif dataset.path is not None:
            files = _copy_local(dataset, out)
        elif dataset.hub is not None:
            files = [_get_split(dataset, dataset.hub, split, out) for split in dataset.hub.splits]
        else:
            files = _get_listed(dataset, out)
        record = {
            "name": dataset.name, "builtin": dataset.builtin, "seed": dataset.seed, "path": dataset.path,
            "hub": None if dataset.hub is None else asdict(dataset.hub),
            "licence": dataset.licence, "licence_status": dataset.licence_status, "home": dataset.home, "files": files,
        }  # fmt: skip
        write_whole(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())  # names may be no text
    return record


def _make_builtin(dataset: Dataset, out: Path) -> list[dict[str, Any]]:
    """Run the generator. Its corpus.jsonl is the corpus; its other files belong to tasks."""
    from cgpt.data.world import write_world

    with tempfile.TemporaryDirectory(dir=out) as folder:
        names = write_world(dataset.seed, Path(folder))
        return [
            _put(Path(folder) / name, out / name, "all" if name == "corpus.jsonl" else "task", None) for name in names
        ]


def _copy_local(dataset: Dataset, out: Path) -> list[dict[str, Any]]:
    """Copy a file, or a folder's files but hidden ones, READMEs and licences; their names say their splits."""
    where, source = f"{_named(dataset)}.path", Path(str(dataset.path)).expanduser()
    if not source.exists():
        raise UserError(f"{where}: '{source}' does not exist; write a file or folder that does")
    files = [path for path in local_files(str(dataset.path)) if out not in path.parents]
    if source.is_file():
        return [_put(source, out / source.name.removesuffix(".gz"), "all", None)]
    if not files:
        raise UserError(f"{where}: '{source}' holds no files; put text files there, or write another folder")
    _refuse_equal_names(where, files)
    return [_put(path, out / path.name.removesuffix(".gz"), _split_of(path.name), None) for path in files]


def find_mirrored_file(file: DataFile) -> Path | None:
    """The mirror's copy of a file, packed or not; None where there is none, or no mirror."""
    return find_in_mirror(file.path, file.path.removesuffix(".gz"))


def find_mirrored_split(hub: Hub, split: str) -> Path | None:
    """The mirror's copy of a split's rows, packed or not; None where there is none, or no mirror."""
    return find_in_mirror(mirror_path(hub, split), f"{mirror_path(hub, split)}.gz")


def _split_of(name: str) -> str:
    match = SPLIT_NAMES.match(name)
    return ("train", "validation", "test")[match.lastindex - 1] if match and match.lastindex else "all"


def _get_split(dataset: Dataset, hub: Hub, split: str, out: Path) -> dict[str, Any]:
    """The rows of a split of the hub as JSON lines, from the mirror where that has them."""
    target, below = out / f"{split}.jsonl", mirror_path(hub, split)
    where = f"{_named(dataset)}.hub"
    if copy := find_mirrored_split(hub, split):
        return _put(copy, target, _split_of(split), None)
    mirror = os.environ.get(MIRROR)
    at = f"put its rows, as JSON lines, at {Path(mirror) / below}" if mirror else \
        f"set {MIRROR} to a folder that holds its rows, as JSON lines, at {below}"  # fmt: skip
    rows = load_split(hub, split, out.parent, where, f"connect to the network, or {at}")
    download = target.with_name(target.name + ".download")
    try:
        with download.open("w", encoding="utf-8", errors="replace") as file:
            n_characters = 0
            for row in rows:
                n_characters += file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
                if n_characters > MAX_BYTES:
                    raise UserError(f"{where}: split '{split}' has more than {MAX_BYTES:,} bytes; take a smaller one")
        return _put(download, target, _split_of(split), None)
    finally:
        download.unlink(missing_ok=True)


def _get_listed(dataset: Dataset, out: Path) -> list[dict[str, Any]]:
    """Get every file of `files` from the mirror or its URL; the problems of all files come together."""
    _refuse_equal_names(f"{_named(dataset)}.files", [Path(file.path) for file in dataset.files])
    placed: list[dict[str, Any]] = []
    problems: list[str] = []
    for file in dataset.files:
        try:
            placed.append(_get(dataset, file, out / Path(file.path).name.removesuffix(".gz")))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return placed


def _get(dataset: Dataset, file: DataFile, target: Path) -> dict[str, Any]:
    where = f"{_named(dataset)}.files: {file.path}"
    if file.sha256 is not None and target.is_file() and sha256_of(target) == file.sha256:
        return _entry(target, file.split, file.sha256)
    if copy := find_mirrored_file(file):
        return _put(copy, target, file.split, file)
    if mirror := os.environ.get(MIRROR):
        raise UserError(f"{where}: is not in the mirror; put it at {Path(mirror) / file.path}, or unset {MIRROR}")
    if file.url is None:
        raise UserError(
            f"{where}: has no public address of its own (made from {dataset.home or 'an unnamed source'}); "
            f"set {MIRROR} to a folder that holds it, or put it, unpacked, at {target}"
        )
    download = target.with_name(target.name + ".download")
    try:
        get(file.url, download, file.max_bytes, where,
            f"set {MIRROR} to a folder that holds the file, or put it, unpacked, at {target}")  # fmt: skip
        return _put(download, target, file.split, file)
    finally:
        download.unlink(missing_ok=True)


def _put(source: Path, target: Path, split: str, listed: DataFile | None) -> dict[str, Any]:
    """Copy `source`, unpacked, to `target`, which appears only when it is whole and, if `listed`, has its checksum."""
    size, free = source.stat().st_size, shutil.disk_usage(target.parent).free
    if size > free:
        raise UserError(f"{target.parent}: {size} bytes are needed, {free} are free; free some disk space")
    with whole_file(target) as part:
        unpack = (listed.path if listed else source.name).endswith(".gz")
        digest = _copy(source, part, unpack, listed.max_bytes if listed else MAX_BYTES)
        if part.stat().st_size == 0:
            raise UserError(f"{source}: is empty; put a file with content there, or leave it out of the data set")
        if listed is not None and listed.sha256 is None:
            raise UserError(f"data.yaml: files: {listed.path}: has no sha256; write sha256: {digest}")
        if listed is not None and listed.sha256 != digest:
            came = f" (from {listed.url})" if source.name.endswith(".download") else ""
            raise UserError(
                f"{source if not came else listed.path}{came}: sha256: expected {listed.sha256}, got {digest}; "
                "get the file again, or correct the checksum in data.yaml if the new content is right"
            )
    return _entry(target, split, digest)


def _copy(source: Path, part: Path, unpack: bool, max_bytes: int) -> str:
    """Copy, unpacking if asked to and if it is gzip; return the SHA-256 of what was written."""
    digest, n_bytes = hashlib.sha256(), 0
    with source.open("rb") as raw, part.open("wb") as out:
        packed = unpack and raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with (
            gzip.GzipFile(fileobj=raw) if packed else raw as content,
            tqdm(total=source.stat().st_size, unit="B", unit_scale=True, desc=source.name, leave=False, delay=1) as bar,
        ):
            try:
                while block := content.read(BLOCK_BYTES):
                    out.write(block)
                    digest.update(block)
                    n_bytes += len(block)
                    if n_bytes > max_bytes:
                        raise UserError(f"{source}: has more than {max_bytes:,} bytes, unpacked; write a greater "
                                        "`max_bytes` for it in data.yaml, or leave it out")  # fmt: skip
                    bar.update(raw.tell() - bar.n)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UserError(f"{source}: is broken gzip ({error}); get the file again") from None
    return digest.hexdigest()


def _refuse_equal_names(where: str, paths: list[Path]) -> None:
    names = [path.name.removesuffix(".gz").lower() for path in paths]  # some file systems do not tell case apart
    if RECORD in names:
        raise UserError(f"{where}: a file is called {RECORD}, as the record of the data set is; give it another name")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{where}: two files are called {', '.join(twice)}; give every file a name of its own")


def _named(dataset: Dataset) -> str:
    """A data set's entry as messages name it."""
    return f"{file_of('datasets', dataset.name)}: {dataset.name}"


def _entry(path: Path, split: str, sha256: str) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256, "split": split}
