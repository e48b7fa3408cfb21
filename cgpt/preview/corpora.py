"""Small corpora, tokenized on trial, so that a vocabulary or a sequence that they cannot fill is known at once."""

import json
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from cgpt.data import task_rows
from cgpt.data.content import SPLITS
from cgpt.errors import UserError
from cgpt.experiment.load import Workflow
from cgpt.experiment.run import Run, last_file
from cgpt.files.layers import file_of
from cgpt.jobs import Job
from cgpt.preview.kept_checks import remember
from cgpt.preview.sources import find_files
from cgpt.provenance import code_sha256
from cgpt.spec import Dataset

LARGEST_BYTES = 2_000_000  # tokenized in a second or two; a larger corpus fills what its tokenize run asks of it sooner


def refuse_too_small(experiment: str, runs: Iterable[Run], workflow: Workflow) -> None:
    """Refuse a vocabulary that a small corpus cannot give, and a seq_len longer than its text.

    Corpora that are not at hand, or larger than LARGEST_BYTES, are left to the stages. Raises UserError.
    """
    runs, problems = list(runs), []
    counted: dict[str, dict[str, int]] = {}
    for run in runs:
        if run.stage == "tokenize":
            try:
                counted[run.id] = _count_tokens(run, workflow)
            except UserError as error:
                problems += [_with_its_file(problem, experiment, run, workflow) for problem in error.problems]
    for run in runs:
        if run.stage != "pretrain":
            continue
        model = run.spec["model"]
        for split, n_tokens in counted.get(run.needs["tokenize"], {}).items():
            problem = (
                f"{file_of('models', model['name'])}: {model['name']}.seq_len: {model['seq_len']} does not fit "
                f"the {n_tokens:,} {split} tokens of this corpus; write {max(1, n_tokens - 1)} or less, or take a "
                "larger corpus"
            )
            if model["seq_len"] >= n_tokens and problem not in problems:
                problems.append(problem)
    if problems:
        raise UserError(*problems)


def _with_its_file(problem: str, experiment: str, run: Run, workflow: Workflow) -> str:
    """A problem of a text behind its entry of data.yaml, any other behind the experiment."""
    for name in run.spec["corpus"]:
        sources = find_files(workflow.datasets[name]) or {}
        if any(problem.startswith(f"{source}: ") for source in sources.values()):
            return f"{file_of('datasets', name)}: {name}: {problem}"
    return f"{file_of('experiments', experiment)}: {problem}"


def _count_tokens(run: Run, workflow: Workflow) -> dict[str, int]:
    """Tokens of each split: of the run if it is finished, else counted on trial; {} where that is not tried."""
    try:
        record = json.loads(last_file("tokenize", run.id).read_text(encoding="utf-8"))
        return {split: int(record[split]["n_tokens"]) for split in SPLITS}
    except (OSError, ValueError, LookupError, TypeError):
        pass
    datasets = [workflow.datasets[name] for name in run.spec["corpus"]]
    sources = [find_files(dataset) for dataset in datasets]
    if run.spec["tokenizer"] != "bpe" or not all(sources):
        return {}
    paths = [path for files in sources for path in (files or {}).values()]
    if sum(path.stat().st_size for path in paths) > LARGEST_BYTES:
        return {}
    content = [task_rows.sha256_of(path) for path in paths]
    decisive = [asdict(dataset) for dataset in datasets], run.spec, content, code_sha256("stages.tokenize")
    return remember("corpus", decisive, lambda: _tokenize_on_trial(run.spec, datasets))


def _tokenize_on_trial(spec: dict[str, Any], datasets: list[Dataset]) -> dict[str, int]:
    from cgpt.stages.fetch import fetch_dataset
    from cgpt.stages.tokenize import tokenize

    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):  # progress is of the real stages
        for dataset in datasets:
            fetch_dataset(dataset, Path(folder) / dataset.name)
        try:
            record = tokenize(Job(spec, Path(folder) / "tokens", data=Path(folder)))
        except UserError as error:
            raise UserError(*(_of_sources(problem, Path(folder), datasets) for problem in error.problems)) from None
    return {split: record[split]["n_tokens"] for split in SPLITS}


def _of_sources(problem: str, folder: Path, datasets: list[Dataset]) -> str:
    """A problem that names the files of the data sets instead of their copies in a folder of the trial."""
    for dataset in datasets:
        for name, source in (find_files(dataset) or {}).items():
            problem = problem.replace(f"{folder / dataset.name / name}: ", f"{source}: ")
    return problem
