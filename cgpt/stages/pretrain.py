"""The stage `pretrain`: train a GPT on token shards; resumable at any moment, the same bit for bit."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import checkpoint, provenance
from cgpt.data import content, shards
from cgpt.errors import UserError
from cgpt.files.whole import write_whole
from cgpt.hardware import Hardware
from cgpt.kernels import backend
from cgpt.kernels.work import meter
from cgpt.model.gpt import GPT, init_parameters
from cgpt.model.loglikelihood import score
from cgpt.recipe import flops
from cgpt.recipe.schedule import Schedule, shared
from cgpt.records import DIVERGED_FILE, DivergedRecord, PretrainRecord, write_record
from cgpt.spec import Model, Train
from cgpt.training.progress import Progress
from cgpt.training.resume import Clock, LossLog, RunState, Saved, StopSignal
from cgpt.training.trainer import AdamW, Trainer

Batches = Mapping[tuple[int, int], int]  # number of steps by sequences and by tokens in each
JobCost = Callable[[Model, Hardware, Batches, int], dict[str, float | None]]

# After the warm-up, a loss that stays this far above the first one for so many steps does not come back.
DIVERGED_NATS, DIVERGED_STEPS = 1.0, 10


def pretrain(
    spec: dict[str, Any],
    tokens: Path,
    out: Path,
    hardware: Hardware,
    threads: int,
    checkpoint_every_steps: int,
    job_cost: JobCost | None = None,
    trunk: str | None = None,
    leads_on: bool = False,
) -> dict[str, Any]:
    """Train the model of `spec` and write a checkpoint folder with loss.csv and run.json; return the record.

    `tokens` is a folder that tokenize wrote. `job_cost` says what a job takes on a modeled profile; it is handed in, so
    that a changed cost model trains nothing again on measured ones. The state to resume from is kept in `state/<run>`
    beside the stages' folders, keyed by all that decides the run's bits. A run that `leads_on` also keeps there what
    it was before its rate decayed; a longer one, for which it is the `trunk`, goes on from that, to the same bits as
    from the start. Raises UserError for shards that do not fit, divergence or a full disk, and KeyboardInterrupt, with
    the state saved, when told to stop.
    """
    run = PretrainRun(spec, tokens, out, hardware, threads, trunk, leads_on)
    run.train(checkpoint_every_steps)
    return run.finish(job_cost)


class PretrainRun:
    """One pretraining run: the model, where it stands, and what it leaves behind."""

    def __init__(self, spec: dict[str, Any], tokens: Path, out: Path, hardware: Hardware, threads: int,
                 trunk: str | None = None, leads_on: bool = False):  # fmt: skip
        self.spec, self.out, self.tokens_folder, self.hardware, self.threads = spec, out, tokens, hardware, threads
        self.config, self.settings = Model(**spec["model"]), Train(**spec["train"])
        assert self.settings.steps is not None, "the plan resolves the number of steps"
        self.steps = self.settings.steps
        self.schedule = Schedule.of(self.settings, self.config.seq_len)
        self.shard, self.validation = (open_split(tokens, name, self.config) for name in ("train", "validation"))
        self.validation_header = shards.read_header(tokens / "validation.bin")
        self.inputs, self.data = inputs_of(tokens), corpus_name(tokens)
        t = self.settings
        self.model = GPT.on(hardware, self.config, init_parameters(self.config, spec["seed"]), threads)
        self.trainer = Trainer(self.model, AdamW(t.beta1, t.beta2, t.epsilon, t.weight_decay, t.grad_clip))
        self.state = RunState(out.parent.parent / "state" / out.name, self._key(spec))
        self.log = LossLog(self.state.folder / "loss.csv")
        self.trunk, self.branch = self._trunk(trunk), self._trunk(out.name) if leads_on else None
        saved = self._saved()
        if saved is not None:
            self.trainer.load_state(saved.arrays)
        if self.branch and self.trainer.n_updates > self.schedule.first_decaying_step and not self.branch.path.exists():
            self.branch.remove()  # too late to leave it, so that nobody waits for it
        self.log.start(saved.log if saved else "")
        self.clock = Clock(saved.clock if saved else None)
        nothing: dict[str, float | None] = {"metered_flops": None, "metered_bytes": None}
        self.metered = nothing | (saved.metered if saved else {})

    def _key(self, decisive: dict[str, Any]) -> dict[str, str]:
        """All that decides a state's bits, by what a person calls it; the kernels' threads do not."""
        versions = [provenance.installed_version(name) for name in ("tinygrad", "numpy")]
        return {
            "spec": hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest(),
            "code": provenance.code_sha256("stages.pretrain"),
            "corpus or tokenizer": content.digest(self.inputs),
            "compiler": str(backend.describe_kernels(self.hardware)),
            "processor": provenance.processor() if backend.runs_on_host(self.hardware) else "",
            "version of tinygrad or NumPy": " ".join(map(str, versions)),
        }

    def _trunk(self, run: str | None) -> RunState | None:
        """What a run was before its rate decayed; the key is all that decides that."""
        folder = self.state.folder.parent / f"{run}.trunk"
        return None if run is None else RunState(folder, self._key(shared(self.spec)))

    def _saved(self) -> Saved | None:
        """Where to go on from: this run's own state, else the trunk, else nothing; says why a state is not used."""
        for state in filter(None, (self.state, self.trunk)):
            saved, problem = state.load()
            if saved is not None and int(saved.arrays["n_updates"][0]) > self.steps:
                saved, problem = None, f"has more than the run's {self.steps} steps"
            if saved is not None:
                return saved
            if problem:
                print(f"{self.out.name}: {state.path} {problem}, so it is not used", file=sys.stderr)
        return None

    def _now(self) -> Saved:
        return Saved(self.trainer.state(), self.log.text(), self.clock.state, self.metered)

    def train(self, checkpoint_every_steps: int) -> None:
        """Do the steps that are left, saving the state every so many of them and when told to stop."""
        (self.out / DIVERGED_FILE).unlink(missing_ok=True)  # of an earlier try
        progress = Progress(self.out.name)
        with StopSignal() as stop:
            for step in range(self.trainer.n_updates, self.steps):
                loss = self._step(step)
                progress.show(step + 1, self.steps, loss, self.clock, last=step + 1 == self.steps)
                if self.branch and step + 1 == self.schedule.first_decaying_step:
                    self.branch.save(self._now())
                if stop.requested or (step + 1) % checkpoint_every_steps == 0:
                    self.state.save(self._now())
                if stop.requested:
                    raise KeyboardInterrupt(stop.requested)

    def _step(self, step: int) -> float:
        t = self.settings
        lr = self.schedule.rate(step)
        start = time.perf_counter()
        batch = shards.batches(self.shard, self.config.seq_len, t.batch_size, self.spec["seed"], step)
        parts = np.split(batch, t.batch_size // (t.micro_batch_size or t.batch_size))
        micro_batches = [(np.ascontiguousarray(p[:, :-1]), np.ascontiguousarray(p[:, 1:])) for p in parts]
        loss, grad_norm = self._update(micro_batches, lr)
        self._refuse_divergence(step, loss, grad_norm)
        self.clock.add(t.batch_size * self.config.seq_len, time.perf_counter() - start)
        done = step + 1
        nats = self.validation_loss() if done % t.eval_every_steps == 0 or done == self.steps else None
        if nats is not None:
            self._refuse_divergence(step, nats, grad_norm)
        bits = None if nats is None else shards.bits_per_byte(nats, self.validation_header)
        self.log.append(
            step=done, tokens=done * t.batch_size * self.config.seq_len, train_loss=loss, validation_loss=nats,
            validation_bits_per_byte=bits, lr=lr, grad_norm=grad_norm, **speed_of(self.clock, self.hardware),
        )  # fmt: skip
        return loss

    def _update(self, micro_batches: list[tuple[np.ndarray, np.ndarray]], lr: float) -> tuple[float, float]:
        """One step of the trainer, its kernels counted where the device counts them."""
        counted = meter(self.hardware.device)
        counted.reset()
        found = self.trainer.step(micro_batches, lr)
        if counted.calls:
            n_bytes = counted.total("bytes_read") + counted.total("bytes_written")
            self.metered = {"metered_flops": float(counted.total("flops")), "metered_bytes": float(n_bytes)}
        return found

    def _refuse_divergence(self, step: int, loss: float, grad_norm: float) -> None:
        first = self.log.first("train_loss")
        warm = step >= self.schedule.warmup_steps
        latest = [float(row["train_loss"]) for row in self.log.rows[1 - DIVERGED_STEPS :]] + [loss]
        too_high = warm and first is not None and len(latest) == DIVERGED_STEPS and min(latest) > first + DIVERGED_NATS
        if math.isfinite(loss) and math.isfinite(grad_norm) and not too_high:
            return
        self.state.remove()
        finite = loss if math.isfinite(loss) else None
        write_record(self.out / DIVERGED_FILE, DivergedRecord(self.out.name, "pretrain", step + 1, finite))
        before = "" if first is None else f", first loss {first:.4g}"
        raise UserError(
            f"{self.out.name}: train.lr: the run diverged at step {step + 1} (loss {loss:.4g}, gradient norm "
            f"{grad_norm:.4g}{before}); write a lower lr than {self.settings.lr}, or a longer warmup_fraction"
        )

    def validation_loss(self) -> float:
        """Mean loss, nats per token, over fixed windows spread evenly over the validation shard."""
        length, t = self.config.seq_len, self.settings
        count = max(1, min(t.eval_batches * t.batch_size, (len(self.validation) - 1) // length))
        starts = np.linspace(0, max(0, len(self.validation) - length - 1), count).astype(np.int64)
        windows = [self.validation[at : at + length + 1].astype(np.int32) for at in starts]
        logprobs = [logprob for logprob, _ in score(self.model, windows, [1] * len(windows))]
        return -float(np.concatenate(logprobs).mean(dtype=np.float64))

    def finish(self, job_cost: JobCost | None) -> dict[str, Any]:
        """Write the checkpoint folder, run.json last, and drop the state."""
        outputs = checkpoint.save(self.out, self.config, self.model.numpy(), self.tokens_folder / "tokenizer.json")
        losses = self.log.text().encode()
        write_whole(self.out / "loss.csv", losses)
        batch_size, length = self.settings.batch_size, self.config.seq_len
        n_tokens = self.steps * batch_size * length
        record = PretrainRecord(
            **common_record(self.out.name, "pretrain", self.spec, self.data, self.config, self.hardware, self.threads),
            inputs=self.inputs,
            outputs=outputs | {"loss.csv": hashlib.sha256(losses).hexdigest()},
            tokens=n_tokens,
            steps=self.steps,
            **flops_of(self.config, n_tokens),
            train_loss=self.log.last("train_loss"),
            validation_loss=self.log.last("validation_loss"),
            validation_bits_per_byte=self.log.last("validation_bits_per_byte"),
            **cost_of(self.clock, self.config, self.hardware, {(batch_size, length): self.steps}, n_tokens, job_cost),
            **self.metered,
        )
        write_record(self.out / "run.json", record)
        self.state.remove()
        if self.trunk:
            self.trunk.remove()
        return asdict(record)


def common_record(
    run: str, stage: str, spec: dict[str, Any], data: str, config: Model, hardware: Hardware, threads: int
) -> dict[str, Any]:
    """The fields of a run's record that say what it is and where it was made."""
    return {
        "run": run, "stage": stage, "model": config.name, "data": data, "seed": spec["seed"],
        "hardware": hardware.name, "timing": hardware.timing, "threads": threads,
        "n_parameters": flops.n_parameters(config),
        "n_parameters_non_embedding": flops.n_parameters_non_embedding(config),
        "compiler": backend.describe_kernels(hardware),
    } | provenance.record(f"stages.{stage}")  # fmt: skip


def flops_of(config: Model, n_tokens: int) -> dict[str, Any]:
    """Training FLOPs of so many tokens: 6 N D, and with attention (PaLM's convention)."""
    return {
        "flops_6nd": flops.flops_per_token(config, "6nd") * n_tokens,
        "flops": flops.flops_per_token(config, "palm") * n_tokens,
    }


def speed_of(clock: Clock, hardware: Hardware) -> dict[str, float | None]:
    """The columns of loss.csv that the clock fills: empty on a modeled profile, of which it says nothing."""
    if hardware.timing == "modeled":
        return {"tokens_per_s": None, "seconds": None}
    return {"tokens_per_s": _rounded(clock.tokens_per_s), "seconds": _rounded(clock.seconds)}


def cost_of(
    clock: Clock, config: Model, hardware: Hardware, batches: Batches, n_tokens: int, job_cost: JobCost | None
) -> dict[str, Any]:
    """Seconds, speed, memory and energy of a run: measured, or on a modeled profile what `job_cost` says, if known."""
    if hardware.timing == "modeled":
        unknown = dict.fromkeys(("seconds", "tokens_per_s", "energy_j", "compile_s", "peak_memory_bytes"))
        return unknown | (job_cost(config, hardware, batches, n_tokens) if job_cost else {})
    return {
        "seconds": _rounded(clock.seconds),
        "tokens_per_s": _rounded(clock.tokens_per_s),
        "compile_s": _rounded(clock.compile_s),
        "peak_memory_bytes": clock.peak_memory_bytes,
    }


def corpus_name(tokens: Path) -> str:
    """The corpora of a token folder, joined by +. Raises UserError where its tokens.json is damaged."""
    path = tokens / "tokens.json"
    corpus = content.read_object(path, shards.REMEDY).get("corpus")
    if not isinstance(corpus, list) or not all(isinstance(name, str) for name in corpus):
        raise UserError(f"{path}: corpus: is no list of names; {shards.REMEDY}")
    return "+".join(corpus)


def inputs_of(tokens: Path) -> dict[str, str]:
    """The shards and the tokenizer of a token folder as inputs. Raises UserError where tokens.json names others."""
    record, inputs = content.read_object(tokens / "tokens.json", shards.REMEDY), {}
    for split in ("train", "validation"):
        header = shards.read_header(tokens / f"{split}.bin")
        if record.get(split, header) != header:
            raise UserError(f"{tokens / split}.bin: is not the shard that tokens.json names; {shards.REMEDY}")
        inputs[f"tokenize/{split}.bin"] = header["header_sha256"]
    return inputs | {"tokenize/tokenizer.json": content.sha256_of(tokens / "tokenizer.json")}


def open_split(tokens: Path, name: str, config: Model) -> np.ndarray:
    """A token shard, checked byte by byte and against tokenizer and model. Raises UserError."""
    path = tokens / f"{name}.bin"
    header = shards.read_header(path)
    if header["vocab_size"] > (config.vocab_size or 0):
        raise UserError(
            f"{path}: vocab_size: has {header['vocab_size']} tokens, model '{config.name}' {config.vocab_size}; "
            "give the model the tokenizer's vocab_size"
        )
    tokenizer_sha256 = content.sha256_of(tokens / "tokenizer.json")
    opened = shards.open_shard(path, tokenizer_sha256, check_hash=True)
    if len(opened) < 2:
        raise UserError(f"{path}: n_tokens: is {len(opened)}, a loss needs 2; take a larger corpus")
    return opened


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
