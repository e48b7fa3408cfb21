"""Contents of the YAML files as frozen dataclasses, each field with the values it may have and a sentence below it.

`cgpt.experiment.load` fills them and checks every key; the reference in the docs is made of them. The greatest values
are far above what anyone trains: what a slip of the keyboard asks for must not fill the memory or run past an integer.
Fields listed in a class's `EXECUTION` never decide identity: they may change without a rerun.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from cgpt.bounds import (
    Choice,
    Distinct,
    Documents,
    Fraction,
    KeysOf,
    NotEmpty,
    OrOne,
    Pattern,
    Positive,
    Range,
    RelativePath,
)
from cgpt.host import MAX_THREADS

PARAMETRIZATIONS = {"sp": "SP", "mup": "muP"}  # as people write them
SCRATCH = "scratch"  # random weights, where a training may start
TOKENIZERS = ("bpe", "gpt2")  # beside those of checkpoints
LENGTHS = ("steps", "tokens", "tokens_per_parameter", "flops")  # keys of `train:`, of which one is given
LAWS = ("compute", "parametric", "isoflop", "hardware", "learning_rate")
GPT2_VOCABULARY = 50257
SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text

Names = Annotated[tuple[str, ...], NotEmpty(), Distinct()]
Limit = Annotated[Any, Documents()]
Shots = Annotated[int, Range(0)]
ShotCounts = Annotated[tuple[Shots, ...], OrOne(), NotEmpty("write a number, several, or leave it out"), Distinct()]
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
    """One row of workflows/models.yaml: the shape of a GPT and how its weights begin."""

    name: str
    """The row's key: how experiments and commands name the model."""
    n_layer: Annotated[int, Positive(10**4)]
    """Blocks, each of attention and a feed-forward layer."""
    d_model: Annotated[int, Positive(10**6)]
    """Width: the values that stand for one token; a multiple of n_head."""
    n_head: Annotated[int, Positive(10**5)]
    """Attention heads of a block."""
    seq_len: Width
    """The most tokens that the model sees at once, and those of a training sequence."""
    d_ffn: Width | None = None
    """Width of the feed-forward layer; left out: 4 d_model."""
    vocab_size: Width | None = None
    """Tokens that the model knows; left out: the tokenizer's."""
    activation: Annotated[str, Choice("gelu", "gelu_new", "relu")] = "gelu"
    """Of the feed-forward layer: gelu is exact, gelu_new with tanh, as in GPT-2 (also called gelu_pytorch_tanh)."""
    layer_norm_epsilon: PositiveFloat = 1e-5
    """What LayerNorm adds to the variance."""
    tie_embeddings: bool = True
    """Whether the head is the token embedding, so that both are one matrix."""
    scale_attn_weights: bool = True
    """Whether attention scores are divided by the root of a head's width (under mup: by the width)."""
    scale_attn_by_inverse_layer_idx: bool = False
    """Whether attention scores are divided by the number of the layer too, from 1."""
    parametrization: Annotated[str, Choice(*PARAMETRIZATIONS)] = "sp"
    """How initial weights and learning rates go with the width: standard (sp) or maximal update (mup)."""
    init_std: PositiveFloat | None = None
    """Deviation of initial weights, drawn from a truncated normal; left out: 0.02, or 0.08 under mup."""
    residual_init_std: PositiveFloat | None = None
    """The same of weights into the residual stream; left out: init_std / sqrt(2 n_layer)."""
    mup_base_width: PositiveFloat = 256.0
    """Under mup: the width that learning rate and init_std were tuned at."""
    mup_embedding_scale: PositiveFloat = 10.0
    """Under mup: factor of the sum of token and position embedding."""
    mup_output_alpha: PositiveFloat = 1.0
    """Under mup: factor of the logits, beside mup_base_width / d_model."""


Sha256 = Annotated[str, Pattern("[0-9a-f]{64}", "is no SHA-256; write 64 hexadecimal digits, in lower case")]
Url = Annotated[str, Pattern("https?://.*", "is no address of the web; write https://...")]
MAX_BYTES = 64 << 30  # of one file of a data set, packed or unpacked


@dataclass(frozen=True)
class DataFile:
    """One file of a data set."""

    path: Annotated[str, RelativePath()]
    """Where the file lies below the mirror (CGPT_DATA_MIRROR) and the local cache."""
    sha256: Sha256 | None = None
    """Checksum of the content, unpacked where `path` ends in .gz, so that plain and packed copies verify alike."""
    split: str = "train"
    """train, validation, test, or all: text of all is split by the experiment."""
    url: Url | None = None
    """Where the file is on the web; left out: only a mirror has it."""
    max_bytes: PositiveInt = MAX_BYTES
    """A file of more, packed or unpacked, is given up."""


# Names of the Hugging Face hub, which become parts of paths; the configuration's is as the `datasets` library has it.
HUB_NAME = Pattern(r"(?a)(?!.*\.\.)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}",
                   "is no name of the hub; write `<owner>/<name>`")  # fmt: skip
HUB_COMMIT = Pattern("[0-9a-f]{40}", "is no commit; write 40 hexadecimal digits")
HUB_CONFIG = Pattern(r"(?!\.)[^\x00-\x1f<>:/\\|?*]{1,100}",
                     "cannot be a configuration's name; write it as the hub does")  # fmt: skip
HUB_SPLIT = Pattern(r"\w[\w.+%:\[\]-]{0,99}", "cannot be a split's name; write it as the hub does, e.g. validation")


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub; each split becomes a file `<split>.jsonl`, one row a line."""

    dataset: Annotated[str, HUB_NAME]
    """The data set's name there: owner/name."""
    revision: Annotated[str, HUB_COMMIT]
    """The commit, 40 hexadecimal digits, so that it stays the same."""
    config: Annotated[str, HUB_CONFIG] | None = None
    """The configuration, where the data set has several."""
    splits: Annotated[tuple[Annotated[str, HUB_SPLIT], ...], NotEmpty(), Distinct()] = ("train",)
    """The splits that are fetched."""


@dataclass(frozen=True)
class Dataset:
    """One entry of workflows/data.yaml; exactly one of `builtin`, `path`, `files` and `hub` says where its text is."""

    name: str
    """The entry's key: how experiments and tasks name the data set."""
    builtin: Annotated[str, Choice("world")] | None = None
    """A generator of this package: world is a small made-up world with a corpus and three tasks."""
    seed: Seed = 0
    """What the generator draws from."""
    path: str | None = None
    """A file or folder of yours, relative to where the command runs; file names say the split: train*, valid* or dev*,
    test*, else all."""
    files: tuple[DataFile, ...] = ()
    """Files with checksums, from the web or from the mirror."""
    hub: Hub | None = None
    """A data set of the Hugging Face hub."""
    documents: str = "file"
    """How text becomes documents: file, line, paragraph (blank line), wikitext (a ` = Title = ` line starts an
    article), jsonl:<field>, or the text that stands between documents, such as `<|endoftext|>`."""
    licence: str = ""
    """The licence, shown when the data are fetched."""
    licence_status: str = ""
    """open, non-commercial, or unstated."""
    home: str = ""
    """Where the original is."""
    about: str = ""
    """The data in one line."""


CHECKPOINT_COMMIT = Pattern("[0-9a-f]{40}", "is no commit, and what it stands for may change; write 40 hexadecimal "
                            "digits, or leave it out and run `cgpt pin` with the row's name")  # fmt: skip


@dataclass(frozen=True)
class CheckpointFile:
    """One file of a checkpoint on the web."""

    url: Url
    """Where it is; the last part of the path is its name, as config.json."""
    sha256: Sha256
    """Checksum of the content."""


@dataclass(frozen=True)
class Checkpoint:
    """The `checkpoint:` block of a model's row: weights that are there; exactly one of `hub`, `files` and `path`."""

    hub: Annotated[str, HUB_NAME] | None = None
    """A model of the Hugging Face hub: owner/name."""
    revision: Annotated[str, CHECKPOINT_COMMIT] | None = None
    """The commit there, 40 hexadecimal digits, so that it stays the same; left out: what `cgpt pin` wrote into
    workflows/pins.yaml."""
    files: tuple[CheckpointFile, ...] = ()
    """Files with checksums: config.json, weights, and the tokenizer's."""
    path: str | None = None
    """A folder of yours, as transformers or cgpt writes it, relative to the study; what its files hold is what it is,
    not where it lies."""


@dataclass(frozen=True)
class PublishedModel:
    """One row of workflows/models.yaml whose weights are there; its shape and tokenizer are those of the weights."""

    name: str
    """The row's key: how experiments and commands name the model."""
    checkpoint: Checkpoint
    """Where the weights are."""
    published_as: str | None = None
    """The model in results/reference/published.csv whose printed scores stand beside those that are measured."""


@dataclass(frozen=True)
class Data:
    """The `data:` block of an experiment: corpora in order, and the tokenizer."""

    corpus: Names
    """Data sets of workflows/data.yaml, in the order they are trained on."""
    tokenizer: str = "bpe"
    """bpe is trained on the corpus; gpt2 is the published vocabulary; a row of models.yaml with a `checkpoint:` stands
    for that one's tokenizer."""
    vocab_size: Annotated[int, Range(SMALLEST_VOCABULARY, 10**7, " (256 bytes and the end of text)")] = 4096
    """Tokens of the vocabulary; of gpt2 always 50257; left out beside a checkpoint's tokenizer."""
    validation_fraction: Annotated[float, Positive(why=" (validation loss needs text)"), Fraction()] = 0.02
    """The last part of each training file, kept for validation where a data set has no validation file."""


@dataclass(frozen=True)
class Train:
    """The `train:` block. Exactly one of `steps`, `tokens`, `tokens_per_parameter`, `flops` sets the length."""

    lr: LearningRate
    """The learning rate's peak."""
    batch_size: Sequences
    """Sequences of an optimizer step."""
    start: str = SCRATCH
    """Where training begins: scratch, that is random weights, or a row of models.yaml with a `checkpoint:` of the same
    shape, whose tokenizer the text has; the optimizer begins anew."""
    steps: Steps | None = None
    """Length: optimizer steps."""
    tokens: Tokens | None = None
    """Length: tokens that are trained on, repeats counted."""
    tokens_per_parameter: Annotated[float, Positive(1e9)] | None = None
    """Length: tokens for each of the model's parameters, embeddings counted."""
    flops: Annotated[float, Positive(1e32)] | None = None
    """Length: training FLOPs, attention included, as in the results' column of that name."""
    micro_batch_size: Sequences | None = None
    """Sequences of a forward pass, whose gradients are added up; left out: batch_size."""
    warmup_fraction: Share = 0.1
    """Share of the steps in which the rate rises to its peak."""
    warmup_tokens: Tokens | None = None
    """Instead of the fraction, so that runs of several lengths warm up alike."""
    schedule: Annotated[str, Choice("linear", "cosine", "wsd")] = "linear"
    """How the rate goes after the warm-up: down in a line, down in a cosine, or constant and then down (wsd)."""
    decay_fraction: Share = 0.2
    """Of schedule wsd: share of the steps, at the end, in which the rate falls."""
    min_lr_ratio: Share = 0.1
    """The last step's rate as a share of the peak."""
    weight_decay: Share = 0.1
    """Of AdamW, on all weights but biases and norms."""
    beta1: Share = 0.9
    """Of AdamW: how the mean of gradients fades."""
    beta2: Share = 0.95
    """Of AdamW: how the mean of squared gradients fades."""
    epsilon: PositiveFloat = 1e-8
    """Of AdamW: what is added to the root of the squared gradients' mean."""
    grad_clip: PositiveFloat = 1.0
    """The greatest norm of a step's gradient; a longer one is shortened to it."""
    eval_every_steps: Steps = 100
    """Steps between validation losses."""
    eval_batches: Sequences = 8
    """Batches of validation text of each such loss."""
    checkpoint_every_steps: Steps = 200
    """Steps between saved states, from which a stopped run goes on."""
    EXECUTION: ClassVar[tuple[str, ...]] = ("checkpoint_every_steps",)


STARTS = ("pretrained", SCRATCH)
Start = Annotated[str, Choice(*STARTS)]


@dataclass(frozen=True)
class Finetune:
    """The `finetune:` block of an experiment, or of a task (the task's keys win)."""

    start: Annotated[tuple[Start, ...], NotEmpty("write pretrained, scratch or both"), Distinct()] = STARTS
    """Where tuning begins: from pretrained weights, from random ones, or both beside each other."""
    lr: LearningRate = 1e-3
    """The learning rate's peak."""
    batch_size: Sequences = 32
    """Examples of an optimizer step."""
    epochs: Annotated[int, Positive(10**6)] = 5
    """The most passes through the examples."""
    patience: PositiveInt = 2
    """Epochs without a better validation loss before it stops; the best epoch's weights are kept."""
    n_labels: Annotated[tuple[Examples, ...], Distinct()] = ()
    """How many labelled examples are trained on, several to compare; empty: the whole training split."""
    warmup_fraction: Share = 0.1
    """Share of the steps in which the rate rises to its peak."""
    weight_decay: Share = 0.1
    """Of AdamW, on all weights but biases and norms."""
    grad_clip: PositiveFloat = 1.0
    """The greatest norm of a step's gradient; a longer one is shortened to it."""
    max_validation: Examples = 512
    """The most validation examples looked at after each epoch."""
    num_fewshot: Shots = 0
    """Solved examples before each question when the tuned model is scored; it is trained without any."""


@dataclass(frozen=True)
class PerModel:
    """Keys of `train:` that win for one of an experiment's models, and seeds in place of the experiment's."""

    train: Annotated[Mapping[str, Any], KeysOf(Train)] = field(default_factory=dict)
    """Any keys of `train:`."""
    seeds: Seeds | None = None
    """Seeds of this model; left out: the experiment's."""


@dataclass(frozen=True)
class Experiment:
    """One file of workflows/experiments: what is trained and scored, and the question that it answers."""

    name: str
    """The file's name without its ending."""
    question: str
    """What the experiment is to answer, in a sentence; table and report begin with it."""
    models: Names
    """Rows of workflows/models.yaml; those with a `checkpoint:` are not pretrained."""
    data: Data | None = None
    """The text, and its tokenizer; left out where no model is pretrained."""
    train: Train | None = None
    """How each model is pretrained; left out where none is."""
    hardware: Names = ("cpu",)
    """Files of hardware_profiles/ to run on, or to model."""
    seeds: Seeds = (0,)
    """Initial weights and order of batches are drawn from each; results are means over them."""
    per_model: Mapping[str, PerModel] = field(default_factory=dict)
    """By a model's name: its own keys of `train:` and its own seeds."""
    finetune: Finetune | None = None
    """Fine-tune on each task that has a `finetune:` block; `{}` takes the tasks' own keys."""
    tasks: Annotated[tuple[str, ...], Distinct()] = ()
    """Files of workflows/tasks to score each model on."""
    num_fewshot: ShotCounts = ()
    """Solved examples before each question, instead of what the tasks say: a number, or several to compare, as
    `[0, 5]`."""
    limit: Limit = None
    """The first documents of each task, or a share of them, instead of what the tasks say."""
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Keys of model, data, train or finetune with the values to compare, as `train.lr: [0.001, 0.002]`."""
    weights_from: str | None = None
    """The profile of `hardware:` that trains; modeled ones then say what that training would have taken there, and
    those with another `weights_dtype` than float32 score what it trained."""
    threads_per_run: Threads | None = None
    """Threads of each run; left out: the hardware profile's."""
    fit: Annotated[tuple[Annotated[str, Choice(*LAWS)], ...], Distinct()] = ()
    """Scaling laws to fit to the runs."""
    EXECUTION: ClassVar[tuple[str, ...]] = ("question", "threads_per_run", "fit")
