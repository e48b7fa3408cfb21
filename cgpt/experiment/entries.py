"""Entries of the YAML files by name, where single ones may be wrong: those stop only what asks for them."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cgpt.errors import UserError, did_you_mean
from cgpt.hardware import Hardware
from cgpt.spec import Dataset, Experiment, Model, PublishedModel

T = TypeVar("T")
NONE_ABSENT: Mapping[str, tuple[str, ...]] = {}


class Entries(dict[str, T]):
    """The entries of one kind that are right. A wrong one is a name too, and to look it up raises what is wrong; so is
    one that is absent, as a checkpoint that was not fetched: nothing is wrong with it until it is asked for."""

    def __init__(
        self,
        entries: Mapping[str, T | None],
        broken: Mapping[str, tuple[str, ...]],
        absent: Mapping[str, tuple[str, ...]] = NONE_ABSENT,
    ):
        super().__init__({name: entry for name, entry in entries.items() if entry is not None and name not in broken})
        self.broken = broken  # the problems of each wrong entry
        self.absent = {name: lines for name, lines in absent.items() if name not in broken}

    def problems(self, name: str) -> tuple[str, ...]:
        """Why there is no entry to look up under a name; nothing where there is one, or no such name."""
        return self.broken.get(name) or self.absent.get(name, ())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.broken or name in self.absent

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or `default` where there is none of that name. Raises UserError where it is wrong or absent."""
        if problems := self.problems(name):
            raise UserError(*problems)
        return super().get(name, default)

    def __missing__(self, name: str) -> T:
        if problems := self.problems(name):
            raise UserError(*problems)
        raise KeyError(name)


@dataclass(frozen=True)
class Entered:
    """Entries that an experiment can refer to, by name; None for one that is wrong itself."""

    models: Mapping[str, Model | None]
    datasets: Mapping[str, Dataset | None]
    tasks: Mapping[str, dict[str, Any] | None]
    hardware: Mapping[str, Hardware | None]
    published: Mapping[str, PublishedModel]  # rows of models that name a checkpoint


@dataclass(frozen=True)
class Workflow:
    """All entries of the YAML files, by name. A task is its mapping with typed values in its `finetune` block."""

    models: Entries[Model]
    datasets: Entries[Dataset]
    tasks: Entries[dict[str, Any]]
    hardware: Entries[Hardware]
    experiments: Entries[Experiment]
    published: Mapping[str, PublishedModel] = field(default_factory=dict)  # rows of models that name a checkpoint
    root: Path = Path()  # the study, from which paths in its files are relative
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
        return {(kind, name): problems for kind, name in [*parts, ("experiments", experiment)]
                if (problems := getattr(self, kind).problems(name))}  # fmt: skip
