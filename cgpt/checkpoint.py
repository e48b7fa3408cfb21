"""Checkpoint folders: config.json and model.safetensors with GPT-2's keys and names, tokenizer.json, run.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.errors import UserError, writing
from cgpt.model import GPT, parameter_shapes
from cgpt.records import write_whole
from cgpt.spec import Hardware, Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REMEDY = "delete its folder, so that its run is done again"
CPU = Hardware("cpu", "", device="CPU", kernels="native")
# Our names of what config.json calls by GPT-2's names.
CONFIG_KEYS = {
    "n_layer": "n_layer", "d_model": "n_embd", "n_head": "n_head", "seq_len": "n_positions", "d_ffn": "n_inner",
    "vocab_size": "vocab_size", "activation": "activation_function", "layer_norm_epsilon": "layer_norm_epsilon",
    "tie_embeddings": "tie_word_embeddings", "init_std": "initializer_range",
}  # fmt: skip
SIZES = ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")
FIXED = {"activation_function": "gelu", "tie_word_embeddings": True}


def save(folder: Path, config: Model, params: dict[str, np.ndarray], tokenizer: Path) -> None:
    """Write a checkpoint that `load` and Hugging Face transformers open. `tokenizer` is a tokenizer.json to copy."""
    from safetensors.numpy import save as to_bytes

    written: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in CONFIG_KEYS.items()}
    written |= {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "name": config.name}
    written |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "scale_attn_weights": True}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", (json.dumps(written, indent=2) + "\n").encode())
        write_whole(folder / "tokenizer.json", tokenizer.read_bytes())
        write_whole(folder / "model.safetensors", to_bytes(params, metadata={"format": "pt"}))


def read_config(folder: Path) -> Model:
    """The shapes in a checkpoint's config.json. Raises UserError when it is missing, foreign or of another GPT."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; name a checkpoint folder, or run its stage first") from None
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: is no JSON object; {REMEDY}")
    problems = [f"{path}: {key}: is missing, so this is no checkpoint of ours; {REMEDY}" for key in CONFIG_KEYS.values()
                if key not in raw]  # fmt: skip
    problems += [
        f"{path}: {key}: is {raw[key]!r}, a whole number above 0 is expected; {REMEDY}"
        for key in SIZES
        if key in raw and not (isinstance(raw[key], int) and raw[key] > 0)
    ]
    problems += [
        f"{path}: {key}: is {raw[key]!r}, this GPT has {value!r}; take a checkpoint that has it too"
        for key, value in FIXED.items()
        if key in raw and raw[key] != value
    ]
    if problems:
        raise UserError(*problems)
    return Model(raw.get("name", folder.name), **{ours: raw[theirs] for ours, theirs in CONFIG_KEYS.items()})


def read_params(folder: Path, config: Model) -> dict[str, np.ndarray]:
    """The weights, float32, with exactly the names and shapes of `config`. Raises UserError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / "model.safetensors"
    try:
        params = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; run its stage first") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: is truncated or no safetensors file ({error}); {REMEDY}") from None
    except TypeError as error:  # a format that NumPy does not have
        raise UserError(f"{path}: {error}; convert the weights to float32") from None
    shapes = parameter_shapes(config)
    problems = [f"{path}: {name}: is missing; {REMEDY}" for name in shapes if name not in params]
    problems += [f"{path}: {name}: is no parameter of this model; {REMEDY}" for name in params if name not in shapes]
    problems += [
        f"{path}: {name}: has shape {params[name].shape}, the configuration says {shape}; {REMEDY}"
        for name, shape in shapes.items()
        if name in params and params[name].shape != shape
    ]
    if problems:
        raise UserError(*problems)
    return {name: params[name].astype(np.float32, copy=False) for name in shapes}


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint or token folder. Raises UserError when it is missing or has another vocabulary."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{path}: is missing; {REMEDY}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise UserError(f"{path}: is no tokenizer ({error}); {REMEDY}") from None
    found = tokenizer.get_vocab_size()
    if vocab_size is not None and found > vocab_size:
        raise UserError(
            f"{path}: vocabulary: has {found} tokens, the model {vocab_size}; take the model's own tokenizer"
        )
    return tokenizer


def load(folder: str | Path, hardware: Hardware | None = None, threads: int | None = None) -> tuple[GPT, Tokenizer]:
    """Open a checkpoint folder: `model(tokens) -> logits` and its tokenizer. Default: all cores of this CPU.

    Raises UserError for a missing, truncated or foreign checkpoint.
    """
    folder, hardware = Path(folder), hardware or CPU
    config = read_config(folder)
    params, tokenizer = read_params(folder, config), read_tokenizer(folder, config.vocab_size)
    return GPT.on(hardware, replace(config, d_ffn=config.d_ffn or 4 * config.d_model), params, threads), tokenizer
