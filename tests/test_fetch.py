"""Fetching from a mirror, a server, a local path or the generator: verified, whole or not at all, or one clear line."""

import errno
import gzip
import hashlib
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from cgpt.data import download
from cgpt.errors import UserError
from cgpt.spec import DataFile, Dataset, Hub
from cgpt.stages import fetch as fetching
from cgpt.stages.fetch import fetch_dataset as fetch

TEXT = ("All happy families are alike.\n" * 100).encode()
SHA256 = hashlib.sha256(TEXT).hexdigest()
ROOT = Path(__file__).parents[1]
MIRROR = Path(os.environ.get(fetching.MIRROR) or ROOT.parent / "shared" / "data")


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fetching.MIRROR, raising=False)
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.0)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves TEXT at /text and gzipped at /text.gz; /flaky breaks off in the middle of its first two answers."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/gone":
            return self.send_error(404)
        if self.path in ("/away", "/endless", "/length"):
            return self._misbehave()
        body = gzip.compress(TEXT) if self.path.endswith(".gz") else TEXT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        broken = self.path == "/flaky" and self.asked.count("/flaky") < 3
        self.wfile.write(body[: len(body) // 2] if broken else body)

    def _misbehave(self) -> None:
        """Leads to a file of the machine, never ends, or gives a length that is none."""
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header(*(("Location", "file:///etc/passwd") if self.path == "/away" else ("Server", "test")))
        if self.path == "/length":
            self.send_header("Content-Length", "x")
        self.end_headers()
        try:
            while self.path == "/endless":
                self.wfile.write(TEXT)
        except OSError:  # the reader has gone
            pass

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def listed(path: str = "set/text.txt.gz", sha256: str | None = SHA256, url: str | None = None, **more: Any) -> Dataset:
    return Dataset("set", files=(DataFile(path, sha256, "train", url),), **more)


def problem(dataset: Dataset, out: Path) -> str:
    """The one line that fetching ends in; nothing may be left in the folder."""
    with pytest.raises(UserError) as caught:
        fetch(dataset, out)
    assert not out.exists() or list(out.iterdir()) == []
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("page", ["/text", "/text.gz"])
def test_a_plain_and_a_packed_download_give_the_same_verified_file(server: str, page: str, tmp_path: Path) -> None:
    record = fetch(listed(url=server + page, licence="public domain"), tmp_path)
    assert (tmp_path / "text.txt").read_bytes() == TEXT
    assert record["files"] == [{"name": "text.txt", "bytes": len(TEXT), "sha256": SHA256, "split": "train"}]
    assert record["licence"] == "public domain"
    assert json.loads((tmp_path / "fetched.json").read_text()) == record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched.json", "text.txt"]


def test_a_download_that_breaks_off_is_tried_again(server: str, tmp_path: Path) -> None:
    fetch(listed(url=server + "/flaky"), tmp_path)
    assert (tmp_path / "text.txt").read_bytes() == TEXT and len(Server.asked) == 3


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("/away", "cannot be reached (InvalidSchema)"),
        ("/endless", "goes on after 10,000 bytes"),
        ("/length", "answers with a Content-Length of 'x'"),
    ],
)
def test_an_answer_that_is_no_file_is_one_line_and_leaves_nothing(server, tmp_path, page, message):
    files = (DataFile("text.txt", SHA256, "train", server + page, max_bytes=10_000),)
    assert message in problem(Dataset("set", files=files), tmp_path)


def test_a_download_that_always_breaks_off_is_one_line(server: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(download, "TRIES", 2)
    assert "/flaky cannot be reached (ConnectionError)" in problem(listed(url=server + "/flaky"), tmp_path)


def test_a_download_slower_than_any_line_is_given_up(server: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(download, "PATIENCE_S", 0.0)
    monkeypatch.setattr(download, "LEAST_BYTES_PER_S", 1e12)
    assert "comes too slowly" in problem(listed(url=server + "/text"), tmp_path)


def test_a_packed_file_is_unpacked_up_to_its_bound(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(fetching.MIRROR, str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/zeros.gz").write_bytes(gzip.compress(bytes(4 << 20)))
    files = (DataFile("zeros.gz", SHA256, max_bytes=1 << 20),)
    assert "zeros.gz: has more than 1,048,576 bytes, unpacked" in problem(Dataset("set", files=files), tmp_path / "out")


@pytest.mark.parametrize(
    "entry",
    [
        {"files": (DataFile("../x.txt", SHA256),)},
        {"files": (DataFile("/etc/passwd", SHA256),)},
        {"files": (DataFile("a\0b", SHA256),)},
        {"files": (DataFile("text.txt", SHA256, "train", "file:///etc/passwd"),)},
        {"hub": Hub("owner/name", "0" * 40, splits=("../../../x",))},
        {"hub": Hub("owner/name", "0" * 40, config="../..")},
        {"hub": Hub("../..", "0" * 40)},
        {"hub": Hub("owner/..", "0" * 40)},
    ],
    ids=str,
)
def test_no_name_of_a_data_set_leads_out_of_its_folder(tmp_path: Path, entry: dict[str, Any]) -> None:
    assert problem(Dataset("set", **entry), tmp_path / "out").startswith("workflows/data.yaml: set.")
    assert list(tmp_path.iterdir()) == []


def test_a_file_called_as_the_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "Fetched.json"):
        (tmp_path / "texts" / name).write_bytes(TEXT)
    assert "a file is called fetched.json" in problem(Dataset("set", path=str(tmp_path / "texts")), tmp_path / "out")


def test_a_verified_file_is_not_downloaded_again(server: str, tmp_path: Path) -> None:
    fetch(listed(url=server + "/text"), tmp_path)
    fetch(listed(url=server + "/text"), tmp_path)
    assert Server.asked == ["/text"]


def test_a_wrong_checksum_names_both_and_leaves_nothing(server: str, tmp_path: Path) -> None:
    message = problem(listed(url=server + "/text", sha256="0" * 64), tmp_path)
    assert message == (
        f"set/text.txt.gz (from {server}/text): sha256: expected {'0' * 64}, got {SHA256}; "
        "get the file again, or correct the checksum in data.yaml if the new content is right"
    )


def test_a_missing_checksum_is_told_what_to_write(server: str, tmp_path: Path) -> None:
    assert problem(listed(url=server + "/text", sha256=None), tmp_path).endswith(f"write sha256: {SHA256}")


def test_an_unreachable_address_says_how_to_do_without(server: str, tmp_path: Path) -> None:
    gone = problem(listed(url=server + "/gone"), tmp_path)
    assert "404" in gone and "set CGPT_DATA_MIRROR" in gone and Server.asked == ["/gone"]
    closed = problem(listed(url="http://127.0.0.1:9/text"), tmp_path)
    assert closed == (
        "workflows/data.yaml: set.files: set/text.txt.gz: http://127.0.0.1:9/text cannot be reached (ConnectionError); "
        f"set CGPT_DATA_MIRROR to a folder that holds the file, or put it, unpacked, at {tmp_path / 'text.txt'}"
    )


def test_a_file_without_an_address_says_where_its_original_is(tmp_path: Path) -> None:
    assert problem(listed(home="https://example.org/set"), tmp_path) == (
        "workflows/data.yaml: set.files: set/text.txt.gz: has no public address of its own (made from "
        "https://example.org/set); set CGPT_DATA_MIRROR to a folder that holds it, or put it, unpacked, at "
        f"{tmp_path / 'text.txt'}"
    )
    (tmp_path / "text.txt").write_bytes(TEXT)
    assert fetch(listed(), tmp_path)["files"][0]["sha256"] == SHA256


def test_the_mirror_gives_packed_or_plain_files_and_all_problems_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror" / "set"
    mirror.mkdir(parents=True)
    monkeypatch.setenv(fetching.MIRROR, str(mirror.parent))
    (mirror / "a.txt.gz").write_bytes(gzip.compress(TEXT))
    (mirror / "b.txt").write_bytes(TEXT)
    (mirror / "c.txt.gz").write_bytes(gzip.compress(TEXT)[:50])
    files = {name: DataFile(f"set/{name}.txt.gz", SHA256) for name in "abcd"}
    record = fetch(Dataset("set", files=(files["a"], files["b"])), tmp_path / "out")
    assert [file["name"] for file in record["files"]] == ["a.txt", "b.txt"]
    with pytest.raises(UserError) as caught:
        fetch(Dataset("set", files=tuple(files.values())), tmp_path / "out")
    broken, absent = caught.value.problems
    assert "c.txt.gz: is broken gzip" in broken
    assert f"is not in the mirror; put it at {mirror / 'd.txt.gz'}" in absent
    assert not (tmp_path / "out" / "c.txt").exists()


def test_a_local_folder_gives_its_files_by_split_and_a_file_is_all(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("train.txt", "dev.txt", "test_2016.txt", "trainers.txt", "README.md", ".hidden"):
        (folder / name).write_bytes(TEXT)
    (folder / "more.txt.gz").write_bytes(gzip.compress(TEXT))
    splits = {file["name"]: file["split"] for file in fetch(Dataset("x", path=str(folder)), tmp_path / "a")["files"]}
    assert splits == {"train.txt": "train", "dev.txt": "validation", "test_2016.txt": "test", "trainers.txt": "all",
                      "more.txt": "all"}  # fmt: skip
    assert fetch(Dataset("x", path=str(folder / "test_2016.txt")), tmp_path / "b")["files"][0]["split"] == "all"


def test_missing_and_empty_local_files_are_refused(tmp_path: Path) -> None:
    message = problem(Dataset("x", path=str(tmp_path / "no")), tmp_path / "out")
    where = f"workflows/data.yaml: x.path: '{tmp_path / 'no'}'"
    assert message == f"{where} does not exist; write a file or folder that does"
    (tmp_path / "empty.txt").touch()
    assert "empty.txt: is empty" in problem(Dataset("x", path=str(tmp_path / "empty.txt")), tmp_path / "out")
    (tmp_path / "folder").mkdir()
    assert "holds no files" in problem(Dataset("x", path=str(tmp_path / "folder")), tmp_path / "out")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = Dataset("set", files=(DataFile("a/x.txt", SHA256), DataFile("b/x.txt.gz", SHA256)))
    assert "two files are called x.txt" in problem(twice, tmp_path)


def test_no_disk_space_is_said_before_and_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    local = Dataset("x", path=str(tmp_path / "text.txt"))

    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "_copy", full)
        assert "no disk space is left" in problem(local, tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert f"{len(TEXT)} bytes are needed, 10 are free" in problem(local, tmp_path / "out")


def test_the_builtin_world_is_fetched_with_one_corpus_file(tmp_path: Path) -> None:
    pytest.importorskip("cgpt.data.world", reason="the generator is not there")
    files = fetch(Dataset("world", builtin="world", seed=0), tmp_path)["files"]
    assert [file["name"] for file in files if file["split"] == "all"] == ["corpus.jsonl"]
    assert len(files) > 1 and {file["split"] for file in files} == {"all", "task"}
    assert "did you mean 'world'?" in problem(Dataset("w", builtin="wrold"), tmp_path / "other")


def test_every_entry_of_data_yaml_verifies_against_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not MIRROR.is_dir():
        pytest.skip(f"no mirror of the data sets: set {fetching.MIRROR}")
    monkeypatch.setenv(fetching.MIRROR, str(MIRROR))
    entries = yaml.safe_load((ROOT / "workflows" / "data.yaml").read_text())["datasets"]
    for name, entry in entries.items():
        files = tuple(DataFile(**file) for file in entry.pop("files", ()))
        if files:
            record = fetch(Dataset(name=name, files=files, **entry), tmp_path / name)
            assert [file["sha256"] for file in record["files"]] == [file.sha256 for file in files]


HUB = Hub("owner/name", "0123456789abcdef" * 2 + "01234567", config="plain", splits=("train", "test"))
ROWS = {
    "train": [{"text": "é\u2028 one", "label": 0}, {"text": "two", "label": 1}],
    "test": [{"text": "3", "label": 1}],
}


def test_a_data_set_of_the_hub_becomes_one_file_of_json_lines_per_split(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(path, name, split, revision):
        asked.append((path, name, split, revision))
        return datasets.Dataset.from_list(ROWS[split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    record = fetch(Dataset("hub", hub=HUB), tmp_path / "hub")
    assert asked == [("owner/name", "plain", split, HUB.revision) for split in ("train", "test")]
    assert [(file["name"], file["split"]) for file in record["files"]] == [
        ("train.jsonl", "train"),
        ("test.jsonl", "test"),
    ]
    for split, rows in ROWS.items():
        lines = (tmp_path / f"hub/{split}.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        assert [json.loads(line) for line in lines] == rows
    assert record["hub"]["revision"] == HUB.revision


def test_a_split_of_the_hub_comes_from_the_mirror_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setenv(fetching.MIRROR, str(tmp_path / "mirror"))
    folder = tmp_path / "mirror/owner/name" / HUB.revision / "plain"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"text": "one"}\n')
    (folder / "test.jsonl.gz").write_bytes(gzip.compress(b'{"text": "two"}\n'))
    monkeypatch.setattr(fetching, "load_split", None)
    fetch(Dataset("hub", hub=HUB), tmp_path / "hub")
    assert (tmp_path / "hub/test.jsonl").read_text() == '{"text": "two"}\n'


def test_without_a_network_a_data_set_of_the_hub_says_what_it_needs_and_where_to_put_it(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    below = f"owner/name/{HUB.revision}/plain/train.jsonl"
    needed = ("workflows/data.yaml: hub.hub: owner/name (plain) at 0123456789ab, split 'train', is not cached and "
              "cannot be had (Couldn't reach 'owner/name' on the Hub); connect to the network, or ")  # fmt: skip
    with pytest.raises(UserError) as caught:
        fetch(Dataset("hub", hub=HUB), tmp_path / "hub")
    assert (
        str(caught.value) == f"{needed}set CGPT_DATA_MIRROR to a folder that holds its rows, as JSON lines, at {below}"
    )
    monkeypatch.setenv(fetching.MIRROR, str(tmp_path))
    with pytest.raises(UserError) as caught:
        fetch(Dataset("hub", hub=HUB), tmp_path / "hub")
    assert str(caught.value) == f"{needed}put its rows, as JSON lines, at {tmp_path / below}"
    assert not list((tmp_path / "hub").iterdir())
