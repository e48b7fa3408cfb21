"""Files of published checkpoints from the web, the hub and the mirror: resumed, verified, or one clear line."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from published_fixture import write_hf, write_study

from cgpt.data import checkpoint_files, download
from cgpt.errors import UserError
from cgpt.spec import Checkpoint, CheckpointFile, PublishedModel

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
FETCH = """
import json, sys
from pathlib import Path
from cgpt.data import checkpoint_files
from cgpt.errors import UserError
from cgpt.spec import Checkpoint, PublishedModel
row = PublishedModel("theirs", Checkpoint(hub="some/model", revision=sys.argv[1]))
try:
    checkpoint_files.fetch_config(row, Path())
    print("config", checkpoint_files.find_config(row, Path(), ""))
    print("folder", checkpoint_files.fetch_checkpoint(row, Path()))
except UserError as error:
    print(error)
"""


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder at /files, with ranges; the first answer of a whole model.safetensors breaks off in its middle.
    Below / it is a hub that holds the same as some/model, and below /gated one that asks for a permission."""

    folder: ClassVar[Path]
    asked: ClassVar[list[tuple[str, str | None, str | None]]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        path = self.path.partition("?")[0]
        if "gated" in path:
            return self._refuse(403, "GatedRepo")
        if COMMIT not in path and "/files/" not in path:
            return self._refuse(404, "RevisionNotFound")
        if path.startswith("/api/models/some/model"):
            return self._list()
        self._send(path.rpartition("/")[2])

    def _send(self, name: str) -> None:
        content = (self.folder / name).read_bytes()
        begin = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers["Range"] or "")) else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        broken = name == "model.safetensors" and not begin
        if self.command == "GET":
            self.wfile.write(content[begin : len(content) // 2] if broken else content[begin:])

    def _list(self) -> None:
        files = []
        for path in sorted(self.folder.iterdir()):
            content = path.read_bytes()
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            stored = {"lfs": lfs} if path.suffix == ".safetensors" else {}
            files.append({"rfilename": path.name, "size": len(content), "blobId": blob} | stored)
        body = json.dumps({"id": "some/model", "sha": COMMIT, "siblings": files}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, code: int, word: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", word)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def theirs(tmp_path, monkeypatch) -> Path:
    """A folder as transformers has it, beside an empty cache."""
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CGPT_DATA_MIRROR", raising=False)
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.0)
    return write_hf(tmp_path / "theirs", ["sea land hill", "river cat dog"])


@pytest.fixture
def server(theirs) -> Iterator[str]:
    Server.folder = theirs
    Server.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def listed(theirs: Path, address: str, **other: str) -> PublishedModel:
    files = [path for path in sorted(theirs.iterdir()) if path.name != "README.md"]
    sha256 = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} | other
    urls = {path.name: f"{address}/files/{path.name}?download=true" for path in files}
    files_ = tuple(CheckpointFile(urls[name], sha256[name]) for name in urls)
    return PublishedModel("theirs", Checkpoint(files=files_))


def call(server: str, commit: str = COMMIT, **variables: str) -> str:
    """Standard output of a process whose hub is the server."""
    environment = os.environ | {"HF_ENDPOINT": server, "HF_HUB_DISABLE_XET": "1"} | variables
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", FETCH, commit], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(folder: Path, theirs: Path) -> bool:
    names = checkpoint_files.needed(path.name for path in theirs.iterdir())
    return all((folder / name).read_bytes() == (theirs / name).read_bytes() for name in names)


def test_the_plan_asks_the_web_for_config_json_alone_and_a_cut_file_goes_on_where_it_broke(theirs, server):
    row = listed(theirs, server)
    checkpoint_files.fetch_config(row, Path())
    assert [path.partition("?")[0] for path, _, _ in Server.asked] == ["/files/config.json"]
    folder = checkpoint_files.fetch_checkpoint(row, Path())
    half = (theirs / "model.safetensors").stat().st_size // 2
    ranges = [each for path, each, _ in Server.asked if "safetensors" in path]
    assert ranges == [None, f"bytes={half}-"] and same(folder, theirs)
    Server.asked.clear()
    checkpoint_files.fetch_checkpoint(row, Path())
    assert not Server.asked


def test_a_file_that_is_not_what_the_row_says_is_refused_and_gone(theirs, server):
    row = listed(theirs, server, **{"model.safetensors": 64 * "a"})
    with pytest.raises(UserError, match=r"model.safetensors: its hash is [0-9a-f]{64}, not a{64}; get the file again"):
        checkpoint_files.fetch_checkpoint(row, Path())
    assert not list(Path(os.environ["CGPT_CACHE"]).rglob("model.safetensors"))


def test_the_mirror_serves_a_checkpoint_without_a_network_with_the_same_checksums(theirs, tmp_path, monkeypatch):
    monkeypatch.setenv("CGPT_DATA_MIRROR", str(tmp_path / "mirror"))
    for below in ("theirs", f"some/model/{COMMIT}"):
        shutil.copytree(theirs, tmp_path / "mirror" / below)
    hub = PublishedModel("theirs", Checkpoint(hub="some/model", revision=COMMIT))
    for row in (listed(theirs, "http://127.0.0.1:1"), hub):
        assert same(checkpoint_files.fetch_checkpoint(row, Path()), theirs)
    (tmp_path / "mirror/theirs/model.safetensors").write_bytes(b"another")
    with pytest.raises(UserError, match="model.safetensors: its hash is"):
        checkpoint_files.fetch_checkpoint(listed(theirs, "http://127.0.0.1:1"), Path())


def test_the_hub_is_asked_for_the_commit_and_every_file_has_the_hash_that_it_lists(theirs, server):
    printed = call(server, HF_TOKEN="hf_secret")
    folder = Path(printed.split()[-1])
    assert printed.startswith("config ") and folder.name == COMMIT and same(folder, theirs)
    asked = {path.partition("?")[0].rpartition("/")[2] for path, _, _ in Server.asked if "/resolve/" in path}
    assert asked == set(checkpoint_files.needed(path.name for path in theirs.iterdir()))
    assert all(COMMIT in path for path, _, _ in Server.asked)
    assert [each for _, each, _ in Server.asked if each]  # model.safetensors went on where it broke
    assert {token for _, _, token in Server.asked} == {"Bearer hf_secret"}
    Server.asked.clear()
    assert call(server) == printed and not Server.asked


def test_what_the_hub_has_not_or_gives_nobody_is_one_line_with_the_remedy(server):
    cases = ((server, "f" * 40, "it has no such commit"), (f"{server}/gated", COMMIT, "accept the terms on its page"))
    for address, commit, reason in cases:
        line = call(address, commit)
        assert line.count("\n") == 1 and f"some/model at {commit[:12]} cannot be had (" in line and reason in line
        assert "or put its files into some/model/" in line


def test_of_several_forms_of_weights_the_one_is_taken_that_transformers_takes():
    beside = ["config.json", "merges.txt", "vocab.json"]
    shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"]
    assert checkpoint_files.needed([*beside, "README.md", "rust_model.ot", *shards]) == sorted([*beside, *shards])
    whole = [*beside, *shards, "pytorch_model.bin", "model.safetensors", "flax_model.msgpack"]
    assert checkpoint_files.needed(whole) == sorted([*beside, "model.safetensors"])


def test_an_experiment_offline_says_in_one_line_what_is_missing_and_others_go_on(tmp_path, monkeypatch, capsys):
    from cgpt.__main__ import main

    study = write_study(tmp_path / "study")
    monkeypatch.chdir(study)
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))
    row = f"  absent: {{checkpoint: {{files: [{{url: 'http://127.0.0.1:1/config.json', sha256: {64 * 'a'}}}]}}}}\n"
    models = study / "workflows/models.yaml"
    models.write_text(models.read_text() + row)
    other = study / "workflows/experiments/absent.yaml"
    other.write_text((study / "workflows/experiments/alone.yaml").read_text().replace("[theirs]", "[absent]"))
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.0)
    assert main(["plan", "absent"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "config.json: http://127.0.0.1:1/config.json cannot be reached" in line
    assert main(["plan", "alone"]) == 0 and "absent" not in capsys.readouterr().err
    assert main(["list", "models"]) == 0 and "which is not here yet" in capsys.readouterr().out
