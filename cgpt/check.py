"""What values may be, beyond their type: ranges, choices, and what two keys say of each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgpt.errors import did_you_mean
from cgpt.hub import is_commit
from cgpt.spec import Data, Dataset, Hardware, Hub, Model, Train
from cgpt.yamlfile import Keys, YamlFile

GPT2_VOCABULARY = 50257
SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text
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
    """An entry of data.yaml: exactly one origin, and a local path that exists."""
    origins = [key for key in ORIGINS if getattr(entry, key)]
    if len(origins) != 1:
        said = " and ".join(f"`{key}`" for key in origins) or "no origin"
        file.problem(keys, f"has {said}; write exactly one of " + ", ".join(f"`{key}`" for key in ORIGINS))
    if entry.path and not (root / entry.path).exists():
        file.problem((*keys, "path"), f"there is no {entry.path}; write a path from the project's folder")
    if entry.hub:
        _hub(entry.hub, (*keys, "hub"), file)
    for i, part in enumerate(entry.files):
        if part.url and not part.sha256:
            file.problem((*keys, "files", i, "sha256"), "is missing, and a download needs it; write the file's SHA-256")
        if part.sha256 and (len(part.sha256) != 64 or set(part.sha256) - set("0123456789abcdef")):
            file.problem((*keys, "files", i, "sha256"), "is not a SHA-256; write 64 hexadecimal digits, in lower case")


def _hub(entry: Hub, keys: Keys, file: YamlFile) -> None:
    if entry.dataset.count("/") != 1:
        file.problem((*keys, "dataset"), f"'{entry.dataset}' is no name of the hub; write `<owner>/<name>`")
    if not is_commit(entry.revision):
        file.problem((*keys, "revision"), f"'{entry.revision}' is no commit; write 40 hexadecimal digits")
    if not entry.splits:
        file.problem((*keys, "splits"), "is empty; name at least one, e.g. [train]")


def hardware(profile: Hardware, file: YamlFile) -> None:
    """A hardware profile."""
    values("hardware", vars(profile), (), file)
    values("resources", asdict(profile.resources), ("resources",), file)
    if profile.resources.gpu < 0:
        file.problem(("resources", "gpu"), f"must not be negative, not {profile.resources.gpu}; write 0 or more")
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


def unsupported(profile: Hardware) -> tuple[str, str] | None:
    """The key by which a profile asks for what no run can do with its kernels, and what to write; None where it can."""
    if profile.dtype == "float16":
        return "dtype", "float16 needs its losses scaled, which training here does not do; write bfloat16 or float32"
    if profile.kernels != "native":
        return None
    if profile.dtype != "float32":
        return "dtype", f"{profile.dtype} is not what native kernels compute in; write float32, or `kernels: tinygrad`"
    if profile.n_devices > 1:
        return "systems", f"{profile.systems} cannot share native kernels' work; write 1, or `kernels: tinygrad`"
    if profile.beam > 0:
        return "beam", f"{profile.beam} searches among tinygrad's kernels; write 0, or `kernels: tinygrad`"
    return None


def uneven(n_sequences: int, profile: Hardware) -> str | None:
    """What is wrong with a batch that the devices of a profile cannot share evenly, and what to write; None if none."""
    n = profile.n_devices
    if n_sequences % n == 0:
        return None
    return (f"{n_sequences} sequences cannot be shared evenly by the {n} systems of hardware profile '{profile.name}'; "
            f"write a multiple of {n}")  # fmt: skip


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
        _data(parts["data"], file)
    if "train" in parts:
        _train(parts["train"], file)
    if parts.get("finetune"):
        values("finetune", vars(parts["finetune"]), ("finetune",), file)
    threads = parts.get("threads_per_run")
    if threads is not None and threads < 1:
        file.problem(("threads_per_run",), f"must be at least 1, not {threads}; write a positive number")
    for i, name in enumerate(parts.get("models", ()) if "data" in parts else ()):
        row = models.get(name)
        if row and row.vocab_size not in (None, parts["data"].vocab_size):
            file.problem(("models", i), f"'{name}' has vocab_size {row.vocab_size}, but data.vocab_size is "
                         f"{parts['data'].vocab_size}; make them equal, or leave the model's out")  # fmt: skip


def seeds(given: tuple[int, ...], keys: Keys, file: YamlFile) -> None:
    """Each of a list of seeds."""
    for i, seed in enumerate(given):
        if seed < 0:
            file.problem((*keys, i), f"must not be negative, not {seed}; write 0 or more")
        if seed in given[:i]:
            file.problem((*keys, i), f"{seed} is named twice; remove one of the two")


def limit(given: Any, keys: Keys, file: YamlFile) -> None:
    """How many documents are scored: a number of them, or a share, as in lm-evaluation-harness."""
    if given is not None and not ((type(given) is int and given >= 1) or (type(given) is float and 0 < given < 1)):
        file.problem(keys, f"must be a number of documents, or a share of them below 1, not {given!r}; write e.g. 1000")


def shots(given: Any, keys: Keys, file: YamlFile) -> None:
    """How many examples stand before each question."""
    if given is not None and (type(given) is not int or given < 0):
        file.problem(keys, f"must be a whole number of examples, not {given!r}; write 0 or more")


def _data(data: Data, file: YamlFile) -> None:
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


def _train(train: Train, file: YamlFile) -> None:
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
    hardware, source = parts.get("hardware", ()), parts.get("weights_from")
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
