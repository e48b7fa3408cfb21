"""The weights of a GPT-2-type checkpoint folder, in whichever of transformers' files they are, and muP folded away."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.torch_file import BFLOAT16, as_float32, read_torch_file
from cgpt.errors import UserError
from cgpt.files.json_object import AGAIN, read_object
from cgpt.model.gpt import HEAD, WPE, WTE, check_parameters
from cgpt.recipe import parametrization
from cgpt.spec import Model

SAFETENSORS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "BOOL": "?", "U8": "u1", "I64": "<i8"}
MASK = re.compile(r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)")  # buffers of transformers before 4.30
KEPT_TYPES = (np.float32, np.float16)
MOST_HEADER_BYTES = 100_000_000  # the limit of the format


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name; bfloat16 comes as float32. Raises UserError."""
    from safetensors import SafetensorError, deserialize

    try:
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
        if not 0 < n_header <= min(MOST_HEADER_BYTES, path.stat().st_size - 8):  # before the whole file is read
            raise UserError(f"{path}: is truncated or no safetensors file (its header would take {n_header:,} bytes); "
                            f"{AGAIN}")  # fmt: skip
        entries = deserialize(path.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: is truncated or no safetensors file ({error}); {AGAIN}") from None
    unknown = [f"{path}: {name}: has the type {entry['dtype']}; convert the weights to float32, float16 or bfloat16"
               for name, entry in entries if entry["dtype"] not in SAFETENSORS]  # fmt: skip
    if unknown:
        raise UserError(*unknown)
    tensors = {}
    for name, entry in entries:
        values = np.frombuffer(entry["data"], SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = as_float32(values, BFLOAT16 if entry["dtype"] == "BF16" else entry["dtype"])
    return tensors


FILES: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {  # in the order that transformers looks for them in
    "model.safetensors": read_safetensors,
    "pytorch_model.bin": read_torch_file,
}


def read_weights(folder: Path, config: Model) -> dict[str, np.ndarray]:
    """The parameters of `config`, float32, from model.safetensors or pytorch_model.bin, either in shards with an index.

    Raises UserError, one line for each parameter that is missing, unknown or of another shape.
    """
    for name, read in FILES.items():
        whole, index = folder / name, folder / f"{name}.index.json"
        if whole.is_file():
            return check_parameters(_renamed(read(whole), config, whole), config, whole, AGAIN)
        if index.is_file():
            return check_parameters(_renamed(_read_shards(index, read), config, index), config, index, AGAIN)
    raise UserError(f"{folder}: has neither {' nor '.join(FILES)}, nor an index of their shards; put the weights there")


def _read_shards(index: Path, read: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index}: has no `weight_map` of tensors to files; {AGAIN}")
    names = sorted(set(weight_map.values()))
    problems = [f"{index}: weight_map: '{name}' is no file of this folder; get it, or correct the index"
                for name in names if Path(name).name != name or not (index.parent / name).is_file()]  # fmt: skip
    if problems:
        raise UserError(*problems)
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        shard = read(index.parent / name)
        missing = [tensor for tensor, where in weight_map.items() if where == name and tensor not in shard]
        if missing:
            raise UserError(*(f"{index.parent / name}: {tensor}: is missing; {AGAIN}" for tensor in missing))
        tensors |= shard
    return tensors


def _renamed(tensors: Mapping[str, np.ndarray], config: Model, path: Path) -> dict[str, np.ndarray]:
    """Names with `transformer.`, without masks and without a head that is the token embedding; values in float32."""
    params: dict[str, np.ndarray] = {}
    for theirs, value in tensors.items():
        bare = theirs.removeprefix("transformer.")
        if MASK.fullmatch(bare):
            continue
        if value.dtype not in KEPT_TYPES:
            raise UserError(f"{path}: {theirs}: has the type {value.dtype}; convert the weights to float32")
        params[bare if bare == HEAD else f"transformer.{bare}"] = value.astype(np.float32, copy=False)
    if config.tie_embeddings and HEAD in params:
        head = params.pop(HEAD)
        if WTE in params and not np.array_equal(head, params[WTE]):
            raise UserError(f"{path}: {HEAD}: is not {WTE}, though tie_word_embeddings of config.json is true; "
                            "write false there if the head is its own")  # fmt: skip
    return params


def folded(config: Model, params: Mapping[str, np.ndarray]) -> tuple[Model, dict[str, np.ndarray]]:
    """A model with the same logits without muP's multipliers: they go into embeddings, queries and the last LayerNorm.

    Exact but for one rounding to float32 of each weight that is touched. What is lost is how to train on: deviations
    and learning rates of muP belong to the weights as they were.
    """
    plain = replace(config, parametrization="sp", init_std=parametrization.base_init_std(config))
    if config.parametrization == "sp":
        return config, dict(params)
    embedding, logit = parametrization.embedding_scale(config), parametrization.logit_scale(config)
    query = parametrization.attention_scale(config, 0) / parametrization.attention_scale(plain, 0)
    factors: dict[str, Any] = {WTE: embedding, WPE: embedding}
    # A tied head has the embedding's factor already.
    last = logit / embedding if config.tie_embeddings else logit
    factors |= dict.fromkeys(("transformer.ln_f.weight", "transformer.ln_f.bias"), last)
    of_qkv = np.repeat([query, 1.0, 1.0], config.d_model)
    for i in range(config.n_layer if not math.isclose(query, 1.0) else 0):
        factors |= dict.fromkeys((f"transformer.h.{i}.attn.c_attn.{kind}" for kind in ("weight", "bias")), of_qkv)
    return plain, {
        name: (value.astype(np.float64) * factors[name]).astype(np.float32) if name in factors else value
        for name, value in params.items()
    }
