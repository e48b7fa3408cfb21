"""The Hugging Face hub by name and commit: data sets through the `datasets` library and its cache, models by HTTP.

A model's files are two addresses: /api/models/<model>/revision/<revision> lists them with sizes and hashes,
/<model>/resolve/<commit>/<file> leads to one. `huggingface_hub` reads them too, but drops what it has of a file when it
is stopped, hashes none that comes by HTTP, knows no bound of size or patience, and shows a token to any address of
HF_ENDPOINT (2.4.0). Of it comes the token, which it keeps and renews.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from cgpt.errors import UserError, first_line
from cgpt.files.json_object import read_object
from cgpt.imports import import_when_used
from cgpt.spec import Hub

if TYPE_CHECKING:
    import datasets
    import requests

HUB = "https://huggingface.co"
ENDPOINT = "HF_ENDPOINT"
"""The hub's address where it is not https://huggingface.co: https, or http on this machine."""
TOKEN = "HF_TOKEN"
"""A token of the hub, for models that are private or have terms; shown to the hub's host alone. Left out: what `hf auth
login` keeps."""
OFFLINE = "HF_HUB_OFFLINE"
"""1: the hub is not asked for anything."""
LARGEST_LISTING = 16 << 20  # bytes
Listing = Mapping[str, Mapping[str, Any]]  # `bytes`, and `sha256` or `git_sha1`, of each file by its name
READING = f"set {TOKEN} to a token of yours that may read it"
# By the hub's X-Error-Code: what is wrong, and what to do.
REFUSALS = {
    "GatedRepo": ("its owner gives it to those who accept the terms on its page",
                  f"accept them at {{page}}, and {READING}"),
    "RepoNotFound": ("there is no such model, or it is private", f"correct `hub:`, or {READING}"),
    "RevisionNotFound": ("it has no such commit", "correct `revision:`"),
    "EntryNotFound": ("it has no such file", "name another commit as `revision:`"),
}  # fmt: skip


def prepare_environment(data_root: Path, online: bool = False) -> None:
    """Keep Hugging Face's libraries offline, quiet and out of the home folder; call before `lm_eval` is imported.

    What that imports and only some tasks use waits: `datasets`, with pandas and pyarrow, is for data sets of the hub,
    `requests` for models behind a server, and of its loggers, all of which send results elsewhere, none.
    """
    os.environ.setdefault("HF_HOME", str((data_root / "_hub").absolute()))
    os.environ.setdefault("TQDM_DISABLE", "1")
    # A process pool for bootstrapping would outgrow the granted threads.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    if not online:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    import_when_used("datasets")
    import_when_used("requests")
    import_when_used("lm_eval.loggers", submodules_wait=False)  # its `utils` is used, which is none of them


def mirror_path(hub: Hub, split: str) -> Path:
    """Where a mirror has the rows of a split, as JSON lines, below its folder."""
    return Path(hub.dataset, hub.revision, *([hub.config] if hub.config else []), f"{split}.jsonl")


def load_split(hub: Hub, split: str, data_root: Path, where: str, remedy: str) -> datasets.Dataset:
    """The rows of a split, from the cache in `data_root` or the network. Raises UserError, which `remedy` ends."""
    prepare_environment(data_root, online=True)
    import datasets

    name = f"{hub.dataset}{f' ({hub.config})' if hub.config else ''} at {hub.revision[:12]}"
    print(f"fetch: {name}, split {split}, from the Hugging Face hub", file=sys.stderr)
    try:
        return datasets.load_dataset(hub.dataset, hub.config, split=split, revision=hub.revision)
    except Exception as error:  # not there, not reached, no such split, no rows: each in a form of some library's own
        reason = first_line(error)
        raise UserError(f"{where}: {name}, split '{split}', is not cached and cannot be had ({reason}); {remedy}"
                        ) from None  # fmt: skip


def hub_address() -> str:
    """The address of the hub, without a slash at its end. Raises UserError for one that no token may be shown to."""
    address = (os.environ.get(ENDPOINT) or HUB).rstrip("/")
    try:
        parts = urlsplit(address)
        secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
        if secure and parts.hostname and not parts.username:
            return address
    except ValueError:
        pass
    raise UserError(f"environment: {ENDPOINT}: is no https address of a host; write one as {HUB}, or unset it")


def list_model(hub: str, revision: str, where: str, remedy: str) -> tuple[str, Listing]:
    """The commit that a model's branch, tag or commit is, and its files. Raises UserError, which begins with `where`
    and ends with `remedy`."""
    path = f"api/models/{hub}/revision/{quote(revision, safe='')}?blobs=true"
    with tempfile.TemporaryDirectory(prefix="cgpt-hub-") as folder:
        answer = Path(folder) / f"{hub.rpartition('/')[2]}.json"
        _get(hub, revision, path, answer, LARGEST_LISTING, where, remedy)
        try:
            listed = read_object(answer)
            return str(listed["sha"]), {file["rfilename"]: _hash(file) for file in listed["siblings"]}
        except (UserError, KeyError, TypeError, AttributeError):
            raise UserError(f"{where}: {hub_address()} does not answer as the hub does; see to {ENDPOINT} and to what "
                            f"is between it and you, or {remedy}") from None  # fmt: skip


def fetch_file(hub: str, commit: str, name: str, target: Path, max_bytes: int, where: str, remedy: str) -> None:
    """Write a file of a model, after the bytes that are there of it. Raises UserError as `list_model` does."""
    _get(hub, commit, f"{hub}/resolve/{commit}/{quote(name)}", target, max_bytes, where, remedy)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hash(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """The size and the hash of a file, by what the hub lists of it: large ones are stored apart."""
    known = {"sha256": file["lfs"]["sha256"]} if file.get("lfs") else {"git_sha1": file["blobId"]}
    return {"bytes": int(file["size"])} | known


def _get(hub: str, revision: str, path: str, target: Path, max_bytes: int, where: str, remedy: str) -> None:
    from cgpt.data.download import Refused, download

    named, address = f"{where}: {hub} at {revision[:12]} cannot be had", hub_address()
    if os.environ.get(OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError(f"{named} ({OFFLINE} is set); unset it, or {remedy}")
    token, online = _token(), f"connect to the network, or {remedy}"
    try:
        download(f"{address}/{path}", target, max_bytes, where, online, go_on=True, token=token)
    except Refused as error:
        why, instead = _refusal(error.response, token)
        instead = instead.format(page=f"{address}/{hub}")
        raise UserError(f"{named} ({why}); {instead}, or {remedy}") from None


def _token() -> str | None:
    """The token that is in the environment, or that the hub's own client keeps. Raises UserError."""
    if token := os.environ.get(TOKEN, "").strip():
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise UserError(f"environment: {TOKEN}: holds a character that no token has; copy the token alone")
        return token
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import get_token

    try:
        return get_token()
    except Exception as error:  # a login that could not be renewed, in a form of that library's own
        raise UserError(f"environment: {TOKEN}: the login of `hf auth login` cannot be used ({first_line(error)}); "
                        f"log in again, or set {TOKEN}") from None  # fmt: skip


def _refusal(response: requests.Response, token: str | None) -> tuple[str, str]:
    """The words of a person for what is wrong, and for what to do."""
    code, status = response.headers.get("X-Error-Code", ""), response.status_code
    if code in REFUSALS:
        return REFUSALS[code]
    if status == 401 and token:
        return "the hub does not know the token", f"set {TOKEN} to another, or unset it and run `hf auth logout`"
    if status == 403:
        return "the token may not read it", READING
    if status in (401, 404):  # the hub does not say which to those who are not logged in
        return REFUSALS["RepoNotFound"]
    return f"{status} {response.reason}", "run it again later"
