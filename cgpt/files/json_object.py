"""JSON files that hold one object: the one reader of results, of configurations and of what is kept between runs."""

import json
from pathlib import Path
from typing import Any

from cgpt.errors import UserError
from cgpt.files.user_files import read_text

MOST_BYTES = 1 << 28  # vocabularies of a quarter of a million tokens take 40 MB
AGAIN = "get the file again"


def read_object(path: Path, remedy: str = AGAIN, missing: str = "") -> dict[str, Any]:
    """The object in a JSON file. Raises UserError, which `remedy` ends, or `missing` where there is no such file."""
    try:
        text = read_text(path, MOST_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {missing or remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; {remedy}") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "is nested too deep" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: is not JSON ({reason}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__}, no JSON object; {remedy}")
    return content
