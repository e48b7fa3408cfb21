"""Entries of the YAML files by name, where single ones may be wrong: those stop only what asks for them."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cgpt.errors import UserError, did_you_mean
from cgpt.hardware import Hardware
from cgpt.spec import Dataset, Experiment, Model

T = TypeVar("T")


class Entries(dict[str, T]):
    """The entries of one kind that are right. A wrong one is a name too, and to look it up raises what is wrong."""

    def __init__(self, entries: Mapping[str, T | None], broken: Mapping[str, tuple[str, ...]]):
        super().__init__({name: entry for name, entry in entries.items() if entry is not None and name not in broken})
        self.broken = broken  # the problems of each wrong entry

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.broken

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or `default` where there is none of that name. Raises UserError where it is wrong."""
        if name in self.broken:
            raise UserError(*self.broken[name])
        return super().get(name, default)

    def __missing__(self, name: str) -> T:
        if name in self.broken:
            raise UserError(*self.broken[name])
        raise KeyError(name)


@dataclass(frozen=True)
class Entered:
    """Entries that an experiment can refer to, by name; None for one that is wrong itself."""

    models: Mapping[str, Model | None]
    datasets: Mapping[str, Dataset | None]
    tasks: Mapping[str, dict[str, Any] | None]
    hardware: Mapping[str, Hardware | None]


@dataclass(frozen=True)
class Workflow:
    """All entries of the YAML files, by name. A task is its mapping with typed values in its `finetune` block."""

    models: Entries[Model]
    datasets: Entries[Dataset]
    tasks: Entries[dict[str, Any]]
    hardware: Entries[Hardware]
    experiments: Entries[Experiment]
    named: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)  # by experiments, of each kind
    shipped: Mapping[str, frozenset[str]] = field(
        default_factory=dict
    )  # of each kind, names that are cgpt's below a study

    def is_shipped(self, kind: str, name: str) -> bool:
        """Whether an entry is cgpt's, below a study that has none of that name."""
        return name in self.shipped.get(kind, ())

    def asked(self, experiment: str) -> Experiment:
        """An experiment all of whose parts are right. Raises UserError with every problem of it and of its parts."""
        if experiment not in self.experiments:
            raise UserError(f"workflows/experiments: there is no experiment '{experiment}'; "
                            f"{did_you_mean(experiment, self.experiments)}")  # fmt: skip
        if problems := [line for lines in self._broken_of(experiment).values() for line in lines]:
            raise UserError(*problems)
        return self.experiments[experiment]

    def refuse_broken(self) -> None:
        """Raise UserError with the problems of all entries of the study, where there are any."""
        if problems := [line for _, _, lines in self._broken() for line in lines]:
            raise UserError(*dict.fromkeys(problems))

    def warn_of_others(self, *experiments: str) -> None:
        """One line on standard error for each entry that is wrong and that none of these experiments has a part in."""
        used = {key for experiment in experiments for key in self._broken_of(experiment)}
        for kind, name, lines in self._broken():
            if (kind, name) not in used:
                more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
                print(f"warning: not used here, and left out: {lines[0]}{more}", file=sys.stderr)

    def _broken(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Kind, name and problems of each wrong entry of the study; those of cgpt are wrong only beside its own."""
        for kind in ("models", "datasets", "hardware", "tasks", "experiments"):
            for name, lines in getattr(self, kind).broken.items():
                if not self.is_shipped(kind, name):
                    yield kind, name, lines

    def _broken_of(self, experiment: str) -> dict[tuple[str, str], tuple[str, ...]]:
        """The problems of an experiment and of what it names, by kind and name."""
        parts = [(kind, name) for kind, names in self.named.get(experiment, {}).items() for name in names]
        return {(kind, name): getattr(self, kind).broken[name] for kind, name in [*parts, ("experiments", experiment)]
                if name in getattr(self, kind).broken}  # fmt: skip
