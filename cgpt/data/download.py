"""One file from the web, within bounds of size and patience."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cgpt.errors import UserError

if TYPE_CHECKING:
    import requests

TRIES, RETRY_WAIT_S = 3, 2.0
LONGEST_WAIT_S = 60.0  # that a server may ask for
SILENCE_S = 30  # without a byte
PATIENCE_S, LEAST_BYTES_PER_S = 60.0, 1000  # slower than that on average, once this time is over, is no download
BLOCK_BYTES = 1 << 20
PARTIAL_CONTENT, NOTHING_AFTER, TOO_MANY = 206, 416, 429  # HTTP: a part as asked for; it has no such part; wait


class Refused(UserError):
    """A server has no such file, or does not give it to whoever asks; `response` is its answer."""

    def __init__(self, line: str, response: "requests.Response"):
        super().__init__(line)
        self.response = response


def download(
    url: str, target: Path, max_bytes: int, where: str, remedy: str, go_on: bool = False, token: str | None = None
) -> None:
    """Write what is at `url` to `target`, with a progress bar, trying again when the connection breaks.

    `go_on`: after the bytes that are there, which the caller checks by a hash; else from the beginning. `token` is
    shown to the host of `url`, and to none that it leads to. Raises UserError, which begins with `where` and ends with
    `remedy`, where that fails or takes too long, and where there are more than `max_bytes`; Refused where the server
    refuses.
    """
    import requests

    tries, problem = 0, ""
    while tries < TRIES:
        n_before, wait_s = _size(target) if go_on else 0, RETRY_WAIT_S * 2**tries
        try:
            return _download(url, target, max_bytes, n_before, _bearer(token), go_on)
        except _NotGiven as error:
            response, problem = error.response, f"is refused ({error.response.status_code} {error.response.reason})"
            if response.status_code < 500 and response.status_code != TOO_MANY:
                raise Refused(f"{where}: {url} {problem}; {remedy}", response) from None
            wait_s = _asked_wait_s(response, wait_s)
            if wait_s > LONGEST_WAIT_S:
                later = f"run it again in {wait_s:.0f} s"
                raise UserError(f"{where}: {url} {problem}; {later}, or {remedy}") from None
            if wait_s >= 1 and tries + 1 < TRIES:
                print(f"{where}: {url} {problem}; the next try is in {wait_s:.0f} s", file=sys.stderr)
        except _Unfit as error:
            raise UserError(f"{where}: {url} {error}; {remedy}") from None
        except requests.RequestException as error:
            problem = f"cannot be reached ({type(error).__name__})"
        tries = 0 if go_on and _size(target) - n_before >= BLOCK_BYTES else tries + 1  # whoever brings some may break
        if tries < TRIES:
            time.sleep(wait_s)
    raise UserError(f"{where}: {url} {problem}; {remedy}")


class _Unfit(Exception):
    """The answer is no file that was asked for; to try again changes nothing."""


class _NotGiven(Exception):
    """The answer is none of success."""

    def __init__(self, response: "requests.Response"):
        super().__init__()
        self.response = response


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _bearer(token: str | None) -> Callable[[Any], Any] | None:
    """A function that shows the token with a request. As a header alone ~/.netrc would win over it."""

    def show(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return show if token else None


def _asked_wait_s(response: "requests.Response", otherwise: float) -> float:
    """Seconds that a server asks for before the next try: Retry-After (RFC 9110), or RateLimit, as the hub has it."""
    after = response.headers.get("Retry-After", "").strip()
    reset = re.search(r"\br=0\s*;\s*t=(\d+)", response.headers.get("RateLimit", ""))
    return float(after) if after.isdecimal() else float(reset[1]) if reset else otherwise


def _download(url: str, target: Path, max_bytes: int, n_there: int, auth: Any, go_on: bool) -> None:
    """Fetch what follows the first `n_there` bytes, or all of it where the server gives no such part."""
    import requests

    headers = {"Range": f"bytes={n_there}-"} if n_there else {}
    if go_on:  # bytes are counted as they are sent
        headers["Accept-Encoding"] = "identity"
    with requests.get(url, stream=True, timeout=SILENCE_S, headers=headers, auth=auth) as response:
        part = response.headers.get("Content-Range", "")
        if n_there and response.status_code in (PARTIAL_CONTENT, NOTHING_AFTER):
            if response.status_code == NOTHING_AFTER and part == f"bytes */{n_there}":
                return  # all is there
            if not part.startswith(f"bytes {n_there}-"):
                target.unlink()
                return _download(url, target, max_bytes, 0, auth, go_on)
        if response.status_code // 100 != 2:
            raise _NotGiven(response)
        _write(response, target, max_bytes, n_there if response.status_code == PARTIAL_CONTENT else 0)


def _write(response: "requests.Response", target: Path, max_bytes: int, n_there: int) -> None:
    """Write the answer to the target, after the bytes that are there."""
    import requests
    import urllib3

    length = _length(response.headers.get("Content-Length"))
    if n_there + (length or 0) > max_bytes:
        raise _Unfit(f"has {n_there + (length or 0):,} bytes, more than {max_bytes:,}")
    total = None if length is None else n_there + length
    started, n_bytes = time.monotonic(), n_there
    with (
        target.open("ab" if n_there else "wb") as file,
        tqdm(total=total, initial=n_there, unit="B", unit_scale=True, desc=target.name, leave=False, delay=1) as bar,
    ):
        try:
            while block := response.raw.read1(BLOCK_BYTES, decode_content=True):
                file.write(block)
                n_bytes += len(block)
                bar.update(len(block))
                waited = time.monotonic() - started
                if n_bytes > max_bytes:
                    raise _Unfit(f"goes on after {max_bytes:,} bytes")
                if waited > PATIENCE_S and n_bytes - n_there < LEAST_BYTES_PER_S * waited:
                    raise _Unfit(f"comes too slowly, {n_bytes - n_there:,} bytes in {waited:.0f} s")
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error) from None


def _length(header: Any) -> int | None:
    """The number in a Content-Length header; None without one."""
    if header is None:
        return None
    if not header.strip().isdecimal():
        raise _Unfit(f"answers with a Content-Length of '{header}'")
    return int(header)
