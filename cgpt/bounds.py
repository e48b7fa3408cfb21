"""Constraints that stand in a field's annotation and say what values it may have, beyond their type.

    n_layer: Annotated[int, Positive(10_000)]
    seeds: Annotated[tuple[Annotated[int, Range(0, 9)], ...], NotEmpty(), Distinct()]

The method `wrong(value)` of each says in one line what is wrong and what to write instead; None where nothing is.
`allowed()` says in a few words which values are right. `problems(cls, value)` asks them all of a value that was not
read from YAML.
"""

import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints

from cgpt.errors import did_you_mean

LONGEST_PATH = 240  # characters


class Constraint(Protocol):
    """A demand on the values of a field."""

    def wrong(self, value: Any) -> str | None:
        """The problem of a value that has the field's type, and what to write instead; None where there is none."""

    def allowed(self) -> str:
        """The values that are right, in a few words."""


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both included; `why` says what the least are needed for."""

    least: float
    most: float = math.inf
    why: str = ""

    def wrong(self, number: float) -> str | None:
        if number < self.least:
            return f"must be at least {self.least:,}{self.why}, not {number}; write {self.least:,} or more"
        return _greater(number, self.most)

    def allowed(self) -> str:
        return _short(self.least) + (" or more" if self.most == math.inf else f" to {_short(self.most)}")


@dataclass(frozen=True)
class Positive:
    """Numbers above 0, up to `most`; `why` says what they are needed for."""

    most: float = math.inf
    why: str = ""

    def wrong(self, number: float) -> str | None:
        if not number > 0:
            return f"must be greater than 0{self.why}, not {number}; write a positive number"
        return _greater(number, self.most)

    def allowed(self) -> str:
        return "above 0" + ("" if self.most == math.inf else f", at most {_short(self.most)}")


def _greater(number: float, most: float) -> str | None:
    return f"must be at most {most:,}, not {number}; write a smaller number" if number > most else None


def _short(number: float) -> str:
    return f"{number:,.10g}" if number < 10**10 else f"{number:.0e}".replace("e+", "e")


@dataclass(frozen=True)
class Fraction:
    """Numbers from 0, included, up to 1, which is not."""

    def wrong(self, number: float) -> str | None:
        return None if 0 <= number < 1 else f"must be from 0 up to 1, not {number}; write a fraction such as 0.1"

    def allowed(self) -> str:
        return "0 to below 1"


@dataclass(frozen=True)
class Documents:
    """Number of documents that are scored, or a share of them below 1, as lm-evaluation-harness's `limit` has it."""

    def wrong(self, limit: Any) -> str | None:
        if (type(limit) is int and limit >= 1) or (type(limit) is float and 0 < limit < 1):
            return None
        return f"must be a number of documents, or a share of them below 1, not {limit!r}; write e.g. 1000"

    def allowed(self) -> str:
        return "1 or more, or a share below 1"


class Choice:
    """One of a few words."""

    def __init__(self, *words: str):
        self.words = words

    def wrong(self, word: str) -> str | None:
        return None if word in self.words else f"'{word}' is not a choice; {did_you_mean(word, self.words)}"

    def allowed(self) -> str:
        return ", ".join(self.words[:-1]) + " or " * (len(self.words) > 1) + self.words[-1]


@dataclass(frozen=True)
class Pattern:
    """Text that matches a regular expression as a whole; `otherwise` follows the text that does not."""

    expression: str
    otherwise: str

    def wrong(self, text: str) -> str | None:
        return None if re.fullmatch(self.expression, text) else f"'{text}' {self.otherwise}"

    def allowed(self) -> str:
        return self.otherwise.partition("; write ")[2]


@dataclass(frozen=True)
class RelativePath:
    """A path of plain names that stays below the folder it starts from."""

    def wrong(self, path: str) -> str | None:
        plain = path.isprintable() and not {"", ".", ".."} & set(path.split("/"))
        if plain and len(path) <= LONGEST_PATH:
            return None
        return f"'{path}' leads out of its folder; write a relative path such as texts/train.txt"

    def allowed(self) -> str:
        return "a relative path that stays below its folder"


@dataclass(frozen=True)
class NotEmpty:
    """A list with an item at least."""

    remedy: str = "name at least one"

    def wrong(self, items: Sequence[Any]) -> str | None:
        return None if items else f"is empty; {self.remedy}"

    def allowed(self) -> str:
        return "at least one"


@dataclass(frozen=True)
class OrOne:
    """A list, or a single value that stands for a list of it; the reader of YAML makes it one."""

    def wrong(self, items: Sequence[Any]) -> str | None:
        return None

    def allowed(self) -> str:
        return "one, or a list"


@dataclass(frozen=True)
class Distinct:
    """A list without equal items; words that differ in case alone are equal, as some file systems have it."""

    def wrong(self, items: Sequence[Any]) -> str | None:
        words = [str(item).lower() for item in items]
        twice = next((item for item, word in zip(items, words, strict=True) if words.count(word) > 1), None)
        return None if len(set(words)) == len(words) else f"names {twice} twice; remove one of the two"

    def allowed(self) -> str:
        return "no two alike"


@dataclass(frozen=True)
class Ends:
    """Nothing, or the smallest and the largest value."""

    def wrong(self, values: Sequence[Any]) -> str | None:
        return None if len(values) in (0, 2) else f"has {len(values)} values; write the smallest and the largest one"

    def allowed(self) -> str:
        return "none, or the smallest and the largest"


@dataclass(frozen=True)
class KeysOf:
    """A mapping of some fields of a dataclass to values that these may have; the reader of YAML fills and checks it."""

    cls: type

    def wrong(self, values: Mapping[str, Any]) -> str | None:
        return None

    def allowed(self) -> str:
        return f"keys of `{self.cls.__name__.lower()}:`"


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The annotation of each field of a dataclass, constraints included."""
    annotations = get_type_hints(cls, include_extras=True)
    return {f.name: annotations[f.name] for f in fields(cls)}


def wrong(constraints: Sequence[Constraint], value: Any) -> str | None:
    """The problem by the first of the constraints that a value does not meet."""
    return next((problem for constraint in constraints if (problem := constraint.wrong(value))), None)


def problems(
    annotation: Any, value: Any, keys: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(keys, problem) of each constraint that a value of the right type, or its part at these keys, does not meet."""
    origin, args = get_origin(annotation), get_args(annotation)
    if value is None:
        return
    if origin is Annotated:
        if problem := wrong(args[1:], value):
            yield keys, problem
        yield from problems(args[0], value, keys)
    elif origin in (Union, types.UnionType):
        yield from problems(next(a for a in args if a is not type(None)), value, keys)
    elif origin is tuple:
        for i, item in enumerate(value):
            yield from problems(args[0], item, (*keys, i))
    elif origin is Mapping:
        for key, item in value.items():
            yield from problems(args[0], key, (*keys, key))
            yield from problems(args[1], item, (*keys, key))
    elif is_dataclass(annotation):
        for name, inner in field_types(annotation).items():  # type: ignore[arg-type]
            yield from problems(inner, getattr(value, name), (*keys, name))
