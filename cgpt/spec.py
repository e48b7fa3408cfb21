"""What the YAML files say, as frozen dataclasses; `cgpt.experiment.load` fills them and checks every key.

Fields listed in a class's `EXECUTION` never decide identity: they may change without a rerun.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


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
    parametrization: str = "sp"  # sp | mup; cgpt/parametrization.py says what they do
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


@dataclass(frozen=True)
class Resources:
    """What a run asks of the machine; never part of its identity."""

    threads: int = 1
    mem_mb: int | None = None
    gpu: int = 0
    runtime_minutes: int | None = None


@dataclass(frozen=True)
class Wafer:
    """A wafer-scale engine as the cost model sees it: what it is, then constants that `calibrate` fits."""

    precision: str  # of streamed weights and products, which the times are for; the host computes in `dtype`
    mesh_side: int  # cores along the shorter edge of the fabric
    clock_hz: float
    sram_bytes_per_core: int
    io_bytes_per_s: float  # to the machines that hold the weights, each way
    max_systems: int
    measured_systems: int  # most systems that an absolute rate is public for; beyond it is extrapolation
    matmul_efficiency: float  # of the dense peak, weight matmuls of training
    attention_efficiency: float  # of the dense peak, scores and values of training, nothing halved for causality
    pass_latency_s: float  # of one layer, forward or backward, whatever the batch
    reduction_loss_per_doubling: float  # share of a step that each doubling of the systems adds
    decode_cycles_per_layer: float
    decode_cycles_per_hop: float  # per layer and core along the mesh's side
    decode_cycles_per_element: float  # per weight or cached value that one core holds
    prefill_cycles_per_hop: float
    prefill_cycles_per_flop: float  # per FLOP that one core does
    measured_d_model: tuple[int, ...] = ()  # smallest and largest width that training was measured at
    inference_d_model: tuple[int, ...] = ()  # the same of decode and prefill
    decode_grid: tuple[int, ...] = ()  # smallest and largest side that decode was measured on
    prefill_grid: tuple[int, ...] = ()
    host_memory_bytes: int | None = None  # MemoryX, which holds weights and optimizer state
    compile_s: float | None = None  # per job, as are the two below
    programming_s: float | None = None
    weight_send_bytes_per_s: float | None = None
    checkpoint_bytes_per_s: float | None = None


@dataclass(frozen=True)
class Gpu:
    """A GPU as the cost model sees it: how it is connected, then constants that `calibrate` fits."""

    node_size: int  # GPUs that the fast links connect
    link_bytes_per_s: float  # between GPUs of a node, each way
    network_bytes_per_s: float  # per GPU between nodes, each way
    measured_systems: int  # most GPUs that a training rate is public for; 0: none, constants come from another GPU
    measured_inference_systems: int  # the same of decode and prefill
    matmul_efficiency: float  # of the dense peak at infinite width
    half_width: float  # d_model at which matmuls reach half of that
    attention_efficiency: float
    recompute_cost: float  # share of a step that recomputing activations adds
    loss_per_doubling: float  # share of a step that each doubling of the nodes adds
    decode_bandwidth_efficiency: float
    decode_layer_latency_s: float  # of one layer, its kernels' launches and all-reduces within a node included
    network_all_reduce_latency_s: float  # what one small all-reduce takes more across nodes
    prefill_efficiency: float  # of the dense peak
    prefill_all_reduce_s: float  # of one layer's half, tensor parallel
    measured_d_model: tuple[int, ...] = ()  # smallest and largest width that training was measured at
    inference_d_model: tuple[int, ...] = ()  # the same of decode and prefill


@dataclass(frozen=True)
class Hardware:
    """hardware_profiles/<name>.yaml. `base:` there names a profile whose keys hold where the file has none, but for
    what was measured on a machine that this is not (cgpt/bases.py)."""

    name: str
    description: str
    device: str  # tinygrad device
    dtype: str = "float32"  # of matrix products; weights, sums, losses and what AdamW does are float32 with any
    kernels: str = "tinygrad"  # tinygrad | native (cgpt/kernels: OpenBLAS and one C file)
    timing: str = "measured"  # measured | modeled
    systems: int = 1  # how many of them; peaks, memory, bandwidth, power and price are of one
    beam: int = 0  # width of tinygrad's search for the fastest form of each kernel; 0: its rules choose
    peak_flops_per_s: dict[str, float] = field(default_factory=dict)  # dense, by dtype
    sustained_flops_per_s: float | None = None  # what training was measured to reach, with all its threads; for plans
    sustained_on: str | None = None  # the processor of that measurement, as `doctor` names it
    memory_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    power_w: float | None = None
    price_per_hour_usd: float | None = None
    wafer: Wafer | None = None
    gpu: Gpu | None = None
    resources: Resources = Resources()
    sources: tuple[str, ...] = ()
    # `systems` and `beam` change the order of sums, so the last bits of a result, as two searches of one width do.
    EXECUTION: ClassVar[tuple[str, ...]] = (
        "description", "systems", "beam", "peak_flops_per_s", "sustained_flops_per_s", "sustained_on",
        "memory_bytes", "bandwidth_bytes_per_s", "power_w", "price_per_hour_usd", "wafer", "gpu", "resources",
        "sources",
    )  # fmt: skip

    @property
    def n_devices(self) -> int:
        """How many tinygrad devices a run computes on: a modeled machine is computed on one, whatever its `systems`."""
        return self.systems if self.timing == "measured" else 1

    @property
    def placement(self) -> str | tuple[str, ...]:
        """The tinygrad device of a run's tensors, or all that hold them and share its batches."""
        names = [f"{self.device}:{i}" if i else self.device for i in range(self.n_devices)]
        return tuple(names) if self.n_devices > 1 else self.device
