"""What the YAML files say, as frozen dataclasses; `cgpt.load` fills them and checks every key.

Fields listed in a class's `EXECUTION` never decide identity: they may change without a rerun.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Model:
    """One row of workflows/models.yaml. `d_ffn` is 4 d_model and `vocab_size` the tokenizer's where left out."""

    name: str
    n_layer: int
    d_model: int
    n_head: int
    seq_len: int
    d_ffn: int | None = None
    vocab_size: int | None = None
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-5
    tie_embeddings: bool = True
    init_std: float = 0.02  # of the truncated normal that weights are drawn from


@dataclass(frozen=True)
class DataFile:
    """One file of a data set. `path` is relative to the mirror and to the local cache; `sha256` is of the
    unpacked content where `path` ends in .gz, so that a plain and a compressed copy verify alike."""

    path: str
    sha256: str | None = None
    split: str = "train"
    url: str | None = None


@dataclass(frozen=True)
class Dataset:
    """One entry of workflows/data.yaml: `builtin`, or local `path`, or `files` with URLs and checksums.

    `documents` says how text becomes documents: `file`, `line`, `paragraph` (blank line), `wikitext`
    (a ` = Title = ` line starts an article), a separator line such as `<|endoftext|>`, or `jsonl:<field>`.
    """

    name: str
    builtin: str | None = None
    seed: int = 0
    path: str | None = None
    files: tuple[DataFile, ...] = ()
    documents: str = "file"
    licence: str = ""
    licence_status: str = ""
    home: str = ""
    about: str = ""


@dataclass(frozen=True)
class Data:
    """The `data:` block of an experiment: corpora in order, and the tokenizer."""

    corpus: tuple[str, ...]
    tokenizer: str = "bpe"  # bpe: trained on the corpus; gpt2: the published vocabulary
    vocab_size: int = 4096
    validation_fraction: float = 0.02


@dataclass(frozen=True)
class Train:
    """The `train:` block. Exactly one of `steps`, `tokens`, `tokens_per_parameter` sets the length."""

    lr: float
    batch_size: int  # sequences per optimizer step
    steps: int | None = None
    tokens: int | None = None
    tokens_per_parameter: float | None = None
    micro_batch_size: int | None = None  # sequences per forward pass; default batch_size
    warmup_fraction: float = 0.1
    schedule: str = "linear"  # linear | cosine
    min_lr_ratio: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    grad_clip: float = 1.0
    eval_every_steps: int = 100
    eval_batches: int = 8
    checkpoint_every_steps: int = 200
    EXECUTION: ClassVar[tuple[str, ...]] = ("checkpoint_every_steps",)


@dataclass(frozen=True)
class Finetune:
    """The `finetune:` block of an experiment, or of a task (the task's keys win)."""

    start: tuple[str, ...] = ("pretrained", "scratch")
    lr: float = 1e-3
    batch_size: int = 32
    epochs: int = 5
    patience: int = 2  # epochs without a better validation loss before it stops
    n_labels: tuple[int, ...] = ()  # empty: the whole training split
    warmup_fraction: float = 0.1
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    max_validation: int = 512  # validation examples looked at after each epoch


@dataclass(frozen=True)
class Experiment:
    """workflows/experiments/<name>.yaml."""

    name: str
    question: str
    data: Data
    models: tuple[str, ...]
    train: Train
    hardware: tuple[str, ...] = ("cpu",)
    seeds: tuple[int, ...] = (0,)
    finetune: Finetune | None = None
    tasks: tuple[str, ...] = ()
    vary: dict[str, list[Any]] = field(default_factory=dict)  # e.g. {"train.lr": [0.001, 0.002]}
    threads_per_run: int | None = None  # default: the hardware profile's
    EXECUTION: ClassVar[tuple[str, ...]] = ("question", "threads_per_run")


@dataclass(frozen=True)
class Resources:
    """What a run asks of the machine; never part of its identity."""

    threads: int = 1
    mem_mb: int | None = None
    gpu: int = 0
    runtime_minutes: int | None = None


@dataclass(frozen=True)
class Hardware:
    """hardware_profiles/<name>.yaml."""

    name: str
    description: str
    device: str  # tinygrad device
    dtype: str = "float32"
    kernels: str = "tinygrad"  # tinygrad | native (cgpt/kernels: OpenBLAS and one C file)
    timing: str = "measured"  # measured | modeled
    peak_flops_per_s: float | None = None
    sustained_flops_per_s: float | None = None  # what training was measured to reach, with all its threads; for plans
    memory_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    power_w: float | None = None
    resources: Resources = Resources()
    sources: tuple[str, ...] = ()
    EXECUTION: ClassVar[tuple[str, ...]] = (
        "description", "peak_flops_per_s", "sustained_flops_per_s", "memory_bytes", "bandwidth_bytes_per_s", "power_w",
        "resources", "sources",
    )  # fmt: skip
