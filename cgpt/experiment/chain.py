"""Whether runs belong together: each record names its inputs by their SHA-256, and those of a chain must agree."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cgpt.data import content
from cgpt.errors import UserError
from cgpt.experiment.run import LAST_FILE, Key, Run


def is_of_entry(record: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether a whole fetched.json is of an entry of data.yaml, as the spec of its fetch has it."""
    keys = [key for key in ("builtin", "seed", "path", "hub") if key in record]
    listed = sorted((str(file["sha256"]), file["split"]) for file in entry["files"])
    return all(record[key] == json.loads(json.dumps(entry.get(key))) for key in keys) and (
        not listed or listed == sorted((file["sha256"], file["split"]) for file in record["files"])
    )


class Chain:
    """The records of `runs` below the folder `root`. `redo` says how a run is done again."""

    def __init__(self, runs: Mapping[Key, Run], root: Path, redo: Callable[[Run], str]):
        self.runs, self.root, self.redo = runs, root, redo
        self._problems: dict[Key, list[str]] = {}

    def problems(self, asked: Iterable[Run]) -> list[str]:
        """A line for each run, of those asked or of those they were made from, whose inputs have changed since.

        What follows from such a run has no line of its own; a run without a record has none either.
        """
        return list(dict.fromkeys(line for run in asked for line in self._problems_of(run)))

    def above(self, run: Run) -> list[str]:
        """The problems of what a run is made from."""
        return self.problems(self.runs[key] for key in run.upstream() if key in self.runs)

    def _problems_of(self, run: Run) -> list[str]:
        if run.key not in self._problems:
            self._problems[run.key] = self.above(run) or self._problems_within(run)
        return self._problems[run.key]

    def _problems_within(self, run: Run) -> list[str]:
        path = self.path(*run.key)
        if not path.is_file():
            return []
        try:
            record = content.read_object(path, self.redo(run))
            changed = self._source(run, path, record) if run.stage == "fetch" else self._inputs(run, record)
            changed += _changed_files(record, path.parent)
        except UserError as error:
            return list(error.problems)
        return [f"{path}: {', '.join(changed)} changed since; {self.redo(run)}"] if changed else []

    def _inputs(self, run: Run, record: dict[str, Any]) -> list[str]:
        """The upstream runs that are not, or no longer, what the record names."""
        recorded, changed = _hashes(record, "inputs"), []
        for stage, upstream in run.upstream():
            if (stage, upstream) not in self.runs or not self.path(stage, upstream).is_file():
                continue
            outputs = self._outputs(run, stage, upstream)
            prefix = f"fetch/{upstream}" if stage == "fetch" else f"{stage}/"
            used = {name: sha256 for name, sha256 in recorded.items() if name.startswith(prefix)}
            if not used or any(outputs.get(name) != sha256 for name, sha256 in used.items()):
                changed.append(f"data set '{upstream}'" if stage == "fetch" else f"{stage} {upstream}")
        return changed

    def _outputs(self, run: Run, stage: str, upstream: str) -> dict[str, str]:
        """Hashes of an upstream run's outputs that `run` reads, by the names that records call them."""
        path = self.path(stage, upstream)
        if stage == "fetch" and run.stage == "tokenize":
            return content.of_corpora(run.spec, path.parent.parent)
        if stage == "fetch":
            listed = {file["name"]: file["sha256"] for file in content.fetched_files(path)}
            names = content.task_files(run.spec["task"], path.parent)
            return {f"fetch/{upstream}": content.digest({name: listed[name] for name in names if name in listed})}
        record = content.read_object(path, self.redo(self.runs[stage, upstream]))
        if stage == "tokenize":
            return content.of_tokens(record)
        return {f"{stage}/{name}": sha256 for name, sha256 in _hashes(record, "outputs").items()}

    def _source(self, run: Run, path: Path, record: dict[str, Any]) -> list[str]:
        """The data set's entry, or the local files that it names, where they are others than were fetched."""
        files, source = content.fetched_files(path), run.spec["path"]
        if not is_of_entry(record, run.spec):
            return ["its entry in data.yaml"]
        local = content.of_local_files(source) if source else {}
        return [f"'{source}'"] if local and local != {file["name"]: file["sha256"] for file in files} else []

    def path(self, stage: str, run_id: str) -> Path:
        """A run's record."""
        return self.root / LAST_FILE[stage].format(run_id)


def _hashes(record: dict[str, Any], key: str) -> dict[str, str]:
    """The hashes that a record has under `key`, by file; none where it is damaged."""
    hashes = record.get(key)
    return dict(hashes) if isinstance(hashes, dict) else {}


def _changed_files(record: dict[str, Any], folder: Path) -> list[str]:
    """The files beside a record that are not what it names; weights are left to those that load them."""
    written = _hashes(record, "outputs")
    written |= {"samples.jsonl": record["samples_sha256"]} if "samples_sha256" in record else {}
    return [name for name, sha256 in written.items()
            if name != "model.safetensors" and os.path.isfile(folder / name)  # False also for what can be no name
            and content.sha256_of(folder / name) != sha256]  # fmt: skip
