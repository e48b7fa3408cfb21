"""What the YAML files say, as frozen dataclasses; `cgpt.experiment.load` fills them and checks every key.

Fields listed in a class's `EXECUTION` never decide identity: they may change without a rerun.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

PARAMETRIZATIONS = {"sp": "SP", "mup": "muP"}  # as people write them


@dataclass(frozen=True)
class Model:
    """One row of workflows/models.yaml. Left out, `d_ffn` is 4 d_model, `vocab_size` the tokenizer's, and `init_std`
    and `residual_init_std` are those of the parametrization."""

    name: str
    n_layer: int
    d_model: int
    n_head: int
    seq_len: int
    d_ffn: int | None = None
    vocab_size: int | None = None
    activation: str = "gelu"  # gelu (exact) | gelu_new (with tanh, as in GPT-2; also gelu_pytorch_tanh) | relu
    layer_norm_epsilon: float = 1e-5
    tie_embeddings: bool = True  # the head is the token embedding
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    parametrization: str = "sp"  # sp | mup; cgpt/recipe/parametrization.py says what they do
    init_std: float | None = None  # of the truncated normal that weights are drawn from; 0.02, or 0.08 under mup
    residual_init_std: float | None = None  # of weights into the residual stream; init_std / sqrt(2 n_layer)
    mup_base_width: float = 256.0  # the width that learning rate and init_std were tuned at
    mup_embedding_scale: float = 10.0
    mup_output_alpha: float = 1.0


MAX_BYTES = 64 << 30  # of one file of a data set, packed or unpacked


@dataclass(frozen=True)
class DataFile:
    """One file of a data set. `path` is relative to the mirror and to the local cache; `sha256` is of the
    unpacked content where `path` ends in .gz, so that a plain and a compressed copy verify alike. A file of more than
    `max_bytes`, packed or unpacked, is given up."""

    path: str
    sha256: str | None = None
    split: str = "train"
    url: str | None = None
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub; each split becomes a file `<split>.jsonl`, one row a line."""

    dataset: str  # owner/name
    revision: str  # the commit, so that it stays the same
    config: str | None = None
    splits: tuple[str, ...] = ("train",)


@dataclass(frozen=True)
class Dataset:
    """One entry of workflows/data.yaml: `builtin`, or local `path`, or `files` with URLs and checksums, or `hub`.

    `documents` says how text becomes documents: `file`, `line`, `paragraph` (blank line), `wikitext`
    (a ` = Title = ` line starts an article), `jsonl:<field>`, or the text that stands between documents, such as
    `<|endoftext|>`, on lines of its own or within them.
    """

    name: str
    builtin: str | None = None
    seed: int = 0
    path: str | None = None
    files: tuple[DataFile, ...] = ()
    hub: Hub | None = None
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
    """The `train:` block. Exactly one of `steps`, `tokens`, `tokens_per_parameter`, `flops` sets the length."""

    lr: float
    batch_size: int  # sequences per optimizer step
    steps: int | None = None
    tokens: int | None = None
    tokens_per_parameter: float | None = None
    flops: float | None = None  # attention included, as in the results' column of that name
    micro_batch_size: int | None = None  # sequences per forward pass; default batch_size
    warmup_fraction: float = 0.1
    warmup_tokens: int | None = None  # instead of the fraction, so that runs of several lengths warm up alike
    schedule: str = "linear"  # linear | cosine | wsd: constant, then linear
    decay_fraction: float = 0.2  # of the steps, at the end, of schedule wsd
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
    num_fewshot: int = 0  # shots before each question when the tuned model is scored; it is trained without any


@dataclass(frozen=True)
class PerModel:
    """What an experiment says of one of its models alone: keys of `train:` that win, and seeds in place of its own."""

    train: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None


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
    per_model: dict[str, PerModel] = field(default_factory=dict)
    finetune: Finetune | None = None
    tasks: tuple[str, ...] = ()
    num_fewshot: int | None = None  # examples before each question, instead of what its tasks say
    limit: Any = None  # the first documents of each task, or a share of them below 1, instead of what its tasks say
    vary: dict[str, list[Any]] = field(default_factory=dict)  # e.g. {"train.lr": [0.001, 0.002]}
    weights_from: str | None = None  # the profile of `hardware` that trains; modeled ones then meter what it trained
    threads_per_run: int | None = None  # default: the hardware profile's
    fit: tuple[str, ...] = ()  # what to fit to the runs: compute, parametric, isoflop, hardware, learning_rate
    EXECUTION: ClassVar[tuple[str, ...]] = ("question", "threads_per_run", "fit")
