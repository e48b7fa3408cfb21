"""A hub on this machine, which answers as huggingface.co does: a list of files, small ones itself, large ones from a
second host, to which it leads. What is asked is kept, and what goes wrong is told to it beforehand."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

TOKEN = "hf_secret"
MODEL = r"(?P<model>[^/]+/[^/]+)"
PATHS = rf"/api/models/{MODEL}/revision/(?P<at>.+)", rf"/{MODEL}/resolve/(?P<at>\w+)/(?P<file>.+)"
LARGE = (".safetensors", ".bin")  # stored apart


class Asked(NamedTuple):
    """One request: to the hub or to the second host, with the bytes of content that were sent."""

    host: str
    method: str
    path: str
    range: str | None
    authorization: str | None
    sent: int


@dataclass
class Hub:
    """Models by name: their commit and folder. `moved` has the new names of models, `closed` the X-Error-Code of those
    that want a token; `troubles` are given as answers to the next requests for files, `cuts` are bytes after which the
    second host breaks off, one for each answer."""

    models: Mapping[str, tuple[str, Path]]
    moved: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    troubles: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    ignores_ranges: bool = False
    asked: list[Asked] = field(default_factory=list)
    address: str = ""
    second: str = ""

    def of(self, host: str, name: str = "") -> list[Asked]:
        """What was asked of a host, of files of this name."""
        return [each for each in self.asked if each.host == host and name in each.path]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve the hub and its second host while the block runs."""
    handlers = [type(name, (Handler,), {"hub": hub, "host": name}) for name in ("hub", "second")]
    with (http.server.ThreadingHTTPServer(("127.0.0.1", 0), handlers[0]) as first,
          http.server.ThreadingHTTPServer(("127.0.0.1", 0), handlers[1]) as second):  # fmt: skip
        hub.address = f"http://127.0.0.1:{first.server_address[1]}"
        hub.second = f"http://localhost:{second.server_address[1]}"
        for server in (first, second):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield hub
        first.shutdown()
        second.shutdown()


def git_sha1(content: bytes) -> str:
    """The hash of a file in git."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """One of the two hosts."""

    hub: Hub
    host: str

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if self.host == "second":
            return self._content(self.hub.models[path.split("/stored/")[0][1:]][1] / path.rpartition("/")[2])
        match = next(filter(None, (re.fullmatch(pattern, path) for pattern in PATHS)), None)
        if match is None:
            return self._send(404, {})
        name = match["model"]
        if name in self.hub.moved:
            return self._send(307, {"Location": self.path.replace(name, self.hub.moved[name], 1)})
        if self.headers["Authorization"] not in (None, f"Bearer {TOKEN}"):
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if name not in self.hub.models:
            known = self.headers["Authorization"] is not None
            return (
                self._refuse(404, "RepoNotFound") if known else self._refuse(401, "", "Invalid username or password.")
            )
        commit, folder = self.hub.models[name]
        if match["at"] not in (commit, "main"):
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        if "file" not in match.groupdict():
            return self._send(200, {"Content-Type": "application/json"}, self._listing(name, commit, folder))
        self._file(name, commit, folder / match["file"])

    def _file(self, name: str, commit: str, path: Path) -> None:
        if name in self.hub.closed and self.headers["Authorization"] is None:
            return self._refuse(401, self.hub.closed[name])
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        if self.hub.troubles:
            status, headers = self.hub.troubles.pop(0)
            return self._send(status, headers)
        content = path.read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(content)}"', "Accept-Ranges": "bytes"}
        if path.suffix not in LARGE:
            return self._content(path, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        self._send(
            302, headers | {"Location": f"{self.hub.second}/{name}/stored/{path.name}?signature=of-{sha256[:8]}"}
        )

    def _content(self, path: Path, headers: Mapping[str, str] = {}) -> None:
        content = path.read_bytes()
        match = None if self.hub.ignores_ranges else re.match(r"bytes=(\d+)-", self.headers["Range"] or "")
        begin, end = int(match[1]) if match else 0, len(content)
        if match and begin >= end:
            return self._send(416, {"Content-Range": f"bytes */{end}"})
        if match:
            headers = {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{end}"}
        cut = self.hub.cuts.pop(0) if self.hub.cuts and self.host == "second" and self.command == "GET" else None
        self._send(206 if match else 200, headers, content[begin:], cut)

    @staticmethod
    def _listing(name: str, commit: str, folder: Path) -> bytes:
        files = []
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            stored = {"lfs": lfs} if path.suffix in LARGE else {}
            files.append({"rfilename": path.name, "size": len(content), "blobId": git_sha1(content)} | stored)
        return json.dumps({"id": name, "sha": commit, "siblings": files}).encode()

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, {key: value for key, value in headers.items() if value})

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"", cut: int | None = None) -> None:
        sent = body[:cut] if self.command == "GET" else b""
        asked = Asked(
            self.host, self.command, self.path, self.headers["Range"], self.headers["Authorization"], len(sent)
        )
        self.hub.asked.append(asked)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *values: object) -> None:
        pass
