"""One file from the web, within bounds of size and patience."""

import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cgpt.errors import UserError

TRIES, RETRY_WAIT_S = 3, 2.0
SILENCE_S = 30  # without a byte
PATIENCE_S, LEAST_BYTES_PER_S = 60.0, 1000  # slower than that on average, once this time is over, is no download
BLOCK_BYTES = 1 << 20
PARTIAL_CONTENT = 206  # HTTP: the bytes that were asked for, not all


def download(
    url: str, target: Path, max_bytes: int, where: str, remedy: str, go_on: bool = False, token: str | None = None
) -> None:
    """Write what is at `url` to `target`, with a progress bar, trying again when the connection breaks.

    `go_on`: after the bytes that are there, which the caller checks by a hash; else from the beginning. `token` is
    shown to the host of `url`, and to none that it leads to. Raises UserError, which begins with `where` and ends with
    `remedy`, where that fails or takes too long, and where there are more than `max_bytes`.
    """
    import requests

    problem = ""
    for attempt in range(TRIES):
        n_there = target.stat().st_size if go_on and target.is_file() else 0
        try:
            return _download(url, target, max_bytes, n_there, {"Authorization": f"Bearer {token}"} if token else {})
        except requests.HTTPError as error:
            problem = f"is refused ({error})"
            if error.response is not None and error.response.status_code < 500:
                break
        except _Unfit as error:
            problem = str(error)
            break
        except requests.RequestException as error:
            problem = f"cannot be reached ({type(error).__name__})"
        if attempt + 1 < TRIES:
            time.sleep(RETRY_WAIT_S * 2**attempt)
    raise UserError(f"{where}: {url} {problem}; {remedy}")


class _Unfit(Exception):
    """The answer is no file that was asked for; to try again changes nothing."""


def _download(url: str, target: Path, max_bytes: int, n_there: int, headers: dict[str, str]) -> None:
    import requests
    import urllib3

    rest = {"Range": f"bytes={n_there}-"} if n_there else {}
    with requests.get(url, stream=True, timeout=SILENCE_S, headers=headers | rest) as response:
        if n_there and response.status_code != PARTIAL_CONTENT:  # no part is given, or there is none after these bytes
            target.unlink()
            return _download(url, target, max_bytes, 0, headers)
        response.raise_for_status()
        length = _length(response.headers.get("Content-Length"))
        if n_there + (length or 0) > max_bytes:
            raise _Unfit(f"has {n_there + (length or 0):,} bytes, more than {max_bytes:,}")
        total = None if length is None else n_there + length
        started, n_bytes = time.monotonic(), n_there
        with (
            target.open("ab" if n_there else "wb") as file,
            tqdm(
                total=total, initial=n_there, unit="B", unit_scale=True, desc=target.name, leave=False, delay=1
            ) as bar,
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
