"""What a plan shows of its tasks before anything is spent: a prompt of each, and what is wrong with any document.

Everything is checked where a task's data are at hand: fetched, in the mirror, in a local file, or made by the builtin
generator. What was found right is remembered by the content of all that decides it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cgpt import provenance
from cgpt.code_hash import code_sha256
from cgpt.data import task_rows
from cgpt.data.hub import mirror_path
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment.load import Workflow
from cgpt.experiment.run import RUNS_FOLDER, Run
from cgpt.files.whole import write_whole
from cgpt.spec import Dataset
from cgpt.stages import fetch
from cgpt.stages.baseline import refuse_one_label
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.decoding import n_new_tokens
from cgpt.tasks.documents import render_documents
from cgpt.tasks.examples import Example, read_examples, read_labelled_examples, validation_split_of
from cgpt.tasks.lm_eval_tasks import where

CHECKS = RUNS_FOLDER / "checks"
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
    tokenize: str

    @property
    def tokenizer(self) -> Path:
        """Where its tokenizer is, or will be."""
        return RUNS_FOLDER / "tokens" / self.tokenize / "tokenizer.json"


@dataclass
class Use:
    """What the runs of a plan do with one task: who is scored on it, and what is trained on it."""

    task: dict[str, Any]
    scored: set[Reader] = field(default_factory=set)
    trained: set[tuple[Reader | None, int | None, int]] = field(default_factory=set)  # with labels, most for validation

    def readers(self) -> list[Reader]:
        """Every model, in one order."""
        trained = {reader for reader, _, _ in self.trained if reader}
        return sorted(self.scored | trained, key=lambda reader: (reader.seq_len, reader.model, reader.tokenize))


def previews(runs: Iterable[Run], known: Mapping[tuple[str, str], Run], workflow: Workflow) -> list[TaskPreview]:
    """Check every task that the runs use and show it; `known` has these runs and all that they need.

    Raises one UserError with the first problem of each task.
    """
    found, problems = [], []
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # what lm-evaluation-harness may print
        for use in _uses(runs, known):
            try:
                found.append(_remembered(use, workflow, Path(folder)))
            except UserError as error:
                problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise UserError(*problems)
    return found


def _uses(runs: Iterable[Run], known: Mapping[tuple[str, str], Run]) -> list[Use]:
    """The tasks of the runs, in their order; one with other shots is another."""
    uses: dict[str, Use] = {}
    for run in runs:
        if run.stage not in ("evaluate", "finetune", "baseline"):
            continue
        use = uses.setdefault(json.dumps(run.spec["task"], sort_keys=True), Use(run.spec["task"]))
        if run.stage == "evaluate":
            use.scored.add(_reader(known[run.spec["checkpoint_stage"], run.needs[run.spec["checkpoint_stage"]]]))
        else:
            reader = _reader(run) if run.stage == "finetune" else None
            use.trained.add((reader, run.spec["n_labels"], run.spec.get("finetune", {}).get("max_validation", 2000)))
    return list(uses.values())


def _reader(run: Run) -> Reader:
    return Reader(run.spec["model"]["name"], run.spec["model"]["seq_len"], run.spec["tokenize"])


def _remembered(use: Use, workflow: Workflow, folder: Path) -> TaskPreview:
    """The preview that an earlier call made of the same content, or a new one."""
    dataset = workflow.datasets.get(use.task.get("data") or "")
    sources = at_hand(dataset) if dataset else {}
    sources = sources and _read_by(use.task, sources)
    decides = {
        "task": use.task, "scored": sorted(map(str, use.scored)), "trained": sorted(map(str, use.trained)),
        "data": None if sources is None else {name: task_rows.sha256_of(path) for name, path in sources.items()},
        "dataset": str(dataset), "code": [code_sha256(name) for name in ("preview.tasks", "data.world")],
        "tokenizers": [
            task_rows.sha256_of(reader.tokenizer) for reader in use.readers() if reader.tokenizer.is_file()
        ],
        "lm_eval": provenance.installed_version("lm-eval"),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    path = CHECKS / f"{use.task['task']}-{digest[:16]}.json"
    try:
        return TaskPreview(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    made = _unchecked(use, dataset) if sources is None else _checked(use, dataset, sources, folder)
    try:
        write_whole(path, (json.dumps(asdict(made), ensure_ascii=False) + "\n").encode())
    except (OSError, UserError):  # it is only remembered, so a folder that cannot be written costs time alone
        pass
    return made


def at_hand(dataset: Dataset) -> dict[str, Path] | None:
    """Where the files of a data set are, by the names that it is fetched under; None where they are not here.

    A builtin data set has no files until it is made, which takes no time.
    """
    if dataset.builtin is not None:
        return {}
    if dataset.path is not None:
        source = Path(dataset.path).expanduser()
        paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        return {path.name.removesuffix(".gz"): path for path in paths}
    return _fetched(dataset) or _mirrored(dataset)


def _read_by(task: dict[str, Any], sources: Mapping[str, Path]) -> dict[str, Path]:
    """The files that the task names; all of them where it names some by a pattern."""
    listed = task_rows.split_files(task, where(task)).values()
    names = {name.removesuffix(".gz") for split in listed for name in split}
    patterns = any(task_rows.WILDCARDS & set(name) for name in names)
    return {name: path for name, path in sources.items() if patterns or name in names}


def _fetched(dataset: Dataset) -> dict[str, Path] | None:
    folder = RUNS_FOLDER / "data" / dataset.name
    try:
        record = json.loads((folder / "fetched.json").read_text(encoding="utf-8"))
        listed = record["files"]
        paths = {file["name"]: folder / file["name"] for file in listed}
        wanted = {file.sha256 for file in dataset.files} - {None}
        hub = asdict(dataset.hub) | {"splits": list(dataset.hub.splits)} if dataset.hub else None
        current = wanted <= {file["sha256"] for file in listed} and record["hub"] == hub
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return paths if current and all(path.is_file() for path in paths.values()) else None


def _mirrored(dataset: Dataset) -> dict[str, Path] | None:
    mirror = os.environ.get(fetch.MIRROR)
    if not mirror:
        return None
    below = [Path(file.path) for file in dataset.files]
    below += [mirror_path(dataset.hub, split) for split in dataset.hub.splits] if dataset.hub else []
    found = {}
    for path in below:
        plain = Path(mirror) / str(path).removesuffix(".gz")
        copy = next((copy for copy in (plain, plain.with_name(plain.name + ".gz")) if copy.is_file()), None)
        if copy is None:
            return None
        found[plain.name] = copy
    return found


def _unchecked(use: Use, dataset: Dataset | None) -> TaskPreview:
    """What is known of a task whose data are not here: the names of their files, its templates and its metrics."""
    task = use.task
    assert dataset is not None
    names = [Path(file.path).name.removesuffix(".gz") for file in dataset.files]
    names += [f"{split}.jsonl" for split in dataset.hub.splits] if dataset.hub else []
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
    fetching = f"its data are not here yet; `python -m cgpt fetch {dataset.name}` brings them"
    return TaskPreview(task["task"], task.get("num_fewshot") or 0, fetching)


def _checked(use: Use, dataset: Dataset | None, sources: Mapping[str, Path], folder: Path) -> TaskPreview:
    """Every document that the plan scores or trains on, rendered as it will be."""
    task = use.task
    if not task_rows.in_files(task):
        return TaskPreview(task["task"], task.get("num_fewshot") or 0, "its data come from the Hugging Face hub")
    if dataset is not None:
        _lay_out(dataset, sources, folder)
    tokenizers = {reader: _tokenizer(reader) for reader in use.readers()}
    for reader, n_labels, max_validation in sorted(use.trained, key=str):
        train = read_labelled_examples(task, folder, n_labels)
        if reader is None:
            refuse_one_label(task, train)
        else:
            train += read_examples(task, folder, validation_split_of(task), max_validation)
            _refuse_long_answers(task, train, reader, tokenizers[reader])
    if not use.scored:
        first_example = train[0]
        return TaskPreview(task["task"], 0, n_documents=len(train), prompt=first_example.prompt,
                           answer=first_example.target.strip(), trained=True)  # fmt: skip
    requests, answer = render_documents(task, folder)
    (first, _), *_ = requests[0]
    try:
        cut = {
            reader.model: sum(_is_cut(document, reader, tokenizers[reader]) for document in requests)
            for reader in sorted(use.scored, key=lambda reader: (reader.seq_len, reader.model))
        }
    except UserError as error:
        raise UserError(*(f"{where(task)}: {problem}" for problem in error.problems)) from None
    in_tokens = all(tokenizers[reader] for reader in use.scored)
    n_shot = task.get("num_fewshot") or 0
    return TaskPreview(
        task["task"], n_shot, None, len(requests), first, answer, cut, "tokens" if in_tokens else "bytes"
    )


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


def _tokenizer(reader: Reader) -> Any:
    """The model's tokenizer, None where it is not made yet."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(reader.tokenizer)) if reader.tokenizer.is_file() else None
    except Exception:  # the library's own class; the stage that needs the file says what is wrong with it
        return None


def _is_cut(requests: Sequence[tuple[str, str | int]], reader: Reader, tokenizer: Any) -> bool:
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
