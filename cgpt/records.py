"""Records of results, each key with a sentence below it, read strictly.

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

from cgpt.csv_columns import KERNEL_COLUMNS, LOSS_COLUMNS
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
    """The run's id: a readable name and a hash of all that decides its result."""
    stage: str
    """The kind of run: pretrain, finetune or meter; of a score, the stage of the checkpoint that was scored."""
    model: str
    """The model's row of workflows/models.yaml."""
    data: str
    """The corpus: its data sets, joined by +."""
    seed: int
    """The seed of initial weights and of the order of batches."""
    hardware: str
    """The hardware profile."""
    timing: str
    """measured or modeled: where seconds, tokens_per_s and energy_j come from."""
    n_parameters: int
    """All weights of the model."""
    n_parameters_non_embedding: int
    """Weights without token and position embeddings and an untied head."""
    tokens: int
    """Tokens trained on, repeats counted."""
    steps: int
    """Optimizer steps."""
    flops_6nd: float
    """Training FLOPs as 6 N D, of all parameters."""
    flops: float
    """Training FLOPs, attention included (PaLM's convention); computed, not metered."""
    train_loss: float | None
    """Loss of the last step, nats per token."""
    validation_loss: float | None
    """Loss on validation text, nats per token: at the end of pretraining, of the best epoch of fine-tuning."""
    validation_bits_per_byte: float | None
    """The same in bits per byte of text, which vocabularies do not change."""
    seconds: float | None
    """Time of training; of a modeled machine with what a job takes before and after."""
    tokens_per_s: float | None
    """Speed of the steps, without first ones that compile."""
    compile_s: float | None
    """Time of compiling and capturing kernels."""
    peak_memory_bytes: int | None
    """The most memory that the process held."""
    host_cpu: str | None
    """The processor that computed."""
    threads: int
    """Threads that it computed on."""
    compiler: str | None
    """The compiler of the kernels, and what computes matrix products."""
    versions: dict
    """Versions of Python and of the libraries that results depend on."""
    code_sha256: str
    """Hash of the code that decides the result, without comments and messages."""
    commit: str | None
    """The git commit, with -dirty where files differed from it; empty outside a checkout."""
    date: str
    """When the run ended, UTC."""
    inputs: dict
    """`<stage>/<file>` and its SHA-256, of all that the run was made from."""
    outputs: dict
    """Name and SHA-256 of each file written beside this one."""
    # This key and the two below are the only ones that a file may leave out.
    energy_j: float | None = None
    """Energy of training; known of modeled machines alone."""
    metered_flops: float | None = None
    """FLOPs of the kernels of one optimizer step, where the device counts them."""
    metered_bytes: float | None = None
    """Bytes that these kernels read and wrote."""


@dataclass(frozen=True, kw_only=True)
class FinetuneRecord(PretrainRecord):
    """run.json of a fine-tuned model."""

    task: str
    """The file of workflows/tasks."""
    start: str
    """pretrained or scratch: the weights that tuning began from."""
    n_labels: int | None
    """Labelled examples asked for; empty: the whole training split."""
    n_train_examples: int
    """Labelled examples that were trained on."""
    best_epoch: int | None
    """The epoch whose weights were kept."""
    validation_accuracy: float | None
    """Share of validation examples answered right after that epoch, 0 to 1."""
    batches: list | None = None
    """Sequences and padded tokens of each shape of batch, and the number of its steps; what modeled machines are asked
    of. A file may leave it out."""


@dataclass(frozen=True, kw_only=True)
class MeterRecord(PretrainRecord):
    """run.json of a modeled profile: what a training of `weights_from` would take there, by the cost model.

    It is pretraining, or the fine-tuning of an imported model, of whose batches the commonest shape is a step's. The
    work metered is of the kernels of one optimizer step, which compute that profile's weights bit for bit.
    """

    weights_from: str
    """The profile that trained the model."""
    systems: int
    """Machines that work together."""
    batch_per_system: int
    """Sequences of a step on each."""
    step_s: float | None
    """Time of one optimizer step."""
    parts_s: dict
    """That time by what it goes into; the parts add up to step_s."""
    utilisation: float | None
    """Training FLOPs over the dense peak, 0 to 1."""
    energy_j_per_token: float | None
    """Nameplate power times the steps' time, over their tokens."""
    bound_by: str | None
    """The part that limits."""
    in_memory: bool | None
    """Whether the machine holds the model and what its training needs."""
    extrapolated: bool
    """Whether no measurement covers this width or number of systems."""
    job_overhead_s: float
    """What a job takes beside its steps: compiling, loading, sending weights, a checkpoint."""
    price_usd: float | None
    """Price of the whole run, by the profile's public price."""


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """run.json of a checkpoint that was imported, whose training nobody here knows. Keys that a PretrainRecord has too
    mean the same."""

    run: str
    """The run's id."""
    stage: str
    """import."""
    model: str
    """The model's row of workflows/models.yaml."""
    data: str
    """Where the checkpoint is from, in place of a corpus."""
    n_parameters: int
    """All weights of the model."""
    n_parameters_non_embedding: int
    """Weights without token and position embeddings and an untied head."""
    host_cpu: str | None
    """The processor of the machine."""
    versions: dict
    """Versions of Python and of the libraries that results depend on."""
    code_sha256: str
    """Hash of the code that decides the result, without comments and messages."""
    commit: str | None
    """The git commit, with -dirty where files differed from it; empty outside a checkout."""
    date: str
    """When the run ended, UTC."""
    inputs: dict
    """`checkpoint/<file>` and its SHA-256, of all files that were read."""
    outputs: dict
    """Name and SHA-256 of each file written beside this one."""


@dataclass(frozen=True)
class Score:
    """One metric of one evaluation."""

    metric: str
    """The metric's name, as in lm-evaluation-harness."""
    filter: str
    """The filter that answers went through before it; none: no filter."""
    value: float
    """The metric's value over the documents."""
    stderr: float | None
    """Standard error of the value over the test documents; no part of it is of training."""
    higher_is_better: bool | None
    """Whether more is better; empty: a metric of the task's own that does not say so."""
    chance: float | None
    """Expected value of guessing; empty where undefined."""


@dataclass(frozen=True)
class ScoresRecord:
    """scores.json: the evaluation of a checkpoint, or of a bag of words, on a task."""

    run: str
    """The evaluation's id."""
    task: str
    """The file of workflows/tasks, or a member of a group."""
    task_version: int | float | str | None
    """The version that the task states of itself."""
    checkpoint: str | None
    """The run whose model was scored."""
    stage: str
    """The checkpoint's stage: pretrain, import, finetune, or baseline (no language model)."""
    n_shot: int
    """Solved examples before each question."""
    n_samples: int
    """Documents that were scored."""
    n_prompts_cut: int
    """Documents whose prompt was longer than the model, so that it lost its start."""
    hardware: str
    """The hardware profile that scored."""
    prompt_example: str
    """The first document's prompt, as the model saw it."""
    seconds: float | None
    """Time of the evaluation."""
    samples_sha256: str
    """SHA-256 of samples.jsonl, which holds every prompt, answer and score."""
    inputs: dict
    """`<stage>/<file>` and its SHA-256, of all that the scores were made from."""
    lm_eval_version: str
    """The version of lm-evaluation-harness."""
    scores: list
    """The metrics, a Score each."""
    # A file may leave out this key and those below.
    commonest_answer: str | None = None
    """The answer that the model gave to the most documents."""
    commonest_answer_share: float | None = None
    """The share of the documents that it gave it to, 0 to 1."""
    documents: str = "all"
    """Which of the split were scored: all, `first 100 of 3,270`, or `random 100 of 3,270`."""
    weights_dtype: str = "float32"
    """What the matrices of products were rounded to before they scored: float32 (not at all), bfloat16 or int8."""


@dataclass(frozen=True)
class DivergedRecord:
    """diverged.json of a training run that stopped because its loss rose or was no number; it has no run.json."""

    run: str
    """The run's id."""
    stage: str
    """pretrain or finetune."""
    step: int
    """The optimizer step at which it stopped."""
    loss: float | None
    """Nats per token at that step; empty: not finite."""


DIVERGED_FILE = "diverged.json"

# Metrics of lm-evaluation-harness whose values lie within bounds, whatever the task.
BOUNDS = {
    "acc": (0, 1), "acc_norm": (0, 1), "acc_bytes": (0, 1), "acc_mutual_info": (0, 1), "mcc": (-1, 1),
    "brier_score": (0, 2), "perplexity": (0, math.inf), "word_perplexity": (0, math.inf),
    "byte_perplexity": (0, math.inf), "bits_per_byte": (0, math.inf),
}  # fmt: skip

# The metric that tells models apart which all guess at a task; `evaluate` gives it where answers have a likelihood.
ANSWER_BITS = "bits_per_byte_of_answer"


def read_import(path: Path) -> ImportRecord:
    """Read the run.json of an import. Raises UserError."""
    return fill(ImportRecord, _read_sealed(path), str(path))


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


def write_record(path: Path, record: PretrainRecord | ImportRecord | ScoresRecord | DivergedRecord) -> None:
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
