"""Fields of a training run's record that pretraining and fine-tuning share."""

from pathlib import Path
from typing import Any

from cgpt import provenance
from cgpt.data import content, shards
from cgpt.errors import UserError
from cgpt.hardware import Hardware
from cgpt.jobs import Batches, Job
from cgpt.kernels import backend
from cgpt.recipe import flops
from cgpt.spec import Model
from cgpt.training.resume import Clock


def common_record(
    job: Job, stage: str, config: Model, data: str, batches: Batches, n_tokens: int, clock: Clock
) -> dict[str, Any]:
    """All that the record of a run of `stage` says but for its losses and files: what it is, where it was made and what
    it took.

    `data` names its corpora, `batches` has its number of steps by sequences and by tokens in each. FLOPs are 6 N D, and
    with attention (PaLM's convention).
    """
    return {
        "run": job.id, "stage": stage, "model": config.name, "data": data, "seed": job.spec["seed"],
        "hardware": job.hardware.name, "timing": job.hardware.timing, "threads": job.threads,
        "n_parameters": flops.n_parameters(config),
        "n_parameters_non_embedding": flops.n_parameters_non_embedding(config),
        "tokens": n_tokens, "steps": sum(batches.values()),
        "flops_6nd": flops.flops_per_token(config, "6nd") * n_tokens,
        "flops": flops.flops_per_token(config, "palm") * n_tokens,
        "compiler": backend.describe_kernels(job.hardware),
    } | _cost(job, config, batches, n_tokens, clock) | provenance.record(f"stages.{stage}")  # fmt: skip


def _cost(job: Job, config: Model, batches: Batches, n_tokens: int, clock: Clock) -> dict[str, Any]:
    """Seconds, speed, memory and energy: measured, or on a modeled profile those of the job's cost model, if known."""
    if job.hardware.timing == "measured":
        return speed(clock, job.hardware) | {
            "compile_s": _rounded(clock.compile_s), "peak_memory_bytes": clock.peak_memory_bytes}  # fmt: skip
    unknown = dict.fromkeys(("seconds", "tokens_per_s", "energy_j", "compile_s", "peak_memory_bytes"))
    return unknown | (job.cost(config, job.hardware, batches, n_tokens) if job.cost else {})


def speed(clock: Clock, hardware: Hardware) -> dict[str, float | None]:
    """Columns of loss.csv that the clock fills: empty on a modeled profile, of which it says nothing."""
    if hardware.timing == "modeled":
        return {"tokens_per_s": None, "seconds": None}
    return {"tokens_per_s": _rounded(clock.tokens_per_s), "seconds": _rounded(clock.seconds)}


def corpus_name(tokens: Path) -> str:
    """The corpora of a token folder, joined by +. Raises UserError where its tokens.json is damaged."""
    path = tokens / "tokens.json"
    corpus = content.read_object(path, shards.REMEDY).get("corpus")
    if not isinstance(corpus, list) or not all(isinstance(name, str) for name in corpus):
        raise UserError(f"{path}: corpus: is no list of names; {shards.REMEDY}")
    return "+".join(corpus)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
