"""SHA-256 of what files hold: named in the record of the run that wrote them, checked by those that read them."""

import contextlib
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgpt.data import task_rows
from cgpt.errors import UserError
from cgpt.files.digest import sha256_of
from cgpt.files.json_object import read_object
from cgpt.records import is_as_written

CHECKPOINT = ("config.json", "tokenizer.json", "model.safetensors")  # what decides a model and what it reads
SPLITS = ("train", "validation")
GPT2_DATASET, GPT2_FILES = "gpt2_tokenizer", ("encoder.json", "vocab.bpe")
NO_DATA = re.compile(r"\.|README|LICENSE")  # names of files in a local folder that are none of its data
UNVERIFIED = "open it as it is with --no-verify"
BLOCK_BYTES = 1 << 20


def sha256_unpacked(path: Path) -> str:
    """SHA-256 of a file's bytes, unpacked where its name ends in .gz and it is gzip. Raises OSError or EOFError."""
    with path.open("rb") as file:
        packed = path.name.endswith(".gz") and file.read(2) == b"\x1f\x8b"
    if not packed:
        return sha256_of(path)
    digest = hashlib.sha256()
    with gzip.open(path) as content:
        while block := content.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest(files: Mapping[str, str]) -> str:
    """One hash for several files, by their names and hashes."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def verified(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a checkpoint that is there.

    Raises UserError where the record in its folder, if there is one with hashes, says another.
    """
    hashes = {name: sha256_of(folder / name) for name in CHECKPOINT if (folder / name).is_file()}
    record, written = _record(folder)
    again = f"run `cgpt {record.get('stage')} {record.get('run')}` again, or {UNVERIFIED}"
    changed = [name for name in hashes if written.get(name, hashes[name]) != hashes[name]]
    if changed:
        raise UserError(*(f"{folder / name}: is not what its run wrote (SHA-256 in run.json); {again}"
                          for name in changed))  # fmt: skip
    return hashes


def of_checkpoint(folder: Path, stage: str) -> dict[str, str]:
    """A checkpoint that was verified as an input: `<stage>/<file>` and its hash, by its record where it has one."""
    written = _record(folder)[1] or verified(folder)
    return {f"{stage}/{name}": written[name] for name in CHECKPOINT if name in written}


def _record(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A checkpoint's run.json and the hashes in it; nothing where there is none, or another program's."""
    if not (folder / "run.json").is_file():
        return {}, {}
    remedy = f"run its stage again, or {UNVERIFIED}"
    record = read_object(folder / "run.json", remedy)
    if not is_as_written(record):
        raise UserError(f"{folder / 'run.json'}: was changed after it was written; {remedy}")
    written = record.get("outputs")
    return record, written if isinstance(written, dict) else {}


def fetched_files(record: Path) -> list[dict[str, Any]]:
    """The files that a fetched.json lists. Raises UserError where it is missing or damaged."""
    command = f"run `cgpt fetch {record.parent.name}`"
    files = read_object(record, f"{command} again", f"{command} first").get("files")
    types = {"name": str, "bytes": int, "sha256": str, "split": str}
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and all(isinstance(file.get(key), kind) for key, kind in types.items()) for file in files
    ):
        raise UserError(f"{record}: is no record of a fetch; {command} again")
    return files


def of_corpora(spec: Mapping[str, Any], data_root: Path) -> dict[str, str]:
    """Inputs of a run of tokenize: `fetch/<data set>` and one hash of its files. Raises UserError."""
    inputs = {}
    for name in spec["corpus"]:
        files = fetched_files(data_root / name / "fetched.json")
        read = {file["name"]: file["sha256"] for file in files if file["split"] in ("all", *SPLITS)}
        inputs[f"fetch/{name}"] = digest(read)
    if spec["tokenizer"] == "gpt2":
        published = {name: sha256_of(data_root / GPT2_DATASET / name) for name in GPT2_FILES}
        inputs[f"fetch/{GPT2_DATASET}"] = digest(published)
    return inputs


def of_tokens(record: Mapping[str, Any]) -> dict[str, str]:
    """The shards and the tokenizer that a tokens.json names, as inputs; a header's hash stands for its shard."""
    headers = {split: record[split] for split in SPLITS if isinstance(record.get(split), dict)}
    shards = {f"tokenize/{split}.bin": str(header.get("header_sha256")) for split, header in headers.items()}
    return shards | {"tokenize/tokenizer.json": str(record.get("tokenizer_sha256"))}


def of_local_files(path: str) -> dict[str, str]:
    """Hash, unpacked, of each file of a data set that is a local file or folder, by its name without .gz."""
    try:
        return {file.name.removesuffix(".gz"): sha256_unpacked(file) for file in local_files(path)}
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend it, or name another file in data.yaml") from None


def local_files(path: str) -> list[Path]:
    """The files of a data set that is a local file or folder, in their order; none where that does not exist."""
    source = Path(path).expanduser()
    inside = (file for file in sorted(source.rglob("*")) if not NO_DATA.match(file.name))
    return [file for file in ([source] if source.is_file() else inside) if file.is_file()]


def of_task_data(task: Mapping[str, Any], data_root: Path) -> dict[str, str]:
    """The data files that a task names as an input: `fetch/<data set>` and one hash.

    Raises UserError where one is not what was fetched. Nothing for a task of lm-evaluation-harness's own data.
    """
    if "data" not in task:
        return {}
    folder = data_root / task["data"]
    hashes = {name: sha256_of(folder / name) for name in task_files(task, folder)}
    if (folder / "fetched.json").is_file():
        listed = {file["name"]: file["sha256"] for file in fetched_files(folder / "fetched.json")}
        changed = [name for name in hashes if hashes[name] != listed.get(name)]
        if changed:
            raise UserError(*(f"{folder / name}: is not what was fetched (SHA-256); "
                              f"run `cgpt fetch {folder.name}` again" for name in changed))  # fmt: skip
    return {f"fetch/{folder.name}": digest(hashes)}


def task_files(task: Mapping[str, Any], folder: Path) -> list[str]:
    """Paths below the `folder` of a data set of the files there that a task names or means by a pattern, each once."""
    paths: set[Path] = set()
    for names in task_rows.split_files(dict(task), "").values():
        for name in names:
            with contextlib.suppress(UserError):  # a file that is not there is a problem where it is read
                paths.update(task_rows.find_files([name], folder, task["data"], ""))
    return sorted(path.relative_to(folder).as_posix() for path in paths)
