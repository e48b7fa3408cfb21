"""Where entries are looked up: in the study, which is the working directory, and then in what comes with cgpt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cgpt import SHIPPED
from cgpt.files.yaml_file import YamlFile, read

# The folder of each kind that has a file an entry, and the file of each kind whose entries are rows of one.
FOLDERS = {"experiments": "workflows/experiments", "tasks": "workflows/tasks", "hardware": "hardware_profiles"}
FILES = {"models": "workflows/models.yaml", "datasets": "workflows/data.yaml"}
ENDINGS = ("yaml", "yml")
OF_CGPT = "cgpt's "  # before the names of files that are not the study's


@dataclass(frozen=True)
class Layer:
    """A folder that holds workflows/ and hardware_profiles/, how messages begin the names of its files, and the layer
    below it, which has what it has not."""

    root: Path
    prefix: str = ""
    below: Layer | None = None

    def read(self, path: Path, functions: bool = False) -> YamlFile:
        """A YAML file of the layer, with the name that messages give it."""
        return read(path, self.root, functions, self.prefix)

    def files(self, kind: str) -> list[Path]:
        """The YAML files of a kind of entries, but hidden ones, by their endings and names."""
        if kind in FILES:
            return [path for path in [self.root / FILES[kind]] if path.exists()]
        return [path for ending in ENDINGS for path in sorted((self.root / FOLDERS[kind]).glob(f"[!.]*.{ending}"))]

    def __iter__(self) -> Iterator[Layer]:
        """The layer and those below it."""
        yield self
        if self.below:
            yield from self.below


def layers_of(root: Path, declarations: Path | None = None) -> Layer:
    """The layers of the study at `root`, whose files are those below `declarations` if that is given.

    A checkout of cgpt is one layer: what comes with cgpt is its own.
    """
    return Layer(declarations or root, below=None if is_checkout(root) else Layer(SHIPPED, OF_CGPT))


def is_checkout(root: Path) -> bool:
    """Whether the folder is a checkout of cgpt, be it the one that runs or not."""
    return (root / "cgpt/__init__.py").is_file()


def shipped_file(path: str | Path) -> Path:
    """A file or folder that comes with cgpt; in its checkout the path itself."""
    return Path(path) if is_checkout(Path()) else SHIPPED / path


def file_of(kind: str, name: str) -> str:
    """The file that holds an entry of the study in the working directory, as messages name it, or cgpt's.

    `kind` is experiments, tasks, hardware, models or datasets. Where there is no such entry, the file to write it in.
    """
    names = [f"{FOLDERS[kind]}/{name}.{ending}" for ending in ENDINGS] if kind in FOLDERS else [FILES[kind]]
    for layer in layers_of(Path()):
        for path in names:
            if (layer.root / path).is_file() and (kind in FOLDERS or _has_row(layer, layer.root / path, kind, name)):
                return layer.prefix + path
    return names[0]


def _has_row(layer: Layer, path: Path, kind: str, name: str) -> bool:
    rows = layer.read(path).value.get(kind)
    return isinstance(rows, dict) and name in rows
