"""Files of published checkpoints from the web and the mirror: resumed, verified, or one clear line."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import shutil
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


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder at /files, with ranges; the first answer of a whole model.safetensors breaks off half-way."""

    folder: ClassVar[Path]
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Range"]))
        name = self.path.partition("?")[0].rpartition("/")[2]
        content = (self.folder / name).read_bytes()
        begin = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers["Range"] or "")) else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        broken = name == "model.safetensors" and not begin
        self.wfile.write(content[begin : len(content) // 2] if broken else content[begin:])

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


def same(folder: Path, theirs: Path) -> bool:
    names = checkpoint_files.needed(path.name for path in theirs.iterdir())
    return all((folder / name).read_bytes() == (theirs / name).read_bytes() for name in names)


def test_the_plan_asks_the_web_for_config_json_alone_and_a_cut_file_goes_on_where_it_broke(theirs, server):
    row = listed(theirs, server)
    checkpoint_files.fetch_config(row, Path())
    assert [path.partition("?")[0] for path, _ in Server.asked] == ["/files/config.json"]
    folder = checkpoint_files.fetch_checkpoint(row, Path())
    half = (theirs / "model.safetensors").stat().st_size // 2
    ranges = [each for path, each in Server.asked if "safetensors" in path]
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


def test_a_file_that_the_mirror_lacks_is_named_with_where_to_put_it(theirs, tmp_path, monkeypatch):
    monkeypatch.setenv("CGPT_DATA_MIRROR", str(tmp_path / "mirror"))
    shutil.copytree(theirs, tmp_path / "mirror/theirs")
    (tmp_path / "mirror/theirs/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"theirs/model.safetensors: is not there, .*; put its files into theirs below"):
        checkpoint_files.fetch_checkpoint(listed(theirs, "http://127.0.0.1:1"), Path())


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
