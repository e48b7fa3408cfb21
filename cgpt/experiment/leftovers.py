"""Files of results/ that belong to a run or to an experiment's tables, and their removal."""

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cgpt.errors import UserError
from cgpt.experiment.plans import Plans
from cgpt.experiment.run import (
    BENCHMARKS,
    EARLY,
    LAST_FILE,
    LOCKS,
    LOGS,
    RESULTS,
    RUNS_FOLDER,
    STAGES,
    STATES,
    Key,
    early_folders,
    last_file,
)
from cgpt.files.layers import ENDINGS, FOLDERS
from cgpt.files.whole import PART, is_locked, lock

TABLES = "tables and figures"  # the kind of an experiment's folder
NOTES = "logs and benchmarks"
SNAKEMAKE_LOCKS = Path(".snakemake/locks")


@dataclass(frozen=True)
class Leftover:
    """All files of a run, or of an experiment's tables (`stage` is TABLES). `record` is the file without which nothing
    counts as finished, `lock` what whoever works on it holds; `files` are paths by kind."""

    stage: str
    name: str
    record: Path
    lock: Path
    files: dict[str, tuple[Path, ...]]

    def size(self) -> dict[str, int]:
        """Bytes by kind; nothing behind a link counts."""
        return {kind: sum(map(_size, paths)) for kind, paths in self.files.items()}

    def is_there(self) -> bool:
        """Whether any of the files is."""
        return any(path.is_symlink() or path.exists() for paths in self.files.values() for path in paths)

    def remove(self) -> None:
        """Remove the files, the record first, so that what is left of an interrupted removal is not taken for a
        finished run. Of a link the link alone goes. Raises UserError where a process is at work on them."""
        with lock(self.lock):
            if not self.record.parent.is_symlink():
                self.record.unlink(missing_ok=True)
            for path in (path for paths in self.files.values() for path in paths):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            self.lock.unlink(missing_ok=True)


def of_run(stage: str, run_id: str) -> Leftover:
    """The files of a run."""
    states = tuple(STATES / f"{run_id}{end}" for end in ("", ".shared")) if stage == "pretrain" else ()
    states += tuple(early_folders(run_id)) if stage == "evaluate" else ()
    notes = (LOGS / stage / f"{run_id}.log", BENCHMARKS / stage / f"{run_id}.tsv")
    record = last_file(stage, run_id)
    return Leftover(stage, run_id, record, LOCKS / stage / run_id,
                    {stage: (record.parent,), "states": states, NOTES: notes})  # fmt: skip


def of_tables(experiment: str) -> Leftover:
    """The files of an experiment beside its runs."""
    folder = RESULTS / experiment
    names = ((LOGS, f"{experiment}.log"), (BENCHMARKS, f"{experiment}.tsv"))
    notes = [path for root, name in names for path in sorted(root.glob("*/*"))
             if path.name == name and path.parent.name not in STAGES]  # fmt: skip
    return Leftover(TABLES, experiment, folder / "table.md", LOCKS / "tables" / experiment,
                    {TABLES: (folder,), NOTES: tuple(notes)})  # fmt: skip


def only_of(experiment: str, plans: Plans) -> tuple[list[Leftover], dict[Key, list[str]]]:
    """All that is there and that the experiment alone uses, downstream first; and its runs that others need, with
    their names. Raises UserError where it is not known what the others need.

    Others are all experiments of the working directory's workflows/, and those of elsewhere that have results here.
    """
    _refuse_broken(name for name in plans.broken if _counts(name))
    needed: dict[Key, list[str]] = {run.key: [] for run in plans.by_experiment[experiment].runs}
    for name, plan in plans.by_experiment.items():
        for run in plan.runs if name != experiment and _counts(name) else ():
            if run.key in needed:
                needed[run.key].append(name)
    only = [of_run(*key) for key, others in needed.items() if not others]
    return _there([of_tables(experiment), *only]), {key: others for key, others in needed.items() if others}


def unused(plans: Plans) -> list[Leftover]:
    """The files of runs that no experiment has, downstream first. Raises UserError where one's runs are not known."""
    _refuse_broken(plans.broken)
    return _there([of_run(*key) for key in sorted(set(_keys_there()) - set(plans.runs))])


def refuse_at_work(leftovers: Iterable[Leftover]) -> None:
    """Raise UserError where a workflow or a run is under way, or where a folder of these files is a link, so that
    they would be removed elsewhere."""
    if any(SNAKEMAKE_LOCKS.glob("*.lock")):
        remedy = "wait until it ends, or run `snakemake --unlock` if none is"
        raise UserError(f"{SNAKEMAKE_LOCKS}: a workflow is at work here; {remedy}")
    root = RESULTS.resolve()
    for leftover in leftovers:
        if is_locked(leftover.lock):
            raise UserError(f"{leftover.stage} {leftover.name}: is under way; wait until it ends, or end it")
        for path in (path for paths in leftover.files.values() for path in paths):
            if path.parent.resolve() != root / path.parent.relative_to(RESULTS):
                raise UserError(f"{path.parent}: is a link, or below one; remove by hand what is there, or the link")


def _counts(experiment: str) -> bool:
    """Whether an experiment keeps what it needs: one that comes with the package does so once it has results here."""
    written = any((Path(FOLDERS["experiments"]) / f"{experiment}.{end}").exists() for end in ENDINGS)
    return written or (RESULTS / experiment).exists()


def _refuse_broken(names: Iterable[str]) -> None:
    if broken := sorted(names):
        remedy = f"`cgpt plan {broken[0]}` says what is wrong; mend it, or delete its file"
        raise UserError(f"workflows/experiments: which runs {', '.join(broken)} needs is not known; {remedy}")


def _there(leftovers: Collection[Leftover]) -> list[Leftover]:
    """Those that are there, tables first and then from downstream to upstream, so that nothing finished is left
    without what it was made from."""
    order = (TABLES, *reversed(STAGES))
    return sorted((each for each in leftovers if each.is_there()), key=lambda each: order.index(each.stage))


def _keys_there() -> Iterator[Key]:
    """Stage and id of every run that has left a folder, a state, early scores, a log, a benchmark or a lock."""
    for stage in STAGES:
        folder = RUNS_FOLDER / Path(LAST_FILE[stage]).parts[0]
        yield from ((stage, path.name) for path in folder.glob("*") if path.is_dir() and not PART.search(path.name))
        for root, end in ((LOGS, ".log"), (BENCHMARKS, ".tsv"), (LOCKS, "")):
            yield from ((stage, path.name.removesuffix(end)) for path in (root / stage).glob(f"*{end}"))
    yield from (("pretrain", path.name.removesuffix(".shared")) for path in STATES.glob("*"))
    yield from (("evaluate", path.name) for path in EARLY.glob("*/*"))


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where nothing is, and of links."""
    if path.is_symlink() or not path.exists():
        return 0
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if not file.is_symlink())
