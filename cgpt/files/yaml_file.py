"""A YAML file read strictly: duplicate keys and YAML's silent traps are problems, each with its line."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cgpt.errors import one_line
from cgpt.files.user_files import read_text

Keys = tuple[str | int, ...]  # where a value stands: ("gpt-1m", "n_layer") or ("files", 0, "sha256")

# Bounds far above what people write, so that no file takes more than a moment or the memory to read.
MOST_BYTES, MOST_LEVELS, MOST_VALUES, MOST_DIGITS = 1 << 20, 60, 100_000, 400
MOST_SHOWN = 40  # characters of a value in a message
# No text needs a control character, and no SVG, file name or terminal bears one.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
NUMBER_READ_AS_TEXT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")
REFUSED = object()  # stands for a scalar whose problem is already noted
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()
FUNCTION = "!function"  # lm-evaluation-harness's tag for Python
_TAG = "tag:yaml.org,2002:"


class TooMuch(Exception):
    """A file beyond what any of ours needs; holds what is wrong with it."""


@dataclass
class YamlFile:
    """Content of one file: `value`, the line of each key, and the problems noted so far."""

    path: str  # as messages print it, relative to the project
    value: Any = None
    lines: dict[Keys, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    problem_keys: list[Keys] = field(default_factory=list)  # where each of them is
    n_values: int = 0  # an alias counts as all that it stands for
    functions: bool = False  # whether `!function <name>` may stand for a value, which then is {"!function": name}

    def problem(self, keys: Keys, what: str) -> None:
        """Note one problem at `keys`: `file:line: key.path: what was wrong; what to write instead`."""
        nearest = next((keys[:n] for n in range(len(keys), -1, -1) if keys[:n] in self.lines), ())
        line = f":{self.lines[nearest]}" if nearest in self.lines else ""
        key = ".".join(map(str, keys))
        self.problems.append(f"{self.path}{line}: {key + ': ' if key else ''}{what}")
        self.problem_keys.append(keys)


def read(path: Path, root: Path, functions: bool = False, prefix: str = "") -> YamlFile:
    """Read the mapping in `path`; where the file is no such mapping, `value` is empty and `problems` says why.

    Messages name the file from `root`, after `prefix`.
    """
    file = YamlFile(prefix + path.relative_to(root).as_posix(), {}, functions=functions)
    try:
        text = read_text(path, MOST_BYTES)
        _refuse_depth(text)
        node = yaml.compose(text, Loader=_Loader)
        if not isinstance(node, yaml.MappingNode):
            file.problem((), f"holds {'nothing' if node is None else 'no mapping'}; write `key: value` lines")
        else:
            file.value = _build(node, (), file, frozenset())
    except OSError as error:
        file.problem((), f"cannot be read ({error.strerror}); check the file and its permissions")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        file.lines[()] = mark.line + 1 if mark else 1
        reason = str(getattr(error, "problem", error)).splitlines()[0]
        file.problem((), f"is not valid YAML ({reason}); check indentation, colons, quotes")
    except (TooMuch, ValueError) as error:
        file.value, file.lines = {}, {}
        file.problem((), f"{error}; write a text file of `key: value` lines in UTF-8")
    return file


def _refuse_depth(text: str) -> None:
    """Raise TooMuch for nesting that would end Python's or the C library's stack."""
    level = 0
    for event in yaml.parse(text, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise TooMuch(f"is nested more than {MOST_LEVELS} levels deep")


def _build(node: yaml.Node, keys: Keys, file: YamlFile, above: frozenset[int]) -> Any:
    """The Python value of a node; `above` holds the nodes that contain it, so that a cycle is noticed."""
    file.lines.setdefault(keys, node.start_mark.line + 1)
    file.n_values += 1
    if file.n_values > MOST_VALUES:
        raise TooMuch(f"holds more than {MOST_VALUES:,} values, aliases written out")
    if id(node) in above:
        file.problem(keys, "the alias contains itself; write the value out")
        return REFUSED
    above |= {id(node)}
    if not isinstance(node, yaml.ScalarNode) and node.tag not in (_TAG + "seq", _TAG + "map"):
        file.problem(keys, f"has the tag {node.tag}, which is not used here; write plain values, without a tag")
        return REFUSED
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*keys, i), file, above) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, keys, file, above)
    if file.functions and node.tag == FUNCTION:
        return {FUNCTION: str(node.value)}
    return _scalar(node, keys, file)


def _build_mapping(node: yaml.MappingNode, keys: Keys, file: YamlFile, above: frozenset[int]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    first_line: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str" or CONTROL.search(key_node.value):
            _refuse_key(key_node, keys, file)
            continue
        key = key_node.value
        if key in mapping:
            file.problem((*keys, key), f"is given twice, in lines {first_line[key]} and {line}; remove one of the two")
            continue
        first_line[key] = file.lines[(*keys, key)] = line
        mapping[key] = _build(value_node, (*keys, key), file, above)
    return mapping


def _refuse_key(node: yaml.Node, keys: Keys, file: YamlFile) -> None:
    name = one_line(node.value, MOST_SHOWN) if isinstance(node, yaml.ScalarNode) else "?"
    file.lines[(*keys, name)] = node.start_mark.line + 1
    instead = f"write '{name}' in quotes"
    if node.tag == _TAG + "merge" or name == "?":
        instead = "write the keys out"
    elif CONTROL.search(node.value):
        instead = "write it without the control character"
    file.problem((*keys, name), f"YAML does not read this key as text; {instead}")


def _scalar(node: yaml.Node, keys: Keys, file: YamlFile) -> Any:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    shown = one_line(text, MOST_SHOWN)
    if kind == "bool" and text.lower() not in ("true", "false"):
        meaning = "true" if text.lower() in ("yes", "on") else "false"
        file.problem(keys, f'YAML reads {shown} as {meaning}; write "{shown}" in quotes for the word, or {meaning}')
    elif kind == "int" and (":" in text or re.fullmatch(r"[-+]?0[\d_]+", text)):
        file.problem(keys, f"YAML reads {shown} as another number; write it in quotes, or as a plain decimal number")
    elif CONTROL.search(text):
        file.problem(keys, "holds a control character; write text without one")
    elif kind in ("str", "null"):
        return text if kind == "str" else None
    elif kind in ("bool", "int", "float"):
        return _number(node, kind, shown, keys, file)
    else:
        what = "a date" if kind == "timestamp" else f"a value with the tag {node.tag}"
        file.problem(keys, f"YAML reads {shown or 'this'} as {what}; write plain text, in quotes")
    return REFUSED


def _number(node: yaml.Node, kind: str, shown: str, keys: Keys, file: YamlFile) -> Any:
    try:
        if len(node.value) > MOST_DIGITS:
            raise ValueError
        value = getattr(_CONSTRUCTOR, f"construct_yaml_{kind}")(node)
        if math.isfinite(value):
            return value
        file.problem(keys, f"{shown} is no finite number; write one, or the word in quotes")
    except (ValueError, KeyError, OverflowError):
        file.problem(keys, f"{shown} is not a {kind}; write one, or leave out the !!{kind}")
    return REFUSED


def as_list(value: Any) -> list[Any]:
    """A value that may stand alone or in a list, as a list; nothing is an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
