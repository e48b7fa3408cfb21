"""Fills frozen dataclasses from a strictly read YAML mapping, noting every wrong key, type and value."""

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from cgpt.bounds import KeysOf, OrOne, field_types, wrong
from cgpt.errors import did_you_mean, one_line
from cgpt.files.yaml_file import MOST_SHOWN, NUMBER_READ_AS_TEXT, REFUSED, Keys, YamlFile

T = TypeVar("T")
GREATEST_INT = 2**63 - 1
MOST_UNKNOWN_KEYS = 20  # of one block, each with a suggestion
_TYPE_NAMES: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class Mismatch(Exception):
    """Raised for a value that its key cannot have; the problem is noted already."""


def fill(cls: type[T], mapping: Any, keys: Keys, file: YamlFile, **given: Any) -> T | None:
    """Make a `cls` of `mapping`, which stands at `keys` of `file`; `given` holds fields that no key sets.

    Returns None where a problem was noted, so that a caller can go on and find the others.
    """
    before = len(file.problems)
    values = fill_fields(cls, mapping, keys, file, tuple(given))
    whole = all(f.name in values or f.name in given or not _required(f) for f in fields(cls))  # type: ignore[arg-type]
    return cls(**values, **given) if whole and len(file.problems) == before else None


def fill_fields(cls: type, mapping: Any, keys: Keys, file: YamlFile, hidden: tuple[str, ...] = ()) -> dict[str, Any]:
    """Typed values of the keys that are given and right; notes wrong, unknown and missing ones."""
    values = fill_given(cls, mapping, keys, file, hidden)
    for f in fields(cls):
        if isinstance(mapping, dict) and f.name not in mapping and f.name not in hidden and _required(f):
            file.problem((*keys, f.name), f"is missing; write `{f.name}: <{_describe(field_types(cls)[f.name])}>`")
    return values


def fill_given(cls: type, mapping: Any, keys: Keys, file: YamlFile, hidden: tuple[str, ...] = ()) -> dict[str, Any]:
    """Typed values as of `fill_fields`, where any key may be missing."""
    if not isinstance(mapping, dict):
        file.problem(keys, f"must be a mapping, not {_show(mapping)}; write `key: value` lines below it")
        return {}
    known = {name: hint for name, hint in field_types(cls).items() if name not in hidden}
    values = {}
    unknown = [key for key in mapping if key not in known]
    for key in unknown[:MOST_UNKNOWN_KEYS]:
        file.problem((*keys, key), f"unknown key; {did_you_mean(key, known)}")
    if len(unknown) > MOST_UNKNOWN_KEYS:
        file.problem(keys, f"has {len(unknown) - MOST_UNKNOWN_KEYS} more unknown keys; remove them")
    for key, value in mapping.items():
        if key not in known:
            continue
        try:
            values[key] = convert(value, known[key], (*keys, key), file)
        except Mismatch:
            pass
    return values


def convert(value: Any, hint: Any, keys: Keys, file: YamlFile) -> Any:
    """`value` as the type `hint`, whose constraints it meets; raises Mismatch after noting what was wrong."""
    if value is REFUSED:
        raise Mismatch
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _convert_constrained(value, args[0], args[1:], keys, file)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else convert(value, next(a for a in args if a is not type(None)), keys, file)
    if origin is tuple:
        items = _expect(value, list, "a list, `[a, b]`", keys, file)
        return tuple(_convert_all(((item, args[0], (*keys, i)) for i, item in enumerate(items)), file))
    if origin is Mapping:
        mapping = _expect(value, dict, "a mapping of `key: value` lines", keys, file)
        _convert_all(((key, args[0], (*keys, key)) for key in mapping), file)
        items = _convert_all(((item, args[1], (*keys, key)) for key, item in mapping.items()), file)
        return dict(zip(mapping, items, strict=True))
    if is_dataclass(hint):
        made = fill(hint, value, keys, file)  # type: ignore[arg-type]
        if made is None:
            raise Mismatch
        return made
    return _convert_scalar(value, hint, keys, file)


def _convert_constrained(value: Any, hint: Any, constraints: Sequence[Any], keys: Keys, file: YamlFile) -> Any:
    if isinstance(constraints[0], KeysOf):
        return fill_given(constraints[0].cls, value, keys, file)
    if isinstance(constraints[0], OrOne) and value is not None and not isinstance(value, list):
        return (convert(value, get_args(hint)[0], keys, file),)
    typed = convert(value, hint, keys, file)
    problem = None if typed is None else wrong(constraints, typed)
    if problem:
        file.problem(keys, problem)
        raise Mismatch
    return typed


def _convert_all(items: Iterable[tuple[Any, Any, Keys]], file: YamlFile) -> list[Any]:
    """Each (value, type, keys) converted, so that the problems of all are noted; raises Mismatch where one has any."""
    converted, refused = [], False
    for value, hint, keys in items:
        try:
            converted.append(convert(value, hint, keys, file))
        except Mismatch:
            refused = True
    if refused:
        raise Mismatch
    return converted


def _convert_scalar(value: Any, hint: type, keys: Keys, file: YamlFile) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is int and abs(value) > GREATEST_INT:
        file.problem(keys, f"{_show(value)} is greater than a 64-bit number can be; write a smaller one")
        raise Mismatch
    if hint in (int, float) and isinstance(value, str) and NUMBER_READ_AS_TEXT.fullmatch(value):
        instead = _spell(float(value), hint) if math.isfinite(float(value)) else "a smaller one"
        file.problem(keys, f"YAML reads {_show(value)[1:-1]} as text, not as a number; write {instead}")
        raise Mismatch
    if hint is int and isinstance(value, float) and value.is_integer():
        file.problem(keys, f"must be a whole number, not {value}; write {int(value)}")
        raise Mismatch
    return _expect(value, hint, _TYPE_NAMES[hint], keys, file)


def _expect(value: Any, kind: type, description: str, keys: Keys, file: YamlFile) -> Any:
    if type(value) is not kind:
        file.problem(keys, f"must be {description.split(',')[0]}, not {_show(value)}; write {description}")
        raise Mismatch
    return value


def _spell(number: float, kind: type) -> str:
    """How YAML wants a number that it took for text: 3e-3 -> `0.003 or 3.0e-03`, 1.25e17 -> `1.25e+17`."""
    if kind is int and number.is_integer():
        return str(int(number))
    plain = repr(number)
    mantissa, exponent = f"{number:e}".split("e")
    scientific = f"{float(mantissa)}e{exponent[0]}{int(exponent[1:])}"
    return scientific if "e" in plain else f"{plain} or {scientific}"


def _show(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is REFUSED:
        return "this"
    return str(value).lower() if isinstance(value, bool) else one_line(repr(value), MOST_SHOWN)


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Annotated, Union, types.UnionType):
        return _describe(next(a for a in get_args(hint) if a is not type(None)))
    return "list" if get_origin(hint) is tuple else _TYPE_NAMES.get(hint, "block")


def _required(f: Field) -> bool:
    return f.default is MISSING and f.default_factory is MISSING
