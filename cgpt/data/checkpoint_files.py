"""The files of a checkpoint that a row of models.yaml names: on the hub, on the web, or in a folder of the study.

config.json is enough for a plan; it is fetched alone and first. Files of the hub and of the web lie in the cache
folder, or in the mirror: below `<owner>/<name>/<commit>/` and below `<the row's name>/`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cgpt.data.hub import ENDPOINT, Listing, fetch_file, list_model
from cgpt.data.mirror import MIRROR, find_in_mirror
from cgpt.errors import UserError
from cgpt.files.cache import cache_folder
from cgpt.files.digest import sha256_kept, sha256_of
from cgpt.files.json_object import read_object
from cgpt.files.layers import file_of
from cgpt.files.whole import lock, write_whole, writing
from cgpt.spec import MAX_BYTES, Checkpoint, PublishedModel

CONFIG, LISTING = "config.json", "listing.json"
LARGEST_CONFIG = 1 << 20  # bytes
BESIDE = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
          "tokenizer_config.json", "generation_config.json")  # fmt: skip
# In the order that transformers looks for them in: a whole file, or shards with their index.
WEIGHTS = tuple(map(re.compile, (
    r"model\.safetensors", r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?",
    r"pytorch_model\.bin", r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?",
)))  # fmt: skip


def find_config(row: PublishedModel, root: Path, where: str) -> Path:
    """The row's config.json, which is here. Raises UserError, which begins with `where`, the row's `checkpoint:`, where
    it is not."""
    for folder in _folders(row, root):
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    if row.checkpoint.path is not None:
        raise UserError(f"{where}.path: {row.checkpoint.path} has no {CONFIG}; write the folder of a checkpoint")
    raise UserError(f"{where}: its {CONFIG} is not here yet; connect to the network and run `cgpt plan` of an "
                    f"experiment that names '{row.name}', or {_at_mirror(row)}")  # fmt: skip


def fetch_config(row: PublishedModel, root: Path) -> None:
    """Bring the row's config.json here, and nothing where it is. Raises UserError."""
    if row.checkpoint.path is not None or any((folder / CONFIG).is_file() for folder in _folders(row, root)):
        return
    _fetch(row, lambda name: name == CONFIG)


def fetch_checkpoint(row: PublishedModel, root: Path) -> Path:
    """The folder with all files of the row's checkpoint, fetched where they are not here, and verified by what the hub
    or the row says of them. Raises UserError."""
    where, mirrored = row.checkpoint, find_in_mirror(_below_mirror(row) / CONFIG)
    if where.path is not None:
        return root / Path(where.path).expanduser()
    if mirrored:
        for file in where.files:
            name = _name(file.url)
            if not mirrored.with_name(name).is_file():
                raise UserError(f"{mirrored.with_name(name)}: is not there, though {CONFIG} is; {_at_mirror(row)}")
            _verify(mirrored.with_name(name), name, {"sha256": file.sha256}, row, keep=True)
        return mirrored.parent
    return _fetch(row, lambda name: True)


def identity(row: PublishedModel, root: Path) -> dict[str, Any]:
    """The part of a row that decides the checkpoint's content, wherever it lies: a commit, or SHA-256 of its files.

    Raises UserError for a folder that is not one of a checkpoint.
    """
    where = row.checkpoint
    if where.hub is not None:
        return {"hub": where.hub, "revision": where.revision}
    if where.files:
        return {"files": {_name(file.url): file.sha256 for file in where.files}}
    folder = root / Path(str(where.path)).expanduser()
    names = needed(path.name for path in folder.iterdir() if path.is_file())
    return {"files": {name: sha256_kept(folder / name) for name in names}}


def needed(names: Iterable[str]) -> list[str]:
    """Those of a folder's files that make a checkpoint, in one order: of several forms of weights the first."""
    names = sorted(names)
    weights = next((of_form for form in WEIGHTS if (of_form := [name for name in names if form.fullmatch(name)])), [])
    return sorted({*weights, *(name for name in names if name in (CONFIG, *BESIDE))})


def source_of(checkpoint: Checkpoint) -> str:
    """A checkpoint in a few words: `cerebras/Cerebras-GPT-111M@<8 digits>`, or its folder's or first file's name."""
    if checkpoint.hub is not None:
        return f"{checkpoint.hub}@{checkpoint.revision[:8]}" if checkpoint.revision else checkpoint.hub
    return Path(checkpoint.path).name if checkpoint.path else checkpoint.files[0].url.rpartition("/")[0]


def resolve_commit(hub: str, revision: str, where: str) -> str:
    """The commit that a branch or a tag of a model on the hub is now. Raises UserError, which begins with `where`."""
    return list_model(hub, revision, where, "write the commit as `revision:`")[0]


def _folders(row: PublishedModel, root: Path) -> list[Path]:
    """Where the row's files may be, the mirror's before the cache's."""
    if row.checkpoint.path is not None:
        return [root / Path(row.checkpoint.path).expanduser()]
    mirrored = find_in_mirror(_below_mirror(row) / CONFIG)
    return [*([mirrored.parent] if mirrored else []), _cached(row)]


def _cached(row: PublishedModel) -> Path:
    where = row.checkpoint
    if where.hub is not None:
        return cache_folder() / "checkpoints" / where.hub / str(where.revision)
    listed = json.dumps([(file.url, file.sha256) for file in where.files])
    return cache_folder() / "checkpoints" / hashlib.sha256(listed.encode()).hexdigest()[:16]


def _below_mirror(row: PublishedModel) -> Path:
    where = row.checkpoint
    return Path(where.hub, str(where.revision)) if where.hub is not None else Path(row.name)


def _at_mirror(row: PublishedModel) -> str:
    return f"put its files into {_below_mirror(row)} below the folder that {MIRROR} names"


def _fetch(row: PublishedModel, wanted: Any) -> Path:
    """The cache's folder with the wanted ones of the row's files; what is there and right is not fetched again."""
    folder, where = _cached(row), row.checkpoint
    with writing(folder), lock(folder.with_name(f"{folder.name}.lock"), wait=True):
        folder.mkdir(parents=True, exist_ok=True)
        listing: Listing
        if where.hub is not None:
            listing = _list_hub(row, folder)
        else:
            listing = {_name(file.url): {"url": file.url, "sha256": file.sha256} for file in where.files}
        names = [name for name in (needed(listing) if where.hub is not None else listing) if wanted(name)]
        if not names:
            raise UserError(f"{_named(row)}: has no {CONFIG}; name a checkpoint as transformers writes it")
        for name in names:
            if not (folder / name).is_file():
                _get(row, name, listing[name], folder)
    return folder


def _list_hub(row: PublishedModel, folder: Path) -> Listing:
    """The files of a commit on the hub with their sizes and hashes, which are kept beside them."""
    if (folder / LISTING).is_file():
        return read_object(folder / LISTING)
    hub, revision = str(row.checkpoint.hub), str(row.checkpoint.revision)
    commit, listing = list_model(hub, revision, f"{_named(row)}.hub", _at_mirror(row))
    if commit != revision:
        raise UserError(f"{_named(row)}.hub: {hub} at {revision} is another commit there, {commit}; see to {ENDPOINT}, "
                        f"or {_at_mirror(row)}")  # fmt: skip
    write_whole(folder / LISTING, (json.dumps(listing, indent=1) + "\n").encode())
    return listing


def _get(row: PublishedModel, name: str, listed: Mapping[str, Any], folder: Path) -> None:
    """Fetch one file, going on after what is there of it; under its name it is whole and verified."""
    from cgpt.data.download import download

    checkpoint, where, part = row.checkpoint, f"{_named(row)}: {name}", folder / f"{name}.part"
    most = LARGEST_CONFIG if name == CONFIG else MAX_BYTES
    if checkpoint.hub is None:
        remedy = f"connect to the network, or {_at_mirror(row)}"
        download(listed["url"], part, most, where, remedy, go_on=True)
    else:
        most = min(most, listed["bytes"])
        fetch_file(checkpoint.hub, str(checkpoint.revision), name, part, most, where, _at_mirror(row))
    _verify(part, name, listed, row)
    part.rename(folder / name)


def _verify(path: Path, name: str, listed: Mapping[str, Any], row: PublishedModel, keep: bool = False) -> None:
    """Raise UserError where the file `name`, at `path`, is not what was listed; it is removed, unless kept."""
    wanted = listed.get("sha256") or listed.get("git_sha1")
    actual = sha256_of(path) if "sha256" in listed else _git_sha1(path)
    if actual != wanted:
        if not keep:
            path.unlink()
        raise UserError(f"{_named(row)}: {name}: its hash is {actual}, not {wanted}; get the file again, or "
                        "correct what the row says of it")  # fmt: skip


def _git_sha1(path: Path) -> str:
    """The hash by which git, and so the hub, knows a file that is not stored apart."""
    content = path.read_bytes()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def _name(url: str) -> str:
    """The file's name in an address: the last part of its path."""
    return url.partition("?")[0].partition("#")[0].rpartition("/")[2]


def _named(row: PublishedModel) -> str:
    """A row's `checkpoint:` as messages name it."""
    return f"{file_of('models', row.name)}: models.{row.name}.checkpoint"
