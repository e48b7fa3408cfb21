"""What the tests of kernels, model and training share: a tiny GPT, its kernels, a token folder and run specs."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from cgpt.data.shards import ShardWriter
from cgpt.hardware import Hardware
from cgpt.jobs import Job
from cgpt.kernels import backend
from cgpt.model.gpt import GPT, init_parameters
from cgpt.spec import Model, Train

if TYPE_CHECKING:
    from tinygrad import Tensor

THREADS = 2  # one number for the whole process: the pool of native kernels cannot be resized
CPU = Hardware("cpu", "", device="CPU", kernels="native")
CONFIG = Model("tiny", n_layer=2, d_model=24, n_head=3, seq_len=20, d_ffn=40, vocab_size=50, init_std=0.02)
ONE_LAYER = replace(CONFIG, n_layer=1)  # what is trained where many runs are needed


@functools.cache
def operations(name: str) -> ModuleType:
    """The operations of a kind, `native` or `tinygrad`."""
    return backend.prepare(Hardware("cpu", "", device="CPU", kernels=name), THREADS)


def rough_parameters(config: Model = CONFIG, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters far from their initial values, so that every bias and every LayerNorm counts."""
    rng = np.random.default_rng(seed)
    params = init_parameters(config, seed)
    return {name: (p + 0.2 * rng.normal(size=p.shape)).astype(np.float32) for name, p in params.items()}


def model(params: dict[str, np.ndarray] | None = None, config: Model = CONFIG, kind: str = "native") -> GPT:
    """A GPT with the given parameters, or with its initial ones."""
    return GPT(config, init_parameters(config, 0) if params is None else params, operations(kind), "CPU")


def batch(seed: int, rows: int = 3, length: int = 13, vocab: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens and targets (rows, length), some targets -1."""
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, vocab, (2, rows, length)).astype(np.int32)
    targets[rng.random(targets.shape) < 0.2] = -1
    return tokens, targets


def loss_and_grads(model: GPT, tokens: Tensor, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Loss and the gradient of every parameter, as a step of training has them."""
    x = model.embedding(tokens).detach()
    loss = model.ops.cross_entropy_head(model.hidden(x), model.head_weight, targets, model.dtype)
    return loss, model.gradients(loss, x, tokens)


def write_tokenizer(path: Path, n: int = CONFIG.vocab_size) -> str:
    """A tokenizer of the words w0 w1 ... and <|endoftext|>; returns the hash of its file."""
    words = {f"w{i}": i for i in range(n - 1)} | {"<|endoftext|>": n - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def token_folder(folder: Path, vocab: int = CONFIG.vocab_size) -> Path:
    """What tokenize leaves: 4,000 training tokens of a noisy count, and 5 windows of validation in 777 bytes."""
    digest, rng = write_tokenizer(folder / "tokenizer.json", vocab), np.random.default_rng(0)
    for name, n in (("train", 4000), ("validation", 5 * CONFIG.seq_len + 1)):
        with ShardWriter(folder / f"{name}.bin", vocab, digest) as shard:
            shard.append((3 * np.arange(n) + rng.integers(0, 3, n)) % vocab, 777, 1)
    (folder / "tokens.json").write_text(json.dumps({"corpus": ["count", "noise"]}))
    return folder


def job(spec: dict, folder: Path, tokens: Path | None = None, **given) -> Job:
    """A job on this processor, with the tokens that it is made from."""
    upstream = given.pop("upstream", {}) | ({"tokenize": tokens} if tokens else {})
    return Job(spec, folder, upstream, **({"hardware": CPU, "threads": THREADS} | given))


def pretrain_spec(**train) -> dict:
    """The spec of a run of 20 steps of a model of one layer."""
    settings = asdict(Train(**({"lr": 0.01, "batch_size": 4, "steps": 20, "eval_every_steps": 8} | train)))
    del settings["checkpoint_every_steps"]
    hardware = {"name": "cpu", "device": "CPU", "dtype": "float32", "kernels": "native", "timing": "measured"}
    return {"model": asdict(ONE_LAYER), "train": settings, "seed": 1, "hardware": hardware, "tokenize": "count-0"}
