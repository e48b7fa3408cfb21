"""Entries as files hold them, those of the study before those of cgpt, each with what it has from its `base`."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cgpt.errors import UserError, did_you_mean
from cgpt.files.layers import FILES, Layer
from cgpt.files.yaml_file import Keys, YamlFile
from cgpt.tasks.definition import read_task

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # names become parts of paths and of run ids
NAME_RULE = "at most 64 letters, digits, '.', '_' and '-', a letter or digit first"
KINDS = {"models": "model", "datasets": "data set", "hardware": "hardware profile", "tasks": "task",
         "experiments": "experiment"}  # fmt: skip
BASE = "base"
"""Another entry of the same kind, whose keys hold where this one writes none; one of the entry's own name is cgpt's."""
Merge = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]  # a base and the keys that are written over it


@dataclass(frozen=True, eq=False)
class Written:
    """An entry: what stands at `keys` of its file, and whether that is one of cgpt's below a study."""

    value: Any
    file: YamlFile
    shipped: bool
    keys: Keys = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Those that are noted of the entry so far."""
        if not self.keys:
            return tuple(self.file.problems)
        noted = zip(self.file.problem_keys, self.file.problems, strict=True)
        return tuple(line for keys, line in noted if keys[: len(self.keys)] == self.keys)


@dataclass(frozen=True)
class Names(Mapping[str, Written]):
    """The entries of one kind by name: those of the study, and of `below`, cgpt's, those that it does not replace."""

    kind: str
    study: Mapping[str, Written]
    below: Mapping[str, Written]
    rows_of: YamlFile | None = None  # the study's file whose rows they are

    def __getitem__(self, name: str) -> Written:
        return self.study[name] if name in self.study else self.below[name]

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys((*self.study, *self.below))

    def __len__(self) -> int:
        return len({*self.study, *self.below})

    @property
    def shipped(self) -> frozenset[str]:
        """The names of those that are cgpt's."""
        return frozenset(self.below.keys() - self.study.keys())

    def whole(self, name: str, merge: Merge) -> Any:
        """The value of an entry; where it has a `base`, that entry's keys hold for those it does not write itself.

        A base is looked up as any name is, but that of an entry of its own name is cgpt's, and so is that of cgpt's
        entries. None where a base cannot be used, which is noted.
        """
        first = self[name]
        if not isinstance(first.value, dict):
            return first.value
        layers, chain = [dict(first.value)], [first]
        while BASE in layers[0]:
            target = self._base(layers[0].pop(BASE), chain)
            if target is None:
                return None
            chain.append(target)
            layers.insert(0, dict(target.value))
        return functools.reduce(merge, layers)

    def _base(self, base: Any, chain: list[Written]) -> Written | None:
        """The entry that the last one of the chain names as its base; None where it cannot be used, which is noted."""
        first, last, name = chain[0], chain[-1], base if isinstance(base, str) else ""
        known = self.below if last.shipped or self.study.get(name) is last else self
        target = known.get(name)
        problem = None
        if target in chain or (target is None and name in self):
            problem = f"{base!r} leads back to this {KINDS[self.kind].removeprefix('hardware ')}"
        elif target is None:
            problem = f"{base!r} is no {KINDS[self.kind]}"
        elif target.problems or not isinstance(target.value, dict):
            wrong = (*target.problems, "it is no mapping")[0]
            first.file.problem((*first.keys, BASE), f"'{base}' is wrong itself ({wrong}); mend that first")
            return None
        if problem:
            others = [each for each in self if self[each] not in chain]
            first.file.problem((*first.keys, BASE), f"{problem}; {did_you_mean(name, others)}")
            return None
        return target


def read_files(layer: Layer, kind: str) -> Names:
    """The entries of a kind that has a file an entry: each YAML file of its folder but hidden ones, by its name without
    the ending. Task files whose name starts with `_` are there to be included by others."""
    below = _files(layer.below, kind) if layer.below else {}
    study = {name: Written(file.value, file, False) for name, file in _files(layer, kind).items()}
    return Names(kind, study, {name: Written(file.value, file, True) for name, file in below.items()})


def _files(layer: Layer, kind: str) -> dict[str, YamlFile]:
    files: dict[str, YamlFile] = {}
    for path in layer.files(kind):
        if kind == "tasks" and path.name.startswith("_"):
            continue
        file = read_task(path, layer) if kind == "tasks" else layer.read(path)
        alike = next((other for name, other in files.items() if name.lower() == path.stem.lower()), None)
        if not NAME.fullmatch(path.stem):
            file.problem((), f"'{path.stem}' cannot be a name; name the file with {NAME_RULE}")
        if alike:
            file.problem((), f"has the name of {alike.path}; give one of the two another")
            if alike is files.get(path.stem):
                alike.problem((), f"has the name of {file.path}; give one of the two another")
        files.setdefault(path.stem, file)
    return files


def read_rows(layer: Layer, kind: str) -> Names:
    """The entries of a kind whose entries are rows of one file. A study need not have that file, or any row in it.

    Raises UserError where there is no file at all, or nothing to read in it.
    """
    below = _rows(layer.below, kind) if layer.below else None
    path = layer.root / FILES[kind]
    if below is not None and not path.exists():
        return Names(kind, {}, _written(below, kind, True))
    file = _rows(layer, kind)
    return Names(kind, _written(file, kind, False), _written(below, kind, True) if below else {}, file)


def _written(file: YamlFile, kind: str, shipped: bool) -> dict[str, Written]:
    return {name: Written(row, file, shipped, (kind, name)) for name, row in file.value[kind].items()}


def _rows(layer: Layer, kind: str) -> YamlFile:
    """Read a file whose one key, `kind`, holds a mapping of names to entries."""
    path = layer.root / FILES[kind]
    if not path.exists():
        raise UserError(f"{FILES[kind]}: there is no such file; write one with `{kind}:` and below it the entries")
    file = layer.read(path)
    if not file.value and file.problems:
        raise UserError(*file.problems)
    for key in file.value:
        if key != kind:
            file.problem((key,), f"unknown key; {did_you_mean(key, [kind])}")
    entries = file.value.get(kind)
    if entries is None and kind in file.value and layer.below:
        file.value[kind] = entries = {}  # all rows of a study are comments
    if not isinstance(entries, dict):
        file.problem((kind,), "must be a mapping of names to entries; write `<name>:` and its keys below it")
        raise UserError(*file.problems)
    lower: dict[str, str] = {}
    for name in entries:
        if not NAME.fullmatch(name):
            file.problem((kind, name), f"cannot be a name; use {NAME_RULE}")
        if name.lower() in lower:
            file.problem((kind, name), f"is the name of '{lower[name.lower()]}' but for its case; write another")
        lower.setdefault(name.lower(), name)
    return file
