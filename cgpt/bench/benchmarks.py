"""The four benchmarks: each is set up once, then its `steps` are timed; `result` gives the measurements beside them."""

import itertools
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgpt import checkpoint
from cgpt.bench import inputs
from cgpt.bench.measure import WARMUP_STEPS, Steps
from cgpt.data.end_tokens import END_OF_TEXT
from cgpt.errors import UserError
from cgpt.files.whole import write_whole
from cgpt.hardware import Hardware
from cgpt.model.gpt import GPT, init_parameters
from cgpt.recipe import flops
from cgpt.spec import Model

GEMM_STEPS = 3  # in which the time in matrix products is taken


@dataclass(frozen=True)
class Setup:
    """Model and machine of a benchmark. Weights are those of `checkpoint`, or the initial ones of seed 0."""

    config: Model
    hardware: Hardware
    threads: int
    checkpoint: Path | None = None

    def load(self) -> GPT:
        """The model."""
        if self.checkpoint:
            return checkpoint.load(self.checkpoint, self.hardware, self.threads)[0]
        return GPT.on(self.hardware, self.config, init_parameters(self.config, inputs.SEED), self.threads)

    def fields(self) -> dict[str, Any]:
        """Fields of every result: the model and where it runs. Also a modeled profile is timed."""
        config = self.config
        return {
            "model": config.name, "n_parameters": flops.n_parameters(config), "n_layer": config.n_layer,
            "vocab_size": config.vocab_size, "seq_len": config.seq_len, "tie_embeddings": config.tie_embeddings,
            "hardware": self.hardware.name, "timing": "measured",
        }  # fmt: skip


class Pretraining:
    """Optimizer steps on batches from a token shard in `folder`."""

    def __init__(self, setup: Setup, batch_size: int, folder: Path):
        from cgpt.training.trainer import AdamW, Trainer

        self.setup, self.batch_size = setup, batch_size
        self.tokens = inputs.write_tokens(folder, flops.vocabulary(setup.config))
        self.trainer = Trainer(setup.load(), AdamW())
        self.losses: list[float] = []
        self.read_s: list[float] = []
        self.steps = Steps(self._step, batch_size * setup.config.seq_len)

    def _step(self) -> None:
        start = time.perf_counter()
        batch = inputs.read_batch(self.tokens, self.setup.config.seq_len, self.batch_size, self.trainer.n_updates)
        self.read_s.append(time.perf_counter() - start)
        self.losses.append(self.trainer.step([batch], inputs.LR)[0])

    def result(self) -> dict[str, Any]:
        """Losses in nats per token of the first ten steps (done now where they are missing), FLOPs per token in the
        convention "palm", and shares of a step's time."""
        shard_read_share = statistics.median(self.read_s) / self.steps.step_s
        products = self._matrix_products()
        self.steps.run(max(0, inputs.N_LOSSES - len(self.losses)))
        return self.setup.fields() | products | {
            "batch_size": self.batch_size, "flops_per_token": flops.flops_per_token(self.setup.config, "palm"),
            "losses": self.losses[: inputs.N_LOSSES], "shard_read_share": shard_read_share,
        }  # fmt: skip

    def _matrix_products(self) -> dict[str, Any]:
        """The threads' mean time in them, as a share of steps apart, since to time them costs; and the limit: the speed
        if a step were these alone."""
        if self.setup.hardware.kernels != "native":
            return {"gemm_share": None, "sgemm_tokens_per_s": None}
        from cgpt.kernels.native.call import gemm_s

        steps = Steps(self._step, self.steps.tokens_per_step)
        products_s = gemm_s(lambda: steps.run(GEMM_STEPS))
        n_tokens = GEMM_STEPS * steps.tokens_per_step
        return {"gemm_share": products_s / sum(steps.seconds), "sgemm_tokens_per_s": n_tokens / products_s}


class Evaluation:
    """Log-likelihoods of all requests, by the call that lm-evaluation-harness makes; written to `out` if it is set."""

    def __init__(self, setup: Setup, n_requests: int, out: Path | None):
        from cgpt.inference.lm_eval_model import Adapter

        _check_room(setup.config, inputs.SHORTEST_CONTEXT + inputs.LONGEST_CONTINUATION)
        self.setup, self.out = setup, out
        self.requests = inputs.requests(setup.config, n_requests)
        self.adapter = Adapter(setup.load(), inputs.tokenizer_of_numbers(1))
        self.answers: list[tuple[float, bool]] = []
        n_tokens = sum(len(context) + len(continuation) for _, context, continuation in self.requests)
        self.steps = Steps(self._step, n_tokens)

    def _step(self) -> None:
        self.answers = self.adapter._loglikelihood_tokens(self.requests)

    def result(self) -> dict[str, Any]:
        """Speed in requests, and the seconds of the first call, which captures kernels on its way."""
        if self.out:
            write_whole(self.out, json.dumps([loglikelihood for loglikelihood, _ in self.answers]).encode())
        n = len(self.requests)
        of_requests = {"n_requests": n, "requests_per_s": n / self.steps.step_s, "first_call_s": self.steps.seconds[0]}
        return self.setup.fields() | of_requests


class Generation:
    """Greedy continuations of a batch of prompts."""

    def __init__(self, setup: Setup, batch_size: int, max_new_tokens: int):
        from cgpt.inference.generate import Generator

        _check_room(setup.config, inputs.PROMPT_TOKENS + max_new_tokens)
        self.setup, self.max_new_tokens = setup, max_new_tokens
        self.prompts = inputs.prompts(setup.config, batch_size)
        self.generator = Generator(setup.load())
        self.tokens: list[list[int]] = []
        self.steps = Steps(self._step, batch_size * max_new_tokens)

    def _step(self) -> None:
        self.tokens = self.generator.generate(self.prompts, self.max_new_tokens)

    def result(self) -> dict[str, Any]:
        """The new tokens, and the seconds of a call that asks for one token alone."""
        first = Steps(lambda: self.generator.generate(self.prompts, 1), len(self.prompts))
        first.run(WARMUP_STEPS + 3)
        return self.setup.fields() | {
            "batch_size": len(self.prompts), "prompt_tokens": len(self.prompts[0]),
            "max_new_tokens": self.max_new_tokens, "first_token_s": first.step_s, "tokens": self.tokens,
        }  # fmt: skip


def _check_room(config: Model, n_tokens: int) -> None:
    if config.seq_len < n_tokens:
        raise UserError(f"bench: --seq-len: {config.seq_len} has no room for the {n_tokens} tokens of this benchmark; "
                        f"write {n_tokens} or more")  # fmt: skip


class Tokenization:
    """A file of documents to a token shard, both in `folder`."""

    def __init__(self, n_bytes: int, threads: int, folder: Path):
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # read by the tokenizers library when it first encodes a batch
        texts = inputs.documents(n_bytes)
        self.path = folder / "corpus.jsonl"
        self.path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        self.n_bytes = sum(map(len, texts))
        self.tokenizer = inputs.text_tokenizer(texts)
        self.steps = Steps(self._step, 0)

    def _step(self) -> None:
        from cgpt.data.documents import pieces
        from cgpt.data.encode import encode
        from cgpt.data.shards import ShardWriter

        size, end_of_text = self.tokenizer.get_vocab_size(), self.tokenizer.get_vocab()[END_OF_TEXT]
        corpus = pieces(self.path, "jsonl:text", tail=0.0, progress=lambda n_bytes: None)
        with ShardWriter(self.path.with_name("train.bin"), size, tokenizer_sha256="") as shard:
            encode(self.tokenizer, end_of_text, zip(itertools.repeat("train"), corpus), {"train": shard})
        self.steps.tokens_per_step = shard.header["n_tokens"]

    def result(self) -> dict[str, Any]:
        """Speed in bytes of text."""
        return {
            "vocab_size": self.tokenizer.get_vocab_size(), "n_bytes": self.n_bytes,
            "n_tokens": self.steps.tokens_per_step, "megabytes_per_s": self.n_bytes / 1e6 / self.steps.step_s,
        }  # fmt: skip
