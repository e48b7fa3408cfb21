"""What the tests of kernels, model and training share: a tiny GPT, its kernels, a token folder and run specs."""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np

from cgpt import kernels
from cgpt.model import GPT, init_parameters
from cgpt.spec import Hardware, Model

THREADS = 2  # one number for the whole process: the pool of native kernels cannot be resized
CPU = Hardware("cpu", "", device="CPU", kernels="native")
CONFIG = Model("tiny", n_layer=2, d_model=24, n_head=3, seq_len=20, d_ffn=40, vocab_size=50)


@functools.cache
def operations(name: str) -> ModuleType:
    """The operations of a kind, `native` or `tinygrad`."""
    return kernels.prepare(Hardware("cpu", "", device="CPU", kernels=name), THREADS)


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
