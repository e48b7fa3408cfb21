"""Contents of the YAML files as frozen dataclasses, each field with the values it may have.

`cgpt.experiment.load` fills them and checks every key. The greatest values are far above what anyone trains: what a
slip of the keyboard asks for must not fill the memory or run past an integer. Fields listed in a class's `EXECUTION`
never decide identity: they may change without a rerun.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from cgpt.bounds import Choice, Distinct, Documents, Fraction, KeysOf, NotEmpty, Pattern, Positive, Range, RelativePath
from cgpt.host import MAX_THREADS

PARAMETRIZATIONS = {"sp": "SP", "mup": "muP"}  # as people write them
LENGTHS = ("steps", "tokens", "tokens_per_parameter", "flops")  # keys of `train:`, of which one is given
LAWS = ("compute", "parametric", "isoflop", "hardware", "learning_rate")
GPT2_VOCABULARY = 50257
SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text

Names = Annotated[tuple[str, ...], NotEmpty(), Distinct()]
Limit = Annotated[Any, Documents()]
Shots = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Seeds = Annotated[tuple[Seed, ...], NotEmpty(), Distinct()]
Share = Annotated[float, Fraction()]
LearningRate = Annotated[float, Positive(1e3)]
Sequences = Annotated[int, Positive(10**6)]
Steps = Annotated[int, Positive(10**12)]
Tokens = Annotated[int, Positive(10**18)]
Examples = Annotated[int, Positive(10**9)]
Width = Annotated[int, Positive(10**7)]
PositiveInt = Annotated[int, Positive()]
PositiveFloat = Annotated[float, Positive()]
Threads = Annotated[int, Positive(MAX_THREADS)]


@dataclass(frozen=True)
class Model:
    """One row of workflows/models.yaml. Left out, `d_ffn` is 4 d_model, `vocab_size` the tokenizer's, and `init_std`
    and `residual_init_std` are those of the parametrization."""

    name: str
    n_layer: Annotated[int, Positive(10**4)]
    d_model: Annotated[int, Positive(10**6)]
    n_head: Annotated[int, Positive(10**5)]
    seq_len: Width
    d_ffn: Width | None = None
    vocab_size: Width | None = None
    # gelu is exact, gelu_new with tanh, as in GPT-2 (also called gelu_pytorch_tanh)
    activation: Annotated[str, Choice("gelu", "gelu_new", "relu")] = "gelu"
    layer_norm_epsilon: PositiveFloat = 1e-5
    tie_embeddings: bool = True  # the head is the token embedding
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    parametrization: Annotated[str, Choice(*PARAMETRIZATIONS)] = "sp"  # see cgpt/recipe/parametrization.py
    init_std: PositiveFloat | None = None  # of weights, drawn from a truncated normal; 0.02, or 0.08 under mup
    residual_init_std: PositiveFloat | None = None  # of weights into the residual stream; init_std / sqrt(2 n_layer)
    mup_base_width: PositiveFloat = 256.0  # the width that learning rate and init_std were tuned at
    mup_embedding_scale: PositiveFloat = 10.0
    mup_output_alpha: PositiveFloat = 1.0


Sha256 = Annotated[str, Pattern("[0-9a-f]{64}", "is no SHA-256; write 64 hexadecimal digits, in lower case")]
Url = Annotated[str, Pattern("https?://.*", "is no address of the web; write https://...")]
MAX_BYTES = 64 << 30  # of one file of a data set, packed or unpacked


@dataclass(frozen=True)
class DataFile:
    """One file of a data set. `path` is relative to the mirror and to the local cache; `sha256` is of the
    unpacked content where `path` ends in .gz, so that a plain and a compressed copy verify alike. A file of more than
    `max_bytes`, packed or unpacked, is given up."""

    path: Annotated[str, RelativePath()]
    sha256: Sha256 | None = None
    split: str = "train"
    url: Url | None = None
    max_bytes: PositiveInt = MAX_BYTES


# Names of the Hugging Face hub, which become parts of paths; the configuration's is as the `datasets` library has it.
HUB_DATASET = Pattern(r"(?a)(?!.*\.\.)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}",
                      "is no name of the hub; write `<owner>/<name>`")  # fmt: skip
HUB_COMMIT = Pattern("[0-9a-f]{40}", "is no commit; write 40 hexadecimal digits")
HUB_CONFIG = Pattern(r"(?!\.)[^\x00-\x1f<>:/\\|?*]{1,100}",
                     "cannot be a configuration's name; write it as the hub does")  # fmt: skip
HUB_SPLIT = Pattern(r"\w[\w.+%:\[\]-]{0,99}", "cannot be a split's name; write it as the hub does, e.g. validation")


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub; each split becomes a file `<split>.jsonl`, one row a line."""

    dataset: Annotated[str, HUB_DATASET]  # owner/name
    revision: Annotated[str, HUB_COMMIT]  # the commit, so that it stays the same
    config: Annotated[str, HUB_CONFIG] | None = None
    splits: Annotated[tuple[Annotated[str, HUB_SPLIT], ...], NotEmpty(), Distinct()] = ("train",)


@dataclass(frozen=True)
class Dataset:
    """One entry of workflows/data.yaml: `builtin`, or local `path`, or `files` with URLs and checksums, or `hub`.

    `documents` says how text becomes documents: `file`, `line`, `paragraph` (blank line), `wikitext`
    (a ` = Title = ` line starts an article), `jsonl:<field>`, or the text that stands between documents, such as
    `<|endoftext|>`, on lines of its own or within them.
    """

    name: str
    builtin: Annotated[str, Choice("world")] | None = None  # the generator of that name
    seed: Seed = 0
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

    corpus: Names
    tokenizer: Annotated[str, Choice("bpe", "gpt2")] = "bpe"  # trained on the corpus, or the published vocabulary
    vocab_size: Annotated[int, Range(SMALLEST_VOCABULARY, 10**7, " (256 bytes and the end of text)")] = 4096
    validation_fraction: Annotated[float, Positive(why=" (validation loss needs text)"), Fraction()] = 0.02


@dataclass(frozen=True)
class Train:
    """The `train:` block. Exactly one of `steps`, `tokens`, `tokens_per_parameter`, `flops` sets the length."""

    lr: LearningRate
    batch_size: Sequences  # per optimizer step
    steps: Steps | None = None
    tokens: Tokens | None = None
    tokens_per_parameter: Annotated[float, Positive(1e9)] | None = None
    flops: Annotated[float, Positive(1e32)] | None = None  # attention included, as in the results' column of that name
    micro_batch_size: Sequences | None = None  # per forward pass; default batch_size
    warmup_fraction: Share = 0.1
    warmup_tokens: Tokens | None = None  # instead of the fraction, so that runs of several lengths warm up alike
    schedule: Annotated[str, Choice("linear", "cosine", "wsd")] = "linear"  # wsd: constant, then linear
    decay_fraction: Share = 0.2  # of the steps, at the end, of schedule wsd
    min_lr_ratio: Share = 0.1
    weight_decay: Share = 0.1
    beta1: Share = 0.9
    beta2: Share = 0.95
    epsilon: PositiveFloat = 1e-8
    grad_clip: PositiveFloat = 1.0
    eval_every_steps: Steps = 100
    eval_batches: Sequences = 8
    checkpoint_every_steps: Steps = 200
    EXECUTION: ClassVar[tuple[str, ...]] = ("checkpoint_every_steps",)


STARTS = ("pretrained", "scratch")
Start = Annotated[str, Choice(*STARTS)]


@dataclass(frozen=True)
class Finetune:
    """The `finetune:` block of an experiment, or of a task (the task's keys win)."""

    start: Annotated[tuple[Start, ...], NotEmpty("write pretrained, scratch or both"), Distinct()] = STARTS
    lr: LearningRate = 1e-3
    batch_size: Sequences = 32
    epochs: Annotated[int, Positive(10**6)] = 5
    patience: PositiveInt = 2  # epochs without a better validation loss before it stops
    n_labels: Annotated[tuple[Examples, ...], Distinct()] = ()  # empty: the whole training split
    warmup_fraction: Share = 0.1
    weight_decay: Share = 0.1
    grad_clip: PositiveFloat = 1.0
    max_validation: Examples = 512  # validation examples looked at after each epoch
    num_fewshot: Shots = 0  # before each question when the tuned model is scored; it is trained without any


@dataclass(frozen=True)
class PerModel:
    """Keys of `train:` that win for one of an experiment's models, and seeds in place of the experiment's."""

    train: Annotated[Mapping[str, Any], KeysOf(Train)] = field(default_factory=dict)
    seeds: Seeds | None = None


@dataclass(frozen=True)
class Experiment:
    """workflows/experiments/<name>.yaml."""

    name: str
    question: str
    data: Data
    models: Names
    train: Train
    hardware: Names = ("cpu",)
    seeds: Seeds = (0,)
    per_model: Mapping[str, PerModel] = field(default_factory=dict)
    finetune: Finetune | None = None
    tasks: Annotated[tuple[str, ...], Distinct()] = ()
    num_fewshot: Shots | None = None  # before each question, instead of what its tasks say
    limit: Limit = None  # the first documents of each task, or a share of them, instead of what its tasks say
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # e.g. {"train.lr": (0.001, 0.002)}
    weights_from: str | None = None  # the profile of `hardware` that trains; modeled ones then meter what it trained
    threads_per_run: Threads | None = None  # default: the hardware profile's
    fit: Annotated[tuple[Annotated[str, Choice(*LAWS)], ...], Distinct()] = ()  # laws to fit to the runs
    EXECUTION: ClassVar[tuple[str, ...]] = ("question", "threads_per_run", "fit")
