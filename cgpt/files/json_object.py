"""JSON files that hold one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cgpt.errors import UserError

MOST_BYTES = 1 << 28  # of a JSON file; vocabularies of a quarter of a million tokens take 40 MB
AGAIN = "get the file again"


def read_json(path: Path, remedy: str = AGAIN) -> dict[str, Any]:
    """A file that holds one JSON object. Raises UserError."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no file; {remedy}")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: has more than {MOST_BYTES >> 20} MiB; {remedy}")
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; name a checkpoint folder, or run its stage first") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: is no JSON object; {remedy}")
    return raw
