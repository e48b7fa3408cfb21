"""Hash of the code that decides a stage's result: the definitions that it reaches, as far as they compute."""

from __future__ import annotations

import ast
import copy
import hashlib
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
# Modules whose code decides no result: what those that read declarations say arrives in the spec, no stage imports
# from Hugging Face's files or exports to them, and the last ones say how a run goes and put its files on the disk.
UNCOUNTED = frozenset(
    "__main__ bounds code_hash errors hardware jobs provenance spec files.cache files.declarations files.digest "
    "files.json_object files.layers files.typed files.user_files files.whole files.yaml_file experiment.chain "
    "experiment.entries experiment.from_yaml experiment.load experiment.plan experiment.plans experiment.rules "
    "experiment.run experiment.written tasks.definition training.progress commands.ending checkpoint.model_card "
    "checkpoint.transformers_folder checkpoint.torch_file checkpoint.weights".split()
)
COMPILED_SOURCES = ("*.c", "*.h")


@cache
def code_sha256(stage: str, package: Path = PACKAGE) -> str:
    """Hash of what a module, or a function of one, computes: of each definition that it reaches, and of the C sources.

    Comments, docstrings, messages, type hints, the names of files, modules and imports, and definitions that the stage
    does not reach, such as a table's headings, do not count.
    """
    reach = _Reach(stage, package)
    lines = sorted(reach.lines() | {_sha256(_normalised(path)) for path in reach.paths if path.suffix != ".py"})
    return _sha256("\n".join(lines))


def reached(stage: str, package: Path = PACKAGE) -> set[Path]:
    """Source files of the stage's module and of every module of the package it reaches, however indirectly."""
    return _Reach(stage, package).paths


class _Module:
    """A module's top-level definitions by name, what it imports from its package, and what else it runs."""

    def __init__(self, tree: ast.Module, path: Path, name: str, package: Path):
        self.path, self.name, self.root, self.package = path, name, package, package.name
        self._texts: dict[str, str] = {}
        self._uses: dict[str, set[tuple[str, str, str]]] = {}
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.loose: list[ast.stmt] = []
        self.outside: dict[str, str] = {}  # names that are imported from elsewhere -> what they are
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for statement in tree.body:
            names = _defined(statement)
            if names == ["__all__"]:  # what is imported to be exported counts where it is used
                used.update(str(node.value) for node in ast.walk(statement) if isinstance(node, ast.Constant))
                continue
            for defined in names:
                self.definitions.setdefault(defined, []).append(statement)
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                above = f"{statement.module}." if isinstance(statement, ast.ImportFrom) else ""
                self.outside |= {alias.asname or alias.name: f"{above}{alias.name}" for alias in statement.names}
            elif not names and not isinstance(statement, ast.Pass):
                self.loose.append(statement)
        self.imports = self.imported(ast.Module(
            [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], []))  # fmt: skip
        self.for_effect = [name for name in self.imports if name not in used]

    def imported(self, tree: ast.AST) -> dict[str, tuple[str, str]]:
        """Imports of a piece of code from the package: the name used here -> (module, name there; "" for itself)."""
        imports: dict[str, tuple[str, str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name.removeprefix(f"{self.package}.") for alias in node.names
                         if alias.name.startswith(f"{self.package}.")]  # fmt: skip
                imports |= {name: (name, "") for name in names}
            elif isinstance(node, ast.ImportFrom) and (module := self.module_of(node)) is not None:
                imports |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
        return imports

    def statements(self, definition: str) -> list[ast.stmt]:
        """Statements of a definition; "" and "*" stand for those that the module runs besides its definitions."""
        return self.loose if definition in ("", "*") else self.definitions[definition]

    def text_sha256(self, definition: str) -> str:
        """Hash of a definition's statements."""
        if definition not in self._texts:
            tree = ast.Module(copy.deepcopy(self.statements(definition)), [])
            imports = self.imports | self.imported(tree)
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - imports.keys()
            outside = sorted(f"{name} = {self.outside[name]}" for name in names & self.outside.keys())
            self._texts[definition] = _sha256("\n".join([*outside, ast.unparse(_Pathless(self, imports).visit(tree))]))
        return self._texts[definition]

    def is_module(self, module: str, name: str) -> bool:
        """Whether `name`, imported from a module of the package, is a module itself."""
        return _source(f"{module}.{name}".strip("."), self.root) is not None

    def uses(self, definition: str) -> set[tuple[str, str, str]]:
        """Names of the package that a definition uses: (module, name there, attribute of that or "")."""
        if definition not in self._uses:
            tree = ast.Module(self.statements(definition), [])
            inside = self.imported(tree)
            imports, names = self.imports | inside, [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
            attributes = [(node.value, node.attr) for node in ast.walk(tree)
                          if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]  # fmt: skip
            bases = {id(base) for base, _ in attributes}
            whole = {node.id for node in names if id(node) not in bases} | (set(inside) - {node.id for node in names})
            self._uses[definition] = (
                {(self.name, node.id, "") for node in names if node.id in self.definitions}
                | {(*imports[base.id], attribute) for base, attribute in attributes if base.id in imports}
                | {(*imports[alias], "") for alias in whole if alias in imports}
            )
        return self._uses[definition]

    def module_of(self, node: ast.ImportFrom) -> str | None:
        """The module below the package that `from ... import` names, "" for the package; None outside of it."""
        module = node.module or ""
        if node.level:
            inside = self.path.name == "__init__.py"
            above = f"{self.package}.{self.name}".split(".")
            module = ".".join([*above[: len(above) - node.level + inside], *filter(None, [module])])
        if module.split(".")[0] != self.package:
            return None
        return module.removeprefix(self.package).removeprefix(".")


class _Pathless(ast.NodeTransformer):
    """Says of what is imported from the package only its name there, whichever module that is in."""

    def __init__(self, module: _Module, imports: dict[str, tuple[str, str]]):
        self.module, self.imports = module, imports

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        return node if self.module.module_of(node) is None else ast.Pass()

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and self.module.is_module(*self.imports.get(node.value.id, ("", ""))):
            return ast.Name(node.attr, node.ctx)
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Name(self, node: ast.Name) -> ast.Name:
        there = self.imports.get(node.id, ("", ""))[1]
        return ast.Name(there or node.id, node.ctx)


@cache
def _module(tree: ast.Module, path: Path, name: str, package: Path) -> _Module:
    return _Module(tree, path, name, package)


@cache
def _source(name: str, package: Path) -> Path | None:
    """The file of a module of the package, by its dotted name; None where there is none."""
    base = package.joinpath(*name.split("."))
    paths = (base.with_suffix(".py"), base / "__init__.py") if name else ()
    return next((path for path in paths if path.is_file()), None)


class _Reach:
    """Everything that a stage reaches: from its function, or else its whole module, along the names used."""

    def __init__(self, stage: str, package: Path):
        self.package, self.paths = package, set[Path]()
        self._modules: dict[str, _Module | None] = {}
        self._edges: dict[tuple[str, str], set[tuple[str, str]]] = {}
        module, definition = self._start(stage)
        waiting = [(module, definition)] if module else []
        while waiting:
            unit = waiting.pop()
            if unit not in self._edges:
                self._edges[unit] = self._targets(*unit)
                waiting += self._edges[unit]

    def _start(self, stage: str) -> tuple[str, str]:
        """The module and the definition there that a stage's dotted name is of."""
        above, _, last = stage.rpartition(".")
        if (module := self._module(stage)) is not None:
            return stage, last if last in module.definitions else "*"
        module = self._module(above)
        return (above, last) if module and last in module.definitions else ("", "")

    def lines(self) -> set[str]:
        """Each definition's hash, and by the names that it uses for them, those of what it uses."""
        texts = {(name, each): self._at(name).text_sha256(each) for name, each in self._edges}
        says = {unit for unit, text in texts.items() if text != _sha256("")}
        edges = {unit: sorted(f"{name}={texts[module, name]}" for module, name in targets if (module, name) in says)
                 for unit, targets in self._edges.items()}  # fmt: skip
        return {" ".join([texts[unit], *edges[unit]]) for unit in self._edges if unit in says or edges[unit]}

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            path = None if name in UNCOUNTED else _source(name, self.package)
            self._modules[name] = (
                _module(_tree(path.read_text(encoding="utf-8")), path, name, self.package) if path else None
            )
        return self._modules[name]

    def _at(self, name: str) -> _Module:
        module = self._module(name)
        assert module is not None
        return module

    def _targets(self, name: str, definition: str) -> set[tuple[str, str]]:
        """The (module, definition) pairs that a definition uses; "" is what a module runs when it is imported."""
        module = self._at(name)
        used = {target for use in module.uses(definition) for target in self._resolve(*use)}
        if definition:
            whole = {(name, each) for each in module.definitions} if definition == "*" else set()
            return {(name, "")} | used | whole
        self._note(module)
        above = {(parent, "") for parent in [name.rpartition(".")[0]] if self._module(parent)}
        # A module that is imported and not used by name is imported for its effect: all of it counts.
        effects = {target for alias in module.for_effect for target in self._resolve(*module.imports[alias])}
        return above | used | effects

    def _note(self, module: _Module) -> None:
        self.paths.add(module.path)
        if module.path.name == "__init__.py":
            self.paths.update(source for pattern in COMPILED_SOURCES for source in module.path.parent.rglob(pattern))

    def _resolve(self, name: str, definition: str, attribute: str = "") -> set[tuple[str, str]]:
        """Definitions that `definition` of the module `name` stands for, or `attribute` of it where it is a module."""
        inner = f"{name}.{definition}".strip(".")
        if self._module(inner) is not None:
            return self._resolve(inner, attribute) if attribute else {(inner, "*")}
        module = self._module(name)
        if module is None:
            return set()
        if definition in module.definitions:
            return {(name, definition)}
        if definition in module.imports:
            return {(name, "")} | self._resolve(*module.imports[definition], attribute)
        return {(name, "*")}


def _defined(statement: ast.stmt) -> list[str]:
    """The names that a top-level statement defines; none where it does anything else."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [part.id for part in parts if isinstance(part, ast.Name)] if all(
        isinstance(part, ast.Name) for part in parts) else []  # fmt: skip


@cache
def _tree(text: str) -> ast.Module:
    """A file's statements as far as they compute."""
    return _Computing().visit(ast.parse(text))


@cache
def _normalised(path: Path) -> str:
    """C source by which two files are equal when they differ in comments and layout only."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(text.split())


class _Computing(ast.NodeTransformer):
    """Drops what computes nothing: docstrings, printed lines, what errors and progress bars say, hints of types."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone or _calls(node.value, "print") else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if for_types else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _calls(node, "UserError"):
            node.args, node.keywords = [], []
        elif _calls(node, "tqdm"):
            node.keywords = []
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if not any(isinstance(each, ast.Name) and each.id == "ClassVar" for each in ast.walk(node.annotation)):
            node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return node


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
