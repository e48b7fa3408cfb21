"""The verb `list`: the entries that there are in the study and in what comes with cgpt, by name."""

import argparse
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cgpt.commands.plan import read_workflow
from cgpt.data.checkpoint_files import source_of
from cgpt.experiment.load import Workflow
from cgpt.experiment.plans import Plans, make_plans
from cgpt.experiment.run import RUNS_FOLDER, last_file
from cgpt.formats import aligned, short, with_prefix
from cgpt.hardware import Hardware
from cgpt.recipe import flops
from cgpt.spec import Dataset, Experiment, Model

KINDS = ("experiments", "runs", "models", "tasks", "hardware", "data")
WIDTH = 110  # characters of a line of names
Row = dict[str, Any]


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line."""
    verb = add_verb("list", list_names, "list experiments, runs, models, tasks, hardware and data by name",
                    group="start", example="experiments")  # fmt: skip
    verb.add_argument("kind", nargs="?", choices=KINDS, help="default: the names of all kinds")


def list_names(arguments: argparse.Namespace) -> tuple[dict[str, list[Row]], str]:
    """Rows of one kind of entries, or of all, by kind, and as text. Raises UserError."""
    workflow = read_workflow()
    kinds = [arguments.kind] if arguments.kind else KINDS
    rows = {kind: _runs(workflow) if kind == "runs" else _entries(kind, workflow) for kind in kinds}
    if arguments.kind:
        return rows, _table(rows[arguments.kind])
    return rows, "\n".join(_names(kind, of_kind) for kind, of_kind in rows.items())


def _entries(kind: str, workflow: Workflow) -> list[Row]:
    """Name, whose it is and a phrase of each entry; those of the study come first, wrong ones say what is wrong."""
    field, phrase = PHRASES[kind]
    entries = getattr(workflow, field)
    rows = []
    for name in [*entries, *entries.broken, *entries.absent]:
        if name in entries.absent:
            says = f"of {source_of(workflow.published[name].checkpoint)}, which is not here yet"
        else:
            says = f"wrong: {entries.broken[name][0]}" if name in entries.broken else phrase(entries[name])
        rows.append({"name": name, "from": "cgpt" if workflow.is_shipped(field, name) else "study", "about": says})
    return sorted(rows, key=lambda row: row["from"] == "cgpt")


def _experiment(experiment: Experiment) -> str:
    return experiment.question


def _model(model: Model) -> str:
    body = f"{short(flops.n_parameters_non_embedding(model))} parameters beside embeddings"
    size = f"{short(flops.n_parameters(model))} parameters" if model.vocab_size else body
    return f"{size}: n_layer {model.n_layer}, d_model {model.d_model}, seq_len {model.seq_len}"


def _task(task: Mapping[str, Any]) -> str:
    members = task.get("task")
    if isinstance(members, list):
        return f"group of {len(members)} tasks"
    if task.get("stock"):
        return f"{members} of lm-evaluation-harness"
    return f"{task.get('output_type')}, on {task.get('data') or task.get('dataset_path') or 'data of its function'}"


def _hardware(profile: Hardware) -> str:
    return f"{profile.device}, {profile.timing}: {profile.description.removesuffix('; modeled')}"


def _dataset(dataset: Dataset) -> str:
    n_bytes = _bytes_below(Path(dataset.path).expanduser() if dataset.path else RUNS_FOLDER / "data" / dataset.name)
    terms = dataset.licence_status or dataset.licence
    return ", ".join(filter(None, [dataset.about or dataset.path or dataset.name, terms, _size(n_bytes)]))


PHRASES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "experiments": ("experiments", _experiment), "models": ("models", _model), "tasks": ("tasks", _task),
    "hardware": ("hardware", _hardware), "data": ("datasets", _dataset),
}  # fmt: skip


def _runs(workflow: Workflow) -> list[Row]:
    """Each run of the study's experiments, and of cgpt's those that are begun: whether it is done, and its size."""
    plans = make_plans(workflow)
    experiments = _experiments_of_runs(plans)
    rows = []
    for (stage, run_id), names in experiments.items():
        folder = last_file(stage, run_id).parent
        if folder.exists() or not all(workflow.is_shipped("experiments", name) for name in names):
            rows.append({"run": run_id, "stage": stage, "experiments": names,
                         "done": last_file(stage, run_id).is_file(), "bytes": _bytes_below(folder)})  # fmt: skip
    return rows


def _experiments_of_runs(plans: Plans) -> dict[tuple[str, str], list[str]]:
    named: dict[tuple[str, str], list[str]] = {}
    for name, plan in plans.by_experiment.items():
        for run in plan.runs:
            named.setdefault(run.key, []).append(name)
    return named


def _bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is nothing."""
    files: Iterable[Path] = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _size(n_bytes: int) -> str:
    """`412 kB`; empty where there is nothing."""
    return with_prefix(n_bytes, "B") if n_bytes else ""


def _table(rows: list[Row]) -> str:
    if not rows:
        return "none"
    shown = [{key: _cell(key, value) for key, value in row.items()} for row in rows]
    heads = [head.replace("bytes", "size") for head in rows[0]]
    return "\n".join(aligned([heads, *(list(row.values()) for row in shown)], left=len(heads)))


def _cell(key: str, value: Any) -> str:
    if key == "bytes":
        return _size(value)
    if key == "done":
        return "done" if value else "to do"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _names(kind: str, rows: list[Row]) -> str:
    """The names of a kind on few lines, those of the study and of cgpt apart; of runs, how many there are."""
    if kind == "runs":
        n_bytes = sum(row["bytes"] for row in rows)
        return f"{kind}: {sum(row['done'] for row in rows)} of {len(rows)} done, {_size(n_bytes) or 'nothing'} on disk"
    parts = [(owner, ", ".join(row["name"] for row in rows if row["from"] == owner)) for owner in ("study", "cgpt")]
    text = "; ".join(f"of the {owner}: {names}".replace("the cgpt", "cgpt") for owner, names in parts if names)
    return textwrap.fill(f"{kind} {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
