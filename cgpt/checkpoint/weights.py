"""The weights of a GPT-2-type checkpoint folder, in whichever of transformers' files they are, and muP folded away."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.safetensors_file import read_safetensors
from cgpt.checkpoint.stored import FLOATS, Stored, Weights
from cgpt.checkpoint.torch_file import read_torch_file
from cgpt.errors import UserError
from cgpt.files.json_object import AGAIN, read_object
from cgpt.model.gpt import HEAD, WPE, WTE, check_shapes, parameter_shapes
from cgpt.recipe import parametrization
from cgpt.spec import Model

MASK = re.compile(r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)")  # buffers of transformers before 4.30
FILES: dict[str, Callable[[Path], Weights]] = {  # in the order that transformers looks for them in
    "model.safetensors": read_safetensors,
    "pytorch_model.bin": read_torch_file,
}


def read_weights(folder: Path, config: Model) -> Weights:
    """The parameters of `config`, float32, from model.safetensors or pytorch_model.bin, either in shards with an index.
    Each is read when it is asked for.

    Raises UserError, one line for each parameter that is missing, unknown or of another shape.
    """
    for name, read in FILES.items():
        whole, index = folder / name, folder / f"{name}.index.json"
        if whole.is_file():
            return weights_of(_renamed(read(whole).stored, config, whole), config, whole)
        if index.is_file():
            return weights_of(_renamed(_read_shards(index, read), config, index), config, index)
    raise UserError(f"{folder}: has neither {' nor '.join(FILES)}, nor an index of their shards; put the weights there")


def weights_of(stored: Mapping[str, Stored], config: Model, path: Path, remedy: str = AGAIN) -> Weights:
    """Exactly the parameters of `config`, in their order. Raises UserError, one line for each that is wrong."""
    wrong = [f"{path}: {name}: has the type {tensor.dtype}; convert the weights to float32"
             for name, tensor in stored.items() if tensor.dtype not in FLOATS]  # fmt: skip
    if wrong:
        raise UserError(*wrong)
    check_shapes({name: tensor.shape for name, tensor in stored.items()}, config, path, remedy)
    return Weights({name: stored[name] for name in parameter_shapes(config)})


def _read_shards(index: Path, read: Callable[[Path], Weights]) -> dict[str, Stored]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index}: has no `weight_map` of tensors to files; {AGAIN}")
    names = sorted(set(weight_map.values()))
    problems = [f"{index}: weight_map: '{name}' is no file of this folder; get it, or correct the index"
                for name in names if Path(name).name != name or not (index.parent / name).is_file()]  # fmt: skip
    if problems:
        raise UserError(*problems)
    tensors: dict[str, Stored] = {}
    for name in names:
        shard = read(index.parent / name).stored
        missing = [tensor for tensor, where in weight_map.items() if where == name and tensor not in shard]
        if missing:
            raise UserError(*(f"{index.parent / name}: {tensor}: is missing; {AGAIN}" for tensor in missing))
        tensors |= shard
    return tensors


def _renamed(tensors: Mapping[str, Stored], config: Model, path: Path) -> dict[str, Stored]:
    """Names with `transformer.`, without masks and without a head that is the token embedding."""
    params: dict[str, Stored] = {}
    for theirs, tensor in tensors.items():
        bare = theirs.removeprefix("transformer.")
        if not MASK.fullmatch(bare):
            params[bare if bare == HEAD else f"transformer.{bare}"] = tensor
    if config.tie_embeddings and HEAD in params:
        head = params.pop(HEAD)
        if WTE in params and not np.array_equal(head.read(), params[WTE].read()):
            raise UserError(f"{path}: {HEAD}: is not {WTE}, though tie_word_embeddings of config.json is true; "
                            "write false there if the head is its own")  # fmt: skip
    return params


def folded(config: Model, params: Mapping[str, np.ndarray]) -> tuple[Model, Mapping[str, np.ndarray]]:
    """A model with the same logits without muP's multipliers: they go into embeddings, queries and the last LayerNorm.

    Exact but for one rounding to float32 of each weight that is touched. What is lost is how to train on: deviations
    and learning rates of muP belong to the weights as they were.
    """
    plain = replace(config, parametrization="sp", init_std=parametrization.base_init_std(config))
    if config.parametrization == "sp":
        return config, params
    embedding, logit = parametrization.embedding_scale(config), parametrization.logit_scale(config)
    query = parametrization.attention_scale(config, 0) / parametrization.attention_scale(plain, 0)
    factors: dict[str, Any] = {WTE: embedding, WPE: embedding}
    # A tied head has the embedding's factor already.
    last = logit / embedding if config.tie_embeddings else logit
    factors |= dict.fromkeys(("transformer.ln_f.weight", "transformer.ln_f.bias"), last)
    of_qkv = np.repeat([query, 1.0, 1.0], config.d_model)
    for i in range(config.n_layer if not math.isclose(query, 1.0) else 0):
        factors |= dict.fromkeys((f"transformer.h.{i}.attn.c_attn.{kind}" for kind in ("weight", "bias")), of_qkv)

    def read(name: str) -> np.ndarray:
        values = params[name]
        return (values.astype(np.float64) * factors[name]).astype(np.float32) if name in factors else values

    shapes = parameter_shapes(config)
    return plain, Weights({name: Stored(shape, "float32", partial(read, name)) for name, shape in shapes.items()})
