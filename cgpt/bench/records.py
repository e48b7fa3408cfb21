"""What `python -m cgpt bench` reports: one flat record per benchmark, these keys and no others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """What all benchmarks have in common. A step is one optimizer step, or one call over all of the input."""

    benchmark: str  # pretrain | evaluate | generate | tokenize
    threads: int
    n_steps: int  # timed; those of the warm-up are not counted
    step_s: float  # median
    tokens_per_s: float  # of the median step
    first_step_s: float | None  # from the start of the process to the end of its first step; None without /proc
    compile_s: float  # what the first step took longer than the median
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class ModelBenchRecord(BenchRecord):
    """A benchmark of a model."""

    model: str
    n_parameters: int
    n_layer: int
    vocab_size: int
    seq_len: int
    tie_embeddings: bool
    hardware: str
    timing: str  # measured | modeled


@dataclass(frozen=True, kw_only=True)
class PretrainBenchRecord(ModelBenchRecord):
    """Optimizer steps at a constant learning rate, each on a batch read from a token shard."""

    batch_size: int
    flops_per_token: float  # cgpt.flops, convention "palm"
    losses: list[float]  # nats per token, of the first ten steps
    shard_read_share: float  # of a step's time
    gemm_share: float | None  # of a step's time, all threads busy with matrix products; None where kernels is tinygrad
    sgemm_tokens_per_s: float | None  # the limit: if a step were its matrix products alone


@dataclass(frozen=True, kw_only=True)
class EvaluateBenchRecord(ModelBenchRecord):
    """Log-likelihoods of all requests, through the adapter that lm-evaluation-harness calls."""

    n_requests: int
    requests_per_s: float
    first_call_s: float  # kernels are captured on the way


@dataclass(frozen=True, kw_only=True)
class GenerateBenchRecord(ModelBenchRecord):
    """Greedy continuations of a batch of prompts."""

    batch_size: int
    prompt_tokens: int
    max_new_tokens: int
    first_token_s: float  # a call that asks for one token
    tokens: list[list[int]]  # the new ones


@dataclass(frozen=True, kw_only=True)
class TokenizeBenchRecord(BenchRecord):
    """Text to a token shard: reading, encoding, writing."""

    vocab_size: int
    n_bytes: int
    n_tokens: int
    megabytes_per_s: float
