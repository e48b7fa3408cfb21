"""A program that pretrains a model for a few steps and prints the most memory it took, in bytes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tiny import write_tokenizer

from cgpt.data.shards import ShardWriter
from cgpt.hardware import Hardware
from cgpt.host import peak_memory_bytes
from cgpt.jobs import Job
from cgpt.spec import Model, Train
from cgpt.stages.pretrain import pretrain


def main(folder: Path, asked: dict) -> int:
    """Pretrain for a few steps on random tokens; the peak when its record is written."""
    model, train = Model(**asked["model"]), Train(**asked["train"])
    tokens = folder / "tokens"
    digest = write_tokenizer(tokens / "tokenizer.json", model.vocab_size)
    for name in ("train", "validation"):
        with ShardWriter(tokens / f"{name}.bin", model.vocab_size, digest) as shard:
            shard.append(np.random.default_rng(0).integers(0, model.vocab_size, 70 * model.seq_len), 1000, 1)
    (tokens / "tokens.json").write_text(json.dumps({"corpus": ["noise"]}))
    settings = asdict(train)
    del settings["checkpoint_every_steps"]
    hardware = Hardware("cpu", "", device="CPU", dtype=asked["dtype"], kernels=asked["kernels"])
    spec = {"model": asdict(model), "train": settings, "seed": 0, "hardware": {"name": "cpu"}, "tokenize": "noise"}
    pretrain(Job(spec, folder / "runs" / "pretrain" / "run", {"tokenize": tokens}, hardware=hardware,
                 checkpoint_every_steps=train.checkpoint_every_steps))  # fmt: skip
    return peak_memory_bytes()


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
