"""Python that a task file names: `process_docs: !function utils.clean`, as lm-evaluation-harness has it.

It is the file owner's own code and runs as such, with nothing between it and the machine. `utils.clean` is the function
`clean` of utils.py beside the YAML, else of an installed module. What the file says is part of what the task is.
"""

import ast
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from cgpt.errors import UserError, did_you_mean
from cgpt.files.declarations import folder_of
from cgpt.files.layers import layers_of
from cgpt.files.yaml_file import FUNCTION


def is_function(value: Any) -> bool:
    """Whether a value of a task file names Python."""
    return isinstance(value, dict) and FUNCTION in value


def name_of(value: Any) -> str:
    """A name of a task file as it stands, or the last part of a function's."""
    return value[FUNCTION].rpartition(".")[2] if is_function(value) else value


def locate(name: str, folder: Path, root: Path) -> dict[str, str]:
    """A function as a spec holds it: its name and, of a file in `folder`, that folder and the file's SHA-256.

    Nothing is imported. Raises UserError, which names no YAML, where there is no such file, module or function.
    """
    module, _, function = name.rpartition(".")
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"'{name}' is no function; write `{FUNCTION} <module>.<function>`")
    path = _file(module, folder)
    if not path.is_file():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise UserError(f"'{name}': there is no {path.relative_to(root).as_posix()} beside the file, and no module "
                            f"'{module}'; write one of them")  # fmt: skip
        return {FUNCTION: name}
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{path.relative_to(root).as_posix()} is not Python ({error}); correct it") from None
    known = {name for node in tree.body for name in _defined(node)}
    if function not in known and "*" not in known:
        raise UserError(f"{path.relative_to(root).as_posix()} has no '{function}'; {did_you_mean(function, known)}")
    return {
        FUNCTION: name,
        "folder": folder.relative_to(root).as_posix(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def resolve(value: Any, where: str) -> Any:
    """A task's keys with the functions themselves in place of what `locate` gave. Raises UserError where a file has
    changed since, or cannot be imported."""
    if isinstance(value, list):
        return [resolve(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    if FUNCTION not in value:
        return {key: resolve(item, where) for key, item in value.items()}
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    name = value[FUNCTION]
    module = name.rpartition(".")[0]
    folders = [layer.root / value["folder"] for layer in layers_of(Path.cwd(), folder_of(Path.cwd()))
               ] if "folder" in value else [Path()]  # fmt: skip
    folder = next((each for each in folders if _sha256(_file(module, each)) == value.get("sha256")), None)
    if folder is None:
        path = _file(module, folders[0])
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        raise UserError(f"{where}: {FUNCTION} {name}: {shown} has changed since the run was planned; run again")
    try:
        return _import_func_in_yml(name, folder.absolute())
    except Exception as error:  # whatever the file does while it is imported
        raise UserError(f"{where}: {FUNCTION} {name}: cannot be imported ({type(error).__name__}: {error})") from None


def _file(module: str, folder: Path) -> Path:
    return folder / f"{module.replace('.', '/')}.py"


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module defines; `*` where it may define any."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return ["*"] if isinstance(node, (ast.If, ast.Try, ast.With)) else []
