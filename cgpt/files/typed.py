"""Typed records from plain values: of JSON, or of the cells of a table."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args, get_type_hints

from cgpt.errors import UserError, did_you_mean

T = TypeVar("T")


def fill(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A `kind`, which is a dataclass, of exactly its keys; those with a default may be left out.

    Raises UserError, one line for each key that is missing, unknown or of the wrong type.
    """
    types = get_type_hints(kind)
    required = [field.name for field in fields(kind) if field.default is MISSING]  # type: ignore[arg-type]
    problems = [f"{where}: {key}: is missing; every result has this key" for key in required if key not in values]
    for key, value in values.items():
        if key not in types:
            problems.append(f"{where}: {key}: is not a key of {kind.__name__}; {did_you_mean(key, types)}")
        elif not is_of(value, types[key]):
            wanted = getattr(types[key], "__name__", str(types[key]))
            problems.append(f"{where}: {key}: {value!r} does not fit; expected {wanted}")
    if problems:
        raise UserError(*problems)
    return kind(**values)


def is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: a bool is no number, a whole number is also a float; NaN, infinity and what no
    float holds are none."""
    kinds = get_args(hint) or (hint,)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max and (float in kinds or type(value) in kinds)
    return type(value) in kinds


def from_cell(text: str, hint: Any) -> Any:
    """The value of a table's cell: text, a whole number, true or false; None in an empty one of the latter.

    Raises ValueError for anything else.
    """
    kinds = get_args(hint) or (hint,)
    if str in kinds:
        return text
    if not text:
        return None
    if bool not in kinds:
        return int(text)
    if text not in ("true", "false"):
        raise ValueError(f"'{text}' is neither true nor false")
    return text == "true"
