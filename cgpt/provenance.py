"""Where a result comes from: the code that made it, the commit, the versions, the machine and the day."""

from __future__ import annotations

import ast
import hashlib
import platform
import re
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cgpt.kernels.compiler import cpu_flags, cpu_model

PACKAGE = Path(__file__).parent
PACKAGES = {"tinygrad": "tinygrad", "numpy": "numpy", "lm_eval": "lm-eval", "cgpt": "cgpt"}
# Modules whose code decides no result: what those that read declarations say arrives in the spec, and no stage imports
# from Hugging Face's files or exports to them.
DECLARATIVE = frozenset(
    "__main__ check errors fill load plan provenance spec yamlfile hf.card hf.folder hf.torch_file hf.weights".split()
) | {""}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
COMPILED_SOURCES = ("*.c", "*.h")


def record(stage: str) -> dict[str, Any]:
    """The fields of a run's record that say where it was made, as flat as the record itself, `versions` apart."""
    return {
        "host_cpu": cpu_model(),
        "versions": {"python": platform.python_version()}
        | {key: installed_version(name) for key, name in PACKAGES.items()},
        "code_sha256": code_sha256(stage),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def code_sha256(stage: str, package: Path = PACKAGE) -> str:
    """Hash of what the stage's module and all modules of cgpt that it reaches say, without comments and docstrings."""
    digest = hashlib.sha256()
    for path in sorted(reached(stage, package)):
        digest.update(f"{path.relative_to(package).as_posix()}\n{_normalised(path)}\n".encode())
    return digest.hexdigest()


def reached(stage: str, package: Path = PACKAGE) -> set[Path]:
    """Source files of the stage's module and of every module of the package it imports, however indirectly."""
    found: set[Path] = set()
    waiting = [stage]
    while waiting:
        name = waiting.pop()
        path = _file(name, package)
        if path is None or path in found or name in DECLARATIVE:
            continue
        found.add(path)
        if path.name == "__init__.py":
            found.update(source for pattern in COMPILED_SOURCES for source in path.parent.rglob(pattern))
        elif "." in name:
            waiting.append(name.rpartition(".")[0])
        waiting.extend(_imports(path, name, package.name))
    return found


def _file(name: str, package: Path) -> Path | None:
    """The file of the module `name` (dotted, below the package), or None where there is no such module."""
    base = package.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(path: Path, name: str, package: str) -> list[str]:
    """Names below the package that a file imports; `from cgpt.a import b` gives both `a` and `a.b`."""
    names = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                inside = path.name == "__init__.py"
                above = f"{package}.{name}".split(".")
                module = ".".join([*above[: len(above) - node.level + inside], *filter(None, [module])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return [found.removeprefix(f"{package}.") for found in names if found.startswith(f"{package}.")]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _normalised(path: Path) -> str:
    """Source text by which two files are equal when they differ in comments, docstrings and layout only."""
    if path.suffix != ".py":
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        return " ".join(text.split())
    return ast.unparse(_WithoutDocstrings().visit(_tree(path)))


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops every string that stands alone: docstrings, of attributes too."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if alone else node


def processor() -> str:
    """The processor's name and a hash of its instruction sets, which decide the last bits of a run."""
    return f"{cpu_model()} {hashlib.sha256(cpu_flags().encode()).hexdigest()[:12]}"


def commit() -> str | None:
    """The commit of the code, with `-dirty` where files differ from it; None outside a git checkout."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(describe, cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def installed_version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
