"""cgpt: declarative experiments and benchmarks for GPT scaling studies, on tinygrad."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgpt import checkpoint as checkpoint
    from cgpt.api import load_experiment as load_experiment
    from cgpt.api import results as results
    from cgpt.errors import UserError as UserError

__version__ = "0.1.0"
__all__ = ["SNAKEFILE", "UserError", "checkpoint", "load_experiment", "results"]

_PACKAGE = Path(__file__).resolve().parent
# Where the Snakefile, experiments, tasks and profiles are that come with cgpt: in a checkout, or in what is installed.
SHIPPED = _PACKAGE / "shipped" if (_PACKAGE / "shipped").is_dir() else _PACKAGE.parent
SNAKEFILE = str(SHIPPED / "Snakefile")  # the workflow, as a Snakemake module

_MODULES = {"UserError": "cgpt.errors", "load_experiment": "cgpt.api", "results": "cgpt.api"}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, imported when it is first asked for, so that `import cgpt` waits for none of it."""
    if name == "checkpoint":
        return import_module("cgpt.checkpoint")
    if name not in _MODULES:
        raise AttributeError(f"module 'cgpt' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
