"""A YAML file read strictly: duplicate keys and YAML's silent traps are problems, each with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Keys = tuple[str | int, ...]  # where a value stands: ("gpt-1m", "n_layer") or ("files", 0, "sha256")

NUMBER_READ_AS_TEXT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")
REFUSED = object()  # stands for a scalar whose problem is already noted
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()
FUNCTION = "!function"  # lm-evaluation-harness's tag for Python
_TAG = "tag:yaml.org,2002:"


@dataclass
class YamlFile:
    """What one file says: `value`, the line of each key, and the problems found so far."""

    path: str  # as messages print it, relative to the project
    value: Any = None
    lines: dict[Keys, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    functions: bool = False  # whether `!function <name>` may stand for a value, which then is {"!function": name}

    def problem(self, keys: Keys, what: str) -> None:
        """Note one problem at `keys`: `file:line: key.path: what was wrong; what to write instead`."""
        nearest = next((keys[:n] for n in range(len(keys), -1, -1) if keys[:n] in self.lines), ())
        line = f":{self.lines[nearest]}" if nearest in self.lines else ""
        key = ".".join(map(str, keys))
        self.problems.append(f"{self.path}{line}: {key + ': ' if key else ''}{what}")


def read(path: Path, root: Path, functions: bool = False) -> YamlFile:
    """Read the mapping in `path`; where the file is no such mapping, `value` is empty and `problems` says why."""
    file = YamlFile(path.relative_to(root).as_posix(), {}, functions=functions)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError:
        file.problem((), "is not UTF-8 text; save it as UTF-8")
    except OSError as error:
        file.problem((), f"cannot be read ({error.strerror}); check the file and its permissions")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        file.lines[()] = mark.line + 1 if mark else 1
        file.problem((), f"is not valid YAML ({getattr(error, 'problem', error)}); check indentation, colons, quotes")
    else:
        if not isinstance(node, yaml.MappingNode):
            file.problem((), f"holds {'nothing' if node is None else 'no mapping'}; write `key: value` lines")
        else:
            file.value = _build(node, (), file, frozenset())
    return file


def _build(node: yaml.Node, keys: Keys, file: YamlFile, above: frozenset[int]) -> Any:
    """The Python value of a node; `above` holds the nodes that contain it, so that a cycle is noticed."""
    file.lines.setdefault(keys, node.start_mark.line + 1)
    if id(node) in above:
        file.problem(keys, "the alias contains itself; write the value out")
        return REFUSED
    above |= {id(node)}
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
        if key_node.tag != _TAG + "str":
            file.lines[(*keys, str(key_node.value))] = line
            instead = "write the keys out" if key_node.tag == _TAG + "merge" else f"write '{key_node.value}' in quotes"
            file.problem((*keys, str(key_node.value)), f"YAML does not read this key as text; {instead}")
            continue
        key = key_node.value
        if key in mapping:
            file.problem((*keys, key), f"is given twice, in lines {first_line[key]} and {line}; remove one of the two")
            continue
        first_line[key] = file.lines[(*keys, key)] = line
        mapping[key] = _build(value_node, (*keys, key), file, above)
    return mapping


def _scalar(node: yaml.Node, keys: Keys, file: YamlFile) -> Any:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    if kind == "bool" and text.lower() not in ("true", "false"):
        meaning = "true" if text.lower() in ("yes", "on") else "false"
        file.problem(keys, f'YAML reads {text} as {meaning}; write "{text}" in quotes for the word, or {meaning}')
        return REFUSED
    if kind == "int" and (":" in text or re.fullmatch(r"[-+]?0[\d_]+", text)):
        file.problem(keys, f"YAML reads {text} as another number; write it in quotes, or as a plain decimal number")
        return REFUSED
    if kind in ("str", "null"):
        return text if kind == "str" else None
    if kind in ("bool", "int", "float"):
        try:
            return getattr(_CONSTRUCTOR, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError):
            file.problem(keys, f"{text} is not a {kind}; write one, or leave out the !!{kind}")
            return REFUSED
    what = "a date" if kind == "timestamp" else f"a value with the tag {node.tag}"
    file.problem(keys, f"YAML reads {text or 'this'} as {what}; write plain text, in quotes")
    return REFUSED
