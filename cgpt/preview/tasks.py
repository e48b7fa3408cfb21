"""Previews of a plan's tasks before anything is spent: a prompt of each, and what is wrong with any document.

Everything is checked where a task's data are at hand: fetched, in the mirror, in a local file, or made by the builtin
generator.
"""

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cgpt.data import task_rows
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment.load import Workflow
from cgpt.experiment.run import RUNS_FOLDER, Key, Run, last_file
from cgpt.preview.kept_checks import remember
from cgpt.preview.sources import file_names, find_files
from cgpt.provenance import code_sha256, installed_version
from cgpt.spec import Dataset
from cgpt.stages.baseline import refuse_one_label
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.decoding import n_new_tokens
from cgpt.tasks.documents import render_documents
from cgpt.tasks.examples import Example, read_examples, read_labelled_examples, validation_split_of
from cgpt.tasks.lm_eval_tasks import where

Requests = Sequence[tuple[str, str | int]]  # of one document: prompts, with an answer or the most tokens of one
BYTES_PER_TOKEN = 4  # of English under a vocabulary of some thousands; for prompts whose tokenizer is not there yet


@dataclass(frozen=True)
class TaskPreview:
    """One task as an experiment uses it. `prompt` and `answer` are of its first scored document, None where its data
    are not at hand, as `unchecked` then says. `cut` counts, by model, the prompts that are longer than it. Where the
    task is `trained` on and scored as another, by a limit, say, they are its labelled documents."""

    task: str
    n_shot: int
    unchecked: str | None = None
    n_documents: int | None = None
    prompt: str | None = None
    answer: str | None = None
    cut: dict[str, int] = field(default_factory=dict)
    counted_in: str = "tokens"  # or bytes: where the tokenizer is not there yet, 4 of them are taken for a token
    trained: bool = False


@dataclass(frozen=True)
class Reader:
    """A model that a task is for, and the run that makes its tokenizer."""

    model: str
    seq_len: int
    tokenizing: Key

    @property
    def tokenizer(self) -> Path:
        """Where its tokenizer is, or will be."""
        return last_file(*self.tokenizing).with_name("tokenizer.json")


@dataclass
class TaskUse:
    """A task as the runs of a plan use it: models that are scored on it, and those that are trained on it."""

    task: dict[str, Any]
    scored: set[Reader] = field(default_factory=set)
    trained: set[tuple[Reader | None, int | None, int]] = field(default_factory=set)  # labels, most for validation

    def readers(self) -> list[Reader]:
        """Every model, in one order."""
        trained = {reader for reader, _, _ in self.trained if reader}
        return sorted(self.scored | trained, key=lambda reader: (reader.seq_len, reader.model, reader.tokenizing))


def preview(runs: Iterable[Run], known: Mapping[Key, Run], workflow: Workflow) -> list[TaskPreview]:
    """Check every task that the runs use and show it; `known` has these runs and all that they need.

    Raises one UserError with the first problem of each task.
    """
    previews, problems = [], []
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # what lm-evaluation-harness may print
        for use in _uses(runs, known):
            try:
                previews.append(_preview(use, workflow, Path(folder)))
            except UserError as error:
                problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise UserError(*problems)
    return previews


def _uses(runs: Iterable[Run], known: Mapping[Key, Run]) -> list[TaskUse]:
    """The tasks of the runs, in their order; one with other shots is another."""
    uses: dict[str, TaskUse] = {}
    for run in runs:
        if run.stage not in ("evaluate", "finetune", "baseline"):
            continue
        use = uses.setdefault(json.dumps(run.spec["task"], sort_keys=True), TaskUse(run.spec["task"]))
        if run.stage == "evaluate":
            stage = run.spec["checkpoint_stage"]
            use.scored.add(_reader(known[stage, run.needs[stage]]))
        elif run.stage == "finetune":
            use.trained.add((_reader(run), run.spec["n_labels"], run.spec["finetune"]["max_validation"]))
        else:
            use.trained.add((None, run.spec["n_labels"], 0))
    return list(uses.values())


def _reader(run: Run) -> Reader:
    stage = "tokenize" if "tokenize" in run.spec else "import"
    return Reader(run.spec["model"]["name"], run.spec["model"]["seq_len"], (stage, run.spec.get(stage, run.id)))


def _preview(use: TaskUse, workflow: Workflow, folder: Path) -> TaskPreview:
    """The preview of one task, from an earlier call where that was of the same content."""
    dataset = workflow.datasets.get(use.task.get("data") or "")
    sources = find_files(dataset) if dataset else {}
    sources = sources and _files_of(use.task, sources)
    tokenizers = [reader.tokenizer for reader in use.readers() if reader.tokenizer.is_file()]
    decisive = {
        "task": use.task, "scored": sorted(map(str, use.scored)), "trained": sorted(map(str, use.trained)),
        "data": None if sources is None else {name: task_rows.sha256_of(path) for name, path in sources.items()},
        "dataset": str(dataset), "tokenizers": [task_rows.sha256_of(path) for path in tokenizers],
        "code": code_sha256("preview.tasks"), "lm_eval": installed_version("lm-eval"),
    }  # fmt: skip

    def check() -> dict[str, Any]:
        return asdict(_check_form(use, dataset) if sources is None else _check(use, dataset, sources, folder))

    return TaskPreview(**remember(use.task["task"], decisive, check))


def _files_of(task: dict[str, Any], sources: Mapping[str, Path]) -> dict[str, Path]:
    """The files that the task names; all of them where it names some by a pattern."""
    listed = task_rows.split_files(task, where(task)).values()
    names = {name.removesuffix(".gz") for split in listed for name in split}
    patterns = any(task_rows.WILDCARDS & set(name) for name in names)
    return {name: path for name, path in sources.items() if patterns or name in names}


def _check_form(use: TaskUse, dataset: Dataset | None) -> TaskPreview:
    """Preview of a task whose data are not here: checked are the names of their files, its templates and metrics."""
    task = use.task
    assert dataset is not None
    names = file_names(dataset)
    problems = [
        f"{where(task)}: dataset_kwargs.data_files.{split}: data set '{dataset.name}' has no file '{name}'; "
        f"{did_you_mean(name, names)}"
        for split, listed in task_rows.split_files(task, where(task)).items()
        for name in listed
        if not task_rows.WILDCARDS & set(name) and name.removesuffix(".gz") not in names
    ]
    if problems:
        raise UserError(*problems)
    lm_eval_tasks.check_form(task, RUNS_FOLDER / "data")
    fetching = f"its data are not here yet; `cgpt fetch {dataset.name}` brings them"
    return TaskPreview(task["task"], task.get("num_fewshot") or 0, fetching)


def _check(use: TaskUse, dataset: Dataset | None, sources: Mapping[str, Path], folder: Path) -> TaskPreview:
    """Preview of a task every document of which, of those that are scored or trained on, was rendered."""
    task, n_shot = use.task, use.task.get("num_fewshot") or 0
    if not task_rows.in_files(task):
        return TaskPreview(task["task"], n_shot, "its data come from the Hugging Face hub")
    if dataset is not None:
        _lay_out(dataset, sources, folder)
    tokenizers = {reader: _read_tokenizer(reader) for reader in use.readers()}
    labelled = _check_training(use, folder, tokenizers)
    if not use.scored:
        return TaskPreview(task["task"], 0, n_documents=len(labelled), prompt=labelled[0].prompt,
                           answer=labelled[0].target.strip(), trained=True)  # fmt: skip
    requests, answer = render_documents(task, folder)
    (prompt, _), *_ = requests[0]
    cut = _count_cut(use, requests, tokenizers)
    unit = "tokens" if all(tokenizers[reader] for reader in use.scored) else "bytes"
    return TaskPreview(task["task"], n_shot, None, len(requests), prompt, answer, cut, unit)


def _check_training(use: TaskUse, folder: Path, tokenizers: Mapping[Reader, Any]) -> Sequence[Example]:
    """The labelled examples, with those for validation, of the last of the trainings, all of which are checked."""
    task, examples = use.task, []
    for reader, n_labels, max_validation in sorted(use.trained, key=str):
        examples = read_labelled_examples(task, folder, n_labels)
        if reader is None:
            refuse_one_label(task, examples)
        else:
            examples += read_examples(task, folder, validation_split_of(task), max_validation)
            _refuse_long_answers(task, examples, reader, tokenizers[reader])
    return examples


def _count_cut(use: TaskUse, requests: Sequence[Requests], tokenizers: Mapping[Reader, Any]) -> dict[str, int]:
    """By model, the number of documents whose prompt is too long for it; raises UserError for an answer that is."""
    try:
        return {
            reader.model: sum(_is_cut(document, reader, tokenizers[reader]) for document in requests)
            for reader in use.readers() if reader in use.scored
        }  # fmt: skip
    except UserError as error:
        raise UserError(*(f"{where(use.task)}: {problem}" for problem in error.problems)) from None


def _lay_out(dataset: Dataset, sources: Mapping[str, Path], folder: Path) -> None:
    """Let the data set be in `folder` as fetching it would leave it, without copying a file."""
    target = folder / dataset.name
    if target.exists():
        return
    target.mkdir()
    if dataset.builtin is not None:
        from cgpt.data.world import write_world

        write_world(dataset.seed, target)
    for name, path in sources.items():
        (target / name).symlink_to(path.absolute())


def _read_tokenizer(reader: Reader) -> Any:
    """The model's tokenizer, None where it is not made yet."""
    try:
        return Tokenizer.from_file(str(reader.tokenizer)) if reader.tokenizer.is_file() else None
    except Exception:  # the library's own class; the stage that needs the file says what is wrong with it
        return None


def _is_cut(requests: Requests, reader: Reader, tokenizer: Any) -> bool:
    """Whether a document's prompt with one of its answers, or with as many tokens as are asked for, is too long."""
    for prompt, answer in requests:
        n_new = n_new_tokens(answer or None, reader.seq_len) if isinstance(answer, int) else 0
        text = prompt + (answer if isinstance(answer, str) else "")
        n_tokens = len(tokenizer.encode(text, add_special_tokens=False)) if tokenizer else \
            len(text.encode()) // BYTES_PER_TOKEN  # fmt: skip
        if n_tokens > reader.seq_len + (1 if isinstance(answer, str) else -n_new):
            return True
    return False


def _refuse_long_answers(task: dict[str, Any], examples: Sequence[Example], reader: Reader, tokenizer: Any) -> None:
    for example in examples if tokenizer else ():
        n_tokens = len(tokenizer.encode(example.target, add_special_tokens=False))
        if n_tokens > reader.seq_len:
            raise UserError(f"{where(task)}: doc_to_target: the answer {example.target[:60]!r} has {n_tokens} "
                            f"tokens, {reader.model} reads {reader.seq_len}; leave its document out")  # fmt: skip
