"""What values may be, beyond their type: ranges, choices, and what two keys say of each other."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgpt.data.documents import wrong_kind
from cgpt.data.hub import HUB_CONFIG, HUB_DATASET, HUB_SPLIT, is_commit
from cgpt.errors import did_you_mean
from cgpt.files.yaml_file import Keys, YamlFile
from cgpt.hardware import Hardware, unsupported
from cgpt.spec import Data, Dataset, Experiment, Hub, Model, Train
from cgpt.tasks.definition import limit, shots

GPT2_VOCABULARY = 50257
SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text
BUILTINS = ("world",)
LONGEST_PATH = 240  # characters
DEVICE = re.compile(r"[A-Z]+(:[A-Z0-9]+)*")
ORIGINS = ("builtin", "path", "files", "hub")
LENGTHS = ("steps", "tokens", "tokens_per_parameter", "flops")

POSITIVE = {
    "model": ("n_layer", "d_model", "n_head", "seq_len", "d_ffn", "vocab_size", "layer_norm_epsilon", "init_std",
              "residual_init_std", "mup_base_width", "mup_embedding_scale", "mup_output_alpha"),
    "data": ("vocab_size",),
    "train": ("lr", "batch_size", "micro_batch_size", *LENGTHS, "warmup_tokens", "epsilon", "grad_clip",
              "eval_every_steps", "eval_batches", "checkpoint_every_steps"),
    "finetune": ("lr", "batch_size", "epochs", "patience", "n_labels", "grad_clip", "max_validation"),
    "hardware": ("systems", "sustained_flops_per_s", "memory_bytes", "bandwidth_bytes_per_s", "power_w",
                 "price_per_hour_usd"),
    "resources": ("threads", "mem_mb", "runtime_minutes"),
}  # fmt: skip
COUNTS = {"finetune": ("num_fewshot",)}
FRACTIONS = {
    "data": ("validation_fraction",),
    "train": ("warmup_fraction", "decay_fraction", "min_lr_ratio", "weight_decay", "beta1", "beta2"),
    "finetune": ("warmup_fraction", "weight_decay"),
}
# Far above what anyone trains: what a slip of the keyboard asks for must not fill the memory or run past an integer.
GREATEST_SEED = 2**32 - 1
GREATEST: dict[str, dict[str, float]] = {
    "model": {"n_layer": 10**4, "d_model": 10**6, "n_head": 10**5, "seq_len": 10**7, "d_ffn": 10**7,
              "vocab_size": 10**7},
    "data": {"vocab_size": 10**7},
    "train": {"lr": 1e3, "batch_size": 10**6, "micro_batch_size": 10**6, "steps": 10**12, "tokens": 10**18,
              "tokens_per_parameter": 1e9, "flops": 1e32, "warmup_tokens": 10**18, "eval_every_steps": 10**12,
              "eval_batches": 10**6, "checkpoint_every_steps": 10**12},
    "finetune": {"lr": 1e3, "batch_size": 10**6, "epochs": 10**6, "n_labels": 10**9, "max_validation": 10**9},
    "hardware": {"systems": 10**6, "beam": 1000},
    "resources": {"threads": 4096, "mem_mb": 10**9, "gpu": 10**5, "runtime_minutes": 10**7},
}  # fmt: skip
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "model": {"activation": ("gelu", "gelu_new", "relu"), "parametrization": ("sp", "mup")},
    "data": {"tokenizer": ("bpe", "gpt2")},
    "train": {"schedule": ("linear", "cosine", "wsd")},
    "finetune": {"start": ("pretrained", "scratch")},
    "experiment": {"fit": ("compute", "parametric", "isoflop", "hardware", "learning_rate")},
    "hardware": {
        "dtype": ("float32", "bfloat16", "float16"),
        "kernels": ("tinygrad", "native"),
        "timing": ("measured", "modeled"),
    },
}


def value(block: str, key: str, given: Any, keys: Keys, file: YamlFile) -> None:
    """Note a value of `block`.`key` that is out of range or not among the choices; a list is checked item by item."""
    if isinstance(given, tuple):
        for i, item in enumerate(given):
            value(block, key, item, (*keys, i), file)
    elif given is None:
        return
    elif key in POSITIVE.get(block, ()) and not 0 < given < math.inf:
        file.problem(keys, f"must be greater than 0, not {given}; write a positive number")
    elif key in COUNTS.get(block, ()) and given < 0:
        file.problem(keys, f"must not be negative, not {given}; write 0 or more")
    elif key in FRACTIONS.get(block, ()) and not 0 <= given < 1:
        file.problem(keys, f"must be from 0 up to 1, not {given}; write a fraction such as 0.1")
    elif given is not True and isinstance(given, (int, float)) and given > GREATEST.get(block, {}).get(key, math.inf):
        file.problem(keys, f"must be at most {GREATEST[block][key]:,}, not {given}; write a smaller number")
    elif key in CHOICES.get(block, {}) and given not in CHOICES[block][key]:
        file.problem(keys, f"'{given}' is not a choice; {did_you_mean(given, CHOICES[block][key])}")


def values(block: str, given: Mapping[str, Any], keys: Keys, file: YamlFile) -> None:
    """Check each value of a block."""
    for key, item in given.items():
        value(block, key, item, (*keys, key), file)


def model(row: Model, keys: Keys, file: YamlFile) -> None:
    """A row of models.yaml."""
    values("model", vars(row), keys, file)
    if row.n_head > 0 and row.d_model % row.n_head:
        near = [d for d in (row.d_model // row.n_head * row.n_head, (row.d_model // row.n_head + 1) * row.n_head) if d]
        file.problem((*keys, "d_model"), f"{row.d_model} is not divisible by n_head {row.n_head}; "
                     f"write e.g. {' or '.join(map(str, near))}")  # fmt: skip


def dataset(entry: Dataset, root: Path, keys: Keys, file: YamlFile) -> None:
    """An entry of data.yaml: exactly one origin, a local path that exists, and a way to tell documents apart."""
    origins = [key for key in ORIGINS if getattr(entry, key)]
    if len(origins) != 1:
        said = " and ".join(f"`{key}`" for key in origins) or "no origin"
        file.problem(keys, f"has {said}; write exactly one of " + ", ".join(f"`{key}`" for key in ORIGINS))
    if entry.builtin and entry.builtin not in BUILTINS:
        file.problem((*keys, "builtin"), f"'{entry.builtin}' is no generator; {did_you_mean(entry.builtin, BUILTINS)}")
    seed(entry.seed, (*keys, "seed"), file)
    if not entry.builtin and (*keys, "seed") in file.lines:
        file.problem((*keys, "seed"), "is of a `builtin` data set, and this one is none; leave it out")
    if entry.path:
        _local(entry.path, root, (*keys, "path"), file)
    if problem := wrong_kind(entry.documents):
        file.problem((*keys, "documents"), problem)
    names(entry, keys, file)
    for i, part in enumerate(entry.files):
        if part.max_bytes < 1:
            file.problem((*keys, "files", i, "max_bytes"), f"must be greater than 0, not {part.max_bytes}; write a "
                         "positive number")  # fmt: skip
        if part.url and not part.sha256:
            file.problem((*keys, "files", i, "sha256"), "is missing, and a download needs it; write the file's SHA-256")
        if part.sha256 and (len(part.sha256) != 64 or set(part.sha256) - set("0123456789abcdef")):
            file.problem((*keys, "files", i, "sha256"), "is not a SHA-256; write 64 hexadecimal digits, in lower case")


def names(entry: Dataset, keys: Keys, file: YamlFile) -> None:
    """What becomes part of paths and addresses when a data set is fetched."""
    if entry.hub:
        _hub(entry.hub, (*keys, "hub"), file)
    for i, part in enumerate(entry.files):
        if not is_below(part.path):
            file.problem((*keys, "files", i, "path"), f"'{part.path}' leads out of its folder; write a relative path "
                         "such as texts/train.txt")  # fmt: skip
        if part.url and not part.url.startswith(("https://", "http://")):
            file.problem((*keys, "files", i, "url"), f"'{part.url}' is no address of the web; write https://...")


def is_below(path: str) -> bool:
    """Whether a relative path of plain names stays below the folder that it starts from."""
    return (
        len(path) <= LONGEST_PATH
        and all(part not in ("", ".", "..") for part in path.split("/"))
        and path.isprintable()
    )


def _local(path: str, root: Path, keys: Keys, file: YamlFile) -> None:
    """A local file or folder. One that holds the project would be copied into itself."""
    try:
        source = (root / Path(path).expanduser()).resolve()
        exists = source.exists()
    except (OSError, RuntimeError):  # a name that is too long, a loop of links, no such user
        exists = False
    if not exists:
        file.problem(keys, f"there is no {path}; write a path from the project's folder")
    elif not source.is_file() and not source.is_dir():
        file.problem(keys, f"{path} is neither a file nor a folder; write the path of one")
    elif source in [root.resolve(), *root.resolve().parents]:
        file.problem(keys, f"{path} holds this project itself; write a folder that holds texts alone")


def _hub(entry: Hub, keys: Keys, file: YamlFile) -> None:
    if not HUB_DATASET.fullmatch(entry.dataset) or ".." in entry.dataset:
        file.problem((*keys, "dataset"), f"'{entry.dataset}' is no name of the hub; write `<owner>/<name>`")
    if not is_commit(entry.revision):
        file.problem((*keys, "revision"), f"'{entry.revision}' is no commit; write 40 hexadecimal digits")
    if entry.config is not None and not HUB_CONFIG.fullmatch(entry.config):
        file.problem((*keys, "config"), f"'{entry.config}' cannot be a configuration's name; write it as the hub does")
    if not entry.splits:
        file.problem((*keys, "splits"), "is empty; name at least one, e.g. [train]")
    for i, split in enumerate(entry.splits):
        if not HUB_SPLIT.fullmatch(split):
            file.problem((*keys, "splits", i), f"'{split}' cannot be a split's name; write it as the hub does, e.g. "
                         "validation")  # fmt: skip
    if len({split.lower() for split in entry.splits}) < len(entry.splits):
        file.problem((*keys, "splits"), "names one twice; remove one of the two")


def hardware(profile: Hardware, file: YamlFile) -> None:
    """A hardware profile."""
    values("hardware", vars(profile), (), file)
    values("resources", asdict(profile.resources), ("resources",), file)
    if profile.resources.gpu < 0:
        file.problem(("resources", "gpu"), f"must not be negative, not {profile.resources.gpu}; write 0 or more")
    if profile.sustained_on and profile.sustained_flops_per_s is None:
        file.problem(("sustained_on",), "says where nothing was measured; write sustained_flops_per_s, or remove it")
    if not DEVICE.fullmatch(profile.device):
        file.problem(("device",), f"'{profile.device}' is no device of tinygrad; write e.g. CPU, CUDA or CUDA:1")
    if profile.beam < 0:
        file.problem(("beam",), f"must not be negative, not {profile.beam}; write 0 for no search")
    problem = unsupported(profile) if profile.timing == "measured" else None
    if problem:
        file.problem((problem[0],), problem[1])
    for dtype, peak in profile.peak_flops_per_s.items():
        keys = ("peak_flops_per_s", dtype)
        value("hardware", "dtype", dtype, keys, file)
        if not 0 < peak < math.inf:
            file.problem(keys, f"must be greater than 0, not {peak}; write a positive number")
    if profile.wafer and profile.gpu:
        file.problem(("gpu",), "stands beside `wafer`; write one of the two")
    for block in ("wafer", "gpu"):
        _constants(block, profile, file)


def _constants(block: str, profile: Hardware, file: YamlFile) -> None:
    """What the cost model reads: numbers above 0, efficiencies at most 1, and the peaks that they are shares of."""
    constants = getattr(profile, block)
    if constants is None:
        return
    precision = getattr(constants, "precision", profile.dtype)
    value("hardware", "dtype", precision, (block, "precision"), file)
    for key, given in vars(constants).items():
        if isinstance(given, str):
            continue
        for number in given if isinstance(given, tuple) else (given,):
            if number is not None and not (0 < number < math.inf or (number == 0 and key.startswith("measured_"))):
                file.problem((block, key), f"must be greater than 0, not {number}; write a positive number")
            elif number is not None and "efficiency" in key and number > 1:
                file.problem((block, key), f"must be at most 1, not {number}; write a fraction of the peak")
        if isinstance(given, tuple) and given and len(given) != 2:
            file.problem((block, key), f"has {len(given)} values; write the smallest and the largest one")
    for key in ("memory_bytes", "bandwidth_bytes_per_s"):
        if getattr(profile, key) is None:
            file.problem((key,), f"is missing, and `{block}` needs it; write `{key}: <a number>`")
    if precision not in profile.peak_flops_per_s:
        file.problem(("peak_flops_per_s", precision), f"is missing, and `{block}` needs it; write "
                     f"`peak_flops_per_s: {{{precision}: <a number>}}`")  # fmt: skip


def experiment(
    parts: Mapping[str, Any],
    models: Mapping[str, Model | None],
    profiles: Mapping[str, Hardware | None],
    file: YamlFile,
) -> None:
    """An experiment's values by key, as far as they have the right type, and what they say of each other."""
    for key in ("models", "hardware", "seeds"):
        if parts.get(key) == ():
            file.problem((key,), "is empty; name at least one")
    seeds(parts.get("seeds", ()), ("seeds",), file)
    _weights_from(parts, profiles, file)
    value("experiment", "fit", parts.get("fit"), ("fit",), file)
    limit(parts.get("limit"), ("limit",), file)
    shots(parts.get("num_fewshot"), ("num_fewshot",), file)
    if "data" in parts:
        corpora(parts["data"], file)
    if "train" in parts:
        training(parts["train"], file)
    if parts.get("finetune"):
        finetuning(vars(parts["finetune"]), ("finetune",), file)
    threads = parts.get("threads_per_run")
    if threads is not None:
        value("resources", "threads", threads, ("threads_per_run",), file)
    for i, name in enumerate(parts.get("models", ()) if "data" in parts else ()):
        row = models.get(name)
        if row and row.vocab_size not in (None, parts["data"].vocab_size):
            file.problem(("models", i), f"'{name}' has vocab_size {row.vocab_size}, but data.vocab_size is "
                         f"{parts['data'].vocab_size}; make them equal, or leave the model's out")  # fmt: skip


def finetuning(given: Mapping[str, Any], keys: Keys, file: YamlFile) -> None:
    """The keys of a `finetune:` block of an experiment or a task."""
    values("finetune", given, keys, file)
    if given.get("start") == ():
        file.problem((*keys, "start"), "is empty; write pretrained, scratch or both")
    for key in ("start", "n_labels"):
        if len(set(given.get(key, ()))) < len(given.get(key, ())):
            file.problem((*keys, key), "names one twice; remove one of the two")


def seeds(given: tuple[int, ...], keys: Keys, file: YamlFile) -> None:
    """Each of a list of seeds."""
    before: set[int] = set()
    for i, number in enumerate(given):
        seed(number, (*keys, i), file)
        if number in before:
            file.problem((*keys, i), f"{number} is named twice; remove one of the two")
        before.add(number)


def seed(number: int, keys: Keys, file: YamlFile) -> None:
    """One seed."""
    if number < 0:
        file.problem(keys, f"must not be negative, not {number}; write 0 or more")
    elif number > GREATEST_SEED:
        file.problem(keys, f"must be at most {GREATEST_SEED}, not {number}; write a smaller number")


def corpora(data: Data, file: YamlFile) -> None:
    """The `data:` block, as written or as a point of `vary` makes it."""
    values("data", vars(data), ("data",), file)
    if not data.corpus:
        file.problem(("data", "corpus"), "is empty; name at least one dataset")
    if data.tokenizer == "gpt2" and data.vocab_size != GPT2_VOCABULARY:
        file.problem(("data", "vocab_size"), f"is {data.vocab_size}, but tokenizer gpt2 has a fixed vocabulary; "
                     f"write {GPT2_VOCABULARY}")  # fmt: skip
    elif 0 < data.vocab_size < SMALLEST_VOCABULARY:
        file.problem(("data", "vocab_size"), f"{data.vocab_size} is less than the 256 bytes and the end of text; "
                     f"write {SMALLEST_VOCABULARY} or more")  # fmt: skip
    if data.validation_fraction == 0:
        file.problem(("data", "validation_fraction"), "is 0, and validation loss needs text; write e.g. 0.02")


def training(train: Train, file: YamlFile) -> None:
    """The `train:` block, as written or as a point of `vary` makes it."""
    values("train", vars(train), ("train",), file)
    lengths = [key for key in LENGTHS if getattr(train, key) is not None]
    if len(lengths) != 1:
        said = " and ".join(f"`{key}`" for key in lengths) or "no length"
        file.problem(("train",), f"has {said}; write exactly one of " + ", ".join(f"`{key}`" for key in LENGTHS))
    micro = train.micro_batch_size
    if micro and micro > 0 and train.batch_size % micro:
        fitting = [n for n in range(1, train.batch_size + 1) if train.batch_size % n == 0]
        nearest = min(fitting, key=lambda n: abs(n - micro)) if fitting else 1
        file.problem(("train", "micro_batch_size"), f"{micro} does not divide batch_size {train.batch_size}; "
                     f"write e.g. {nearest}")  # fmt: skip


def _weights_from(parts: Mapping[str, Any], profiles: Mapping[str, Hardware | None], file: YamlFile) -> None:
    """Who trains the models of an experiment: a profile that computes."""
    hardware, source = parts.get("hardware", Experiment.hardware), parts.get("weights_from")
    modeled = [name for name in hardware if (profile := profiles.get(name)) and profile.timing == "modeled"]
    if source is None:
        for name in modeled:
            profile = profiles[name]
            if profile and profile.device.split(":")[0] != "WSE":
                file.problem(("hardware",), f"'{name}' is modeled and computes nothing; write `weights_from: "
                             "<profile>` with one of `hardware` that trains")  # fmt: skip
        return
    measured = [name for name in hardware if name not in modeled]
    if source not in measured:
        file.problem(("weights_from",), f"'{source}' is no measured profile of `hardware`; write one of "
                     f"{', '.join(measured) or 'them there first'}")  # fmt: skip
    elif not modeled and None not in map(profiles.get, hardware):
        file.problem(("weights_from",), "says who trains for modeled profiles, and `hardware` names none; leave it out")
