"""Checkpoint folders: config.json and model.safetensors with GPT-2's keys and names, tokenizer.json, run.json."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from cgpt.checkpoint import transformers_folder as hf_folder
from cgpt.checkpoint.model_card import model_card
from cgpt.checkpoint.safetensors_file import read_safetensors, write_safetensors
from cgpt.checkpoint.stored import Stored, Weights
from cgpt.checkpoint.weights import weights_of
from cgpt.cost import memory
from cgpt.data.content import verified
from cgpt.data.end_tokens import end_of_text_tokens
from cgpt.data.special_tokens import end_tokens
from cgpt.data.tokenizer import REMEDY, read_tokenizer, remedy
from cgpt.errors import UserError
from cgpt.files.json_object import read_object
from cgpt.files.whole import whole_file, write_whole
from cgpt.hardware import Hardware
from cgpt.host import check_memory
from cgpt.kernels.backend import CPU
from cgpt.model import config as hf_config
from cgpt.model.gpt import GPT, parameter_shapes
from cgpt.recipe import flops
from cgpt.spec import Model

WEIGHTS = "model.safetensors"


def save(folder: Path, config: Model, params: Mapping[str, np.ndarray], tokenizer: Path) -> dict[str, str]:
    """Write a checkpoint that `load` opens, and transformers too where it has no multiplier of muP.

    `tokenizer` is a tokenizer.json to copy. Each of `params` is asked for once, when it is written. Returns the SHA-256
    of each file written.
    """
    hashes = {}

    def put(name: str, content: bytes) -> None:
        write_whole(folder / name, content)
        hashes[name] = hashlib.sha256(content).hexdigest()

    put("config.json", (json.dumps(hf_config.to_json(config), indent=2, ensure_ascii=False) + "\n").encode())
    put("tokenizer.json", tokenizer.read_bytes())
    with whole_file(folder / WEIGHTS) as part:
        hashes[WEIGHTS] = write_safetensors(part, parameter_shapes(config), params)
    return hashes


def weights_in(model: GPT) -> Weights:
    """The parameters that a model computes with, each copied from its device when it is asked for."""
    from cgpt.kernels.tensors import read

    copy: dict[str, Callable[[], np.ndarray]] = {name: partial(read, value) for name, value in model.params.items()}
    copy |= {name: value.numpy for name, value in model.rounded.items()}
    shapes = parameter_shapes(model.config)
    return Weights({name: Stored(shape, "float32", copy[name]) for name, shape in shapes.items()})


def read_config(folder: Path) -> Model:
    """The shapes in a checkpoint's config.json. Raises UserError when it is missing, foreign or of another GPT."""
    path = folder / "config.json"
    raw = read_object(path, remedy(folder), hf_config.NO_CHECKPOINT)
    missing = [key for key in hf_config.NAMES.values() if key not in raw]
    instead = REMEDY if remedy(folder) == REMEDY else f"make one of it: `cgpt import-hf {folder} --out NEW`"
    problems = tuple(f"{path}: {key}: is missing, so this is no checkpoint of ours; {instead}" for key in missing)
    try:
        config = hf_config.from_json(raw, folder.name, str(path))
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)
    return config


def read_params(folder: Path, config: Model) -> Weights:
    """The weights, float32, with exactly the names and shapes of `config`, mapped from their file: an array is its
    pages, and what is written to it is not in the file. Raises UserError."""
    path = folder / WEIGHTS
    try:
        stored = read_safetensors(path, remedy(folder), mapped=True).stored
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; run its stage first") from None
    return weights_of(stored, config, path, remedy(folder))


def load(
    folder: str | Path, hardware: Hardware | None = None, threads: int | None = None, verify: bool = True
) -> tuple[GPT, Tokenizer]:
    """Open a checkpoint folder: `model(tokens) -> logits` and its tokenizer. Default: all cores of this CPU.

    With `verify` its files must be those that the record in the folder, where there is one, names by their SHA-256.
    The model's weights are the pages of their file. `model.ends` says which tokens end its texts. Raises UserError for
    a missing, truncated, changed or foreign checkpoint, and for one that is larger than the memory here.
    """
    folder, hardware = Path(folder), hardware or CPU
    if verify and (folder / "run.json").is_file():  # else there is nothing to compare gigabytes of hashes with
        verified(folder)
    config = read_config(folder)
    if hardware.runs_on_host:
        needed = memory.loading_bytes(config, hardware.weights_dtype)
        check_memory(needed, str(folder), "take a smaller model, or a machine with more")
    params, tokenizer = read_params(folder, config), read_tokenizer(folder, config.vocab_size)
    ends = end_tokens(folder, tokenizer, config.vocab_size)
    return GPT.on(hardware, replace(config, d_ffn=flops.ffn_width(config)), params, threads, ends), tokenizer


def import_hf(
    folder: str | Path, hardware: Hardware | None = None, threads: int | None = None
) -> tuple[GPT, Tokenizer]:
    """Open a folder of Hugging Face transformers: config.json, GPT-2-type weights and tokenizer.

    Weights are safetensors or pytorch_model.bin, whole or in shards, of float32, float16 or bfloat16; the latter is
    read without running what is in it. Raises UserError, by name for each option that this GPT does not have.
    """
    config, params, tokenizer = hf_folder.read(Path(folder))
    ends = end_tokens(Path(folder), tokenizer, config.vocab_size)
    config = replace(config, d_ffn=flops.ffn_width(config))
    return GPT.on(hardware or CPU, config, params, threads, ends), tokenizer


def export_hf(model: GPT, tokenizer: Tokenizer, folder: str | Path, card: str | None = None) -> None:
    """Write a new folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` open.

    It has the same logits: multipliers of muP go into the weights, to one rounding of each. `card` is its README.md;
    left out, that says what the model itself tells. Raises UserError for a folder that holds something.
    """
    ends = model.ends or end_of_text_tokens(tokenizer)
    hf_folder.write(Path(folder), model.config, weights_in(model), tokenizer, ends, card or model_card(model.config))
