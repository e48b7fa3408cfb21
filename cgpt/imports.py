"""Imports that wait until a module is used: lm-evaluation-harness imports libraries that most tasks never need."""

import importlib.util
import sys
from types import ModuleType
from typing import Any


class _WaitingModule(ModuleType):
    """A module that runs its code when a name is taken from it that is not there yet; then it is the usual one.

    Python's own `importlib.util.LazyLoader` does not wait before Python 3.12: there a second `import` ends the wait.
    """

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        if spec.submodule_search_locations is not None:
            self.__path__ = spec.submodule_search_locations
        spec.loader.exec_module(self)
        return getattr(self, name)


def import_when_used(name: str, submodules_wait: bool = True) -> None:
    """Have `import name` wait until something is taken from the module; without effect where it is imported already.

    submodules_wait: whether a submodule ends the wait too; where not, it is imported without the code of its package.
    """
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None:
        return
    module = importlib.util.module_from_spec(spec)
    if submodules_wait and spec.submodule_search_locations is not None:
        del module.__path__
    module.__class__ = _WaitingModule
    sys.modules[name] = module
