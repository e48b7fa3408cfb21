"""Records of results and the columns of their tables, read strictly.

`run.json` is one flat record per pretrained or fine-tuned model, `scores.json` one per evaluation, `loss.csv` one row
per optimizer step. A file with a missing or an extra key, or a value of the wrong type, is refused, one line a problem.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cgpt.errors import UserError
from cgpt.files.csv_file import read_numbers
from cgpt.files.json_object import read_object
from cgpt.files.typed import fill
from cgpt.files.whole import write_whole

SEAL = "record_sha256"
REDO = "delete its folder, so that the run is done again"


@dataclass(frozen=True, kw_only=True)
class PretrainRecord:
    """run.json of a pretrained model. None means unknown, and prints as an empty cell."""

    run: str
    stage: str
    model: str
    data: str
    seed: int
    hardware: str
    timing: str  # measured | modeled: where seconds, tokens_per_s and energy_j come from
    n_parameters: int
    n_parameters_non_embedding: int
    tokens: int
    steps: int
    flops_6nd: float
    flops: float  # analytic, attention included
    train_loss: float | None  # nats per token, as is validation_loss
    validation_loss: float | None
    validation_bits_per_byte: float | None
    seconds: float | None
    tokens_per_s: float | None
    compile_s: float | None
    peak_memory_bytes: int | None
    host_cpu: str | None
    threads: int
    compiler: str | None
    versions: dict
    code_sha256: str
    commit: str | None
    date: str
    inputs: dict  # `<stage>/<file>` and its SHA-256, of all that the run was made from
    outputs: dict  # name and SHA-256 of each file written beside this one
    energy_j: float | None = None  # this key and the two below are the only ones that a file may leave out
    metered_flops: float | None = None  # of the kernels of one optimizer step, where the device counts them
    metered_bytes: float | None = None  # that they read and wrote


@dataclass(frozen=True, kw_only=True)
class FinetuneRecord(PretrainRecord):
    """run.json of a fine-tuned model."""

    task: str
    start: str  # pretrained | scratch
    n_labels: int | None  # None: the whole training split
    n_train_examples: int
    best_epoch: int | None
    validation_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class MeterRecord(PretrainRecord):
    """run.json of a modeled profile: what the pretraining of `weights_from` would take there, by the cost model.

    `seconds` and `energy_j` are of the whole run with what a job takes before and after. `parts_s` adds up to `step_s`.
    The work metered is of the kernels of one optimizer step, which compute that profile's weights bit for bit.
    """

    weights_from: str
    systems: int
    batch_per_system: int
    step_s: float | None
    parts_s: dict
    utilisation: float | None
    energy_j_per_token: float | None
    bound_by: str | None
    in_memory: bool | None  # whether the machine holds the model and what its training needs
    extrapolated: bool
    job_overhead_s: float
    price_usd: float | None


@dataclass(frozen=True)
class Score:
    """One metric of one evaluation. `stderr` is over the test documents, `chance` None where undefined."""

    metric: str
    filter: str
    value: float
    stderr: float | None
    higher_is_better: bool | None  # None: a metric of the task's own that does not say so
    chance: float | None


@dataclass(frozen=True)
class ScoresRecord:
    """scores.json. `stage` names the checkpoint's stage: pretrain, finetune, or baseline (no language model)."""

    run: str
    task: str
    task_version: int | float | str | None
    checkpoint: str | None
    stage: str
    n_shot: int
    n_samples: int
    n_prompts_cut: int  # documents whose prompt was longer than the model, so that it lost its start
    hardware: str
    prompt_example: str
    seconds: float | None
    samples_sha256: str
    inputs: dict  # as a run's
    lm_eval_version: str
    scores: list  # of Score
    commonest_answer: str | None = None  # of the model to the documents; a file may leave out this key and the next
    commonest_answer_share: float | None = None  # of the documents, 0 to 1
    documents: str = "all"  # of the evaluated split: all | first 100 of 3,270 | random 100 of 3,270


@dataclass(frozen=True)
class DivergedRecord:
    """diverged.json of a training run that stopped because its loss rose or was no number; it has no run.json."""

    run: str
    stage: str
    step: int
    loss: float | None  # nats per token at that step; None: not finite


DIVERGED_FILE = "diverged.json"

LOSS_COLUMNS = ("step", "tokens", "train_loss", "validation_loss", "validation_bits_per_byte", "lr", "grad_norm",
                "tokens_per_s", "seconds")  # fmt: skip

KERNEL_COLUMNS = ("kernel", "layer", "phase", "n_calls", "flops", "bytes_read", "bytes_written")

# Metrics of lm-evaluation-harness whose values lie within bounds, whatever the task.
BOUNDS = {
    "acc": (0, 1), "acc_norm": (0, 1), "acc_bytes": (0, 1), "acc_mutual_info": (0, 1), "mcc": (-1, 1),
    "brier_score": (0, 2), "perplexity": (0, math.inf), "word_perplexity": (0, math.inf),
    "byte_perplexity": (0, math.inf), "bits_per_byte": (0, math.inf),
}  # fmt: skip

# The metric that tells models apart which all guess at a task; `evaluate` gives it where answers have a likelihood.
ANSWER_BITS = "bits_per_byte_of_answer"


def read_run(path: Path) -> PretrainRecord:
    """Read a run.json; its `stage` decides which keys it must have. Raises UserError."""
    raw = _read_sealed(path)
    kinds: dict[str, type[PretrainRecord]] = {"finetune": FinetuneRecord, "meter": MeterRecord}
    kind = kinds.get(str(raw.get("stage")), PretrainRecord)
    record = fill(kind, raw, str(path))
    problems = [
        f"{path}: {key}: '{getattr(record, key)}' is not one of {', '.join(known)}; write one of them"
        for key, known in (("stage", ("pretrain", "finetune", "meter")), ("timing", ("measured", "modeled")))
        if getattr(record, key) not in known
    ]
    accuracy = getattr(record, "validation_accuracy", None)
    if accuracy is not None and not 0 <= accuracy <= 1:
        problems.append(f"{path}: validation_accuracy: {accuracy} is not from 0 to 1; {REDO}")
    if problems:
        raise UserError(*problems)
    return record


def read_scores(path: Path) -> ScoresRecord:
    """Read a scores.json, its `scores` as Score objects. Raises UserError."""
    record = fill(ScoresRecord, _read_sealed(path), str(path))
    if not record.scores or not all(isinstance(raw, dict) for raw in record.scores):
        raise UserError(f"{path}: scores: is empty or holds no objects; expected one object per metric")
    scores = [fill(Score, raw, f"{path}: scores.{n}") for n, raw in enumerate(record.scores)]
    if problems := [f"{path}: {problem}; {REDO}" for problem in _impossible(record, scores)]:
        raise UserError(*problems)
    return replace(record, scores=scores)


def _impossible(record: ScoresRecord, scores: Sequence[Score]) -> Iterator[str]:
    """Values that no evaluation can give."""
    for score in scores:
        least, most = BOUNDS.get(score.metric, (-math.inf, math.inf))
        if not least <= score.value <= most:
            yield f"scores: {score.metric}: {score.value} is not from {least} to {most}"
        if score.stderr is not None and score.stderr < 0:
            yield f"scores: {score.metric}: stderr: {score.stderr} is negative"
        if score.chance is not None and not 0 <= score.chance <= 1:
            yield f"scores: {score.metric}: chance: {score.chance} is not from 0 to 1"
    if record.n_samples < 1 or not 0 <= record.n_prompts_cut <= record.n_samples or record.n_shot < 0:
        yield (f"n_samples, n_prompts_cut, n_shot: {record.n_samples}, {record.n_prompts_cut} and {record.n_shot} "
               "cannot be counts")  # fmt: skip


def read_loss(path: Path) -> list[dict[str, float | None]]:
    """Read a loss.csv into one dict per step; an empty cell (not evaluated at that step) is None. Raises UserError."""
    return _read_table(path, LOSS_COLUMNS)


def read_kernels(path: Path) -> list[dict[str, Any]]:
    """Read a kernels.csv into one dict per kernel, layer (None: outside the blocks) and phase. Raises UserError."""
    return _read_table(path, KERNEL_COLUMNS, ("kernel", "phase"))


def read_diverged(path: Path) -> DivergedRecord | None:
    """Read a diverged.json; None where there is none, as of a run that did not diverge. Raises UserError."""
    return fill(DivergedRecord, _read_sealed(path), str(path)) if path.is_file() else None


def write_record(path: Path, record: PretrainRecord | ScoresRecord | DivergedRecord) -> None:
    """Write a record as JSON, whole or not at all, with a hash of what it says as its last key."""
    content = asdict(record)
    sealed = content | {SEAL: _sealing(content)}
    write_whole(path, (json.dumps(sealed, indent=1, ensure_ascii=False) + "\n").encode())


def _read_table(path: Path, columns: Sequence[str], texts: Sequence[str] = ()) -> list[dict[str, Any]]:
    try:
        return read_numbers(path, columns, texts)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {REDO}") from None


def _read_sealed(path: Path) -> dict[str, Any]:
    """The keys of a record, which must be as it was written, without its hash. Raises UserError."""
    raw = read_object(path, REDO, "run its stage first (snakemake does when asked for a table)")
    if not is_as_written(raw):
        raise UserError(f"{path}: was changed after it was written ({SEAL}); {REDO}")
    raw.pop(SEAL, None)
    return raw


def is_as_written(raw: dict[str, Any]) -> bool:
    """Whether a record is what its hash was made of; one without a hash is not one that a stage wrote."""
    return raw.get(SEAL) in (None, _sealing(raw))


def _sealing(content: dict[str, Any]) -> str:
    unsealed = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(unsealed, sort_keys=True).encode()).hexdigest()
