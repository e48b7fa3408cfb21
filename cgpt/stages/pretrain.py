"""The stage `pretrain`: train a GPT on token shards; resumable at any moment, the same bit for bit."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import checkpoint as checkpoints
from cgpt import provenance
from cgpt.data import content, shards
from cgpt.data.tokenizer import give_the_same_tokens
from cgpt.errors import UserError
from cgpt.files.whole import write_whole
from cgpt.jobs import Job, handling_signals
from cgpt.kernels import backend
from cgpt.kernels.work import meter, metered
from cgpt.model.gpt import GPT, init_parameters
from cgpt.model.loglikelihood import score
from cgpt.provenance import code_sha256
from cgpt.recipe.schedule import Schedule, without_length
from cgpt.records import DIVERGED_FILE, DivergedRecord, PretrainRecord, write_record
from cgpt.spec import Model, Train
from cgpt.training.progress import Progress
from cgpt.training.resume import Clock, LossLog, RunState, Saved, load_first
from cgpt.training.run_record import common_record, corpus_name, speed
from cgpt.training.trainer import AdamW, Trainer

# After the warm-up, a loss that stays this far above the first one for so many steps does not come back.
DIVERGED_NATS, DIVERGED_STEPS = 1.0, 10


def pretrain(job: Job) -> dict[str, Any]:
    """Train the model of `job.spec` and write a checkpoint folder with loss.csv and run.json; return the record.

    Training begins at initial weights, or at those of the upstream stage `import`.

    The state to resume from is kept in `state/<run>` beside the stages' folders, keyed by all that decides the run's
    bits. A run that `is_shared` also keeps its state at the end of the stable phase there; a longer one, which
    `shares_with` it, goes on from that, to the same bits as from the start. Raises UserError for shards that are not
    the model's, divergence or a full disk, and KeyboardInterrupt, with the state saved, when a signal asks for an end.
    """
    run = PretrainRun(job)
    t, n_steps, schedule, log, clock = run.settings, run.n_steps, run.schedule, run.log, run.clock
    progress, calls = Progress(job.id), meter(job.hardware.device)
    stops: list[int] = []  # numbers of signals that asked for an end
    with handling_signals(lambda number, frame: stops.append(number)):
        for step in range(run.trainer.n_updates, n_steps):
            start, lr, done = time.perf_counter(), schedule.rate(step), step + 1
            batch = shards.batches(run.shard, run.config.seq_len, t.batch_size, job.spec["seed"], step)
            calls.clear()
            loss, grad_norm = run.trainer.step(micro_batches(batch, t.micro_batch_size or t.batch_size), lr)
            clock.add(run.tokens_per_step, time.perf_counter() - start)
            _refuse_divergence(run, done, loss, grad_norm)
            if calls:
                run.metered = metered(calls)
            nats = bits = None
            if done % t.eval_every_steps == 0 or done == n_steps:
                nats = validation_loss(run.trainer.model, run.validation, t.eval_batches * t.batch_size)
                bits = shards.bits_per_byte(nats, run.validation_header)
                _refuse_divergence(run, done, nats, grad_norm)
            log.append(
                step=done, tokens=done * run.tokens_per_step, train_loss=loss, validation_loss=nats,
                validation_bits_per_byte=bits, lr=lr, grad_norm=grad_norm, **speed(clock, job.hardware),
            )  # fmt: skip
            progress.show(done, n_steps, loss, clock, last=done == n_steps)
            if run.shared_end and done == schedule.first_decaying_step:
                run.shared_end.save(run.saved())
            if stops or done % job.checkpoint_every_steps == 0:
                run.state.save(run.saved())
            if stops:
                raise KeyboardInterrupt(stops[-1])
    return _finish(run)


class PretrainRun:
    """A pretraining run between two steps: its data, its model and how far that is trained, and where this is kept."""

    def __init__(self, job: Job):
        """The run where it begins: at the state that it left, else at the shorter run's, else with initial weights."""
        self.job, self.config, self.settings = job, Model(**job.spec["model"]), Train(**job.spec["train"])
        assert self.settings.steps is not None, "the plan resolves the number of steps"
        self.n_steps, self.tokens_per_step = self.settings.steps, self.settings.batch_size * self.config.seq_len
        self.schedule = Schedule.of(self.settings, self.config.seq_len)
        tokens = job.upstream["tokenize"]
        self.shard, self.validation = (shards.open_split(tokens, split, self.config) for split in content.SPLITS)
        self.validation_header = shards.read_header(tokens / "validation.bin")
        self.inputs, self.data = inputs_of(tokens), corpus_name(tokens)
        (job.folder / DIVERGED_FILE).unlink(missing_ok=True)  # of an earlier try
        if start := job.upstream.get("import"):
            params = start_parameters(start, self.config, tokens)
            self.inputs |= content.of_checkpoint(start, "import")
        else:
            params = init_parameters(self.config, job.spec["seed"])
        model = GPT.on(job.hardware, self.config, params, job.threads)
        t = self.settings
        self.trainer = Trainer(model, AdamW(t.beta1, t.beta2, t.epsilon, t.weight_decay, t.grad_clip))
        self.state = self._state(job.id, job.spec)
        shared = without_length(job.spec)  # decides a state at the end of the stable phase
        self.shared_start = self._state(f"{job.shares_with}.shared", shared) if job.shares_with else None
        self.shared_end = self._state(f"{job.id}.shared", shared) if job.is_shared else None
        self.log = LossLog(self.state.folder / "loss.csv")
        saved = load_first([self.state, *([self.shared_start] if self.shared_start else [])], self.n_steps, job.id)
        if saved is not None:
            self.trainer.load_state(saved.arrays)
        too_late = self.trainer.n_updates > self.schedule.first_decaying_step
        if self.shared_end and too_late and not self.shared_end.path.exists():
            self.shared_end.remove()  # so that nobody waits for it
        self.log.start(saved.log if saved else "")
        self.clock = Clock(saved.clock if saved else None)
        self.metered: dict[str, Any] = {"metered_flops": None, "metered_bytes": None}
        self.metered |= saved.metered if saved else {}

    def _state(self, name: str, decisive: dict[str, Any]) -> RunState:
        """The state called `name`, keyed by all that decides its bits, by what a person calls it; threads do not."""
        hardware = self.job.hardware
        versions = [provenance.installed_version(package) for package in ("tinygrad", "numpy")]
        key = {
            "spec": hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest(),
            "code": code_sha256("stages.pretrain"),
            "corpus or tokenizer": content.digest(self.inputs),
            "compiler": str(backend.describe_kernels(hardware)),
            "processor": provenance.processor() if hardware.runs_on_host else "",
            "version of tinygrad or NumPy": " ".join(map(str, versions)),
        }
        return RunState(self.job.folder.parent.parent / "state" / name, key)

    def saved(self) -> Saved:
        """All that a later process needs to go on from here."""
        return Saved(self.trainer.state(), self.log.text(), self.clock.state, self.metered)


def start_parameters(checkpoint: Path, config: Model, tokens: Path) -> Mapping[str, np.ndarray]:
    """The parameters of an imported checkpoint, of the shape `config`, whose tokenizer made the tokens. Raises
    UserError."""
    content.verified(checkpoint)
    tokenizer, wanted = (folder / "tokenizer.json" for folder in (checkpoint, tokens))
    if not give_the_same_tokens(tokenizer, wanted):
        raise UserError(f"data.tokenizer: {wanted} does not give texts the tokens of {tokenizer}; write the name of "
                        "the model that training starts from")  # fmt: skip
    return checkpoints.read_params(checkpoint, config)


def micro_batches(batch: np.ndarray, n_sequences: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and targets, each (n_sequences, T), of the parts of a batch (B, T + 1)."""
    parts = np.split(batch, len(batch) // n_sequences)
    return [(np.ascontiguousarray(part[:, :-1]), np.ascontiguousarray(part[:, 1:])) for part in parts]


def validation_loss(model: GPT, shard: np.ndarray, most_windows: int) -> float:
    """Mean loss, nats per token, over fixed windows spread evenly over the validation shard."""
    length = model.config.seq_len
    count = max(1, min(most_windows, (len(shard) - 1) // length))
    starts = np.linspace(0, max(0, len(shard) - length - 1), count).astype(np.int64)
    windows = [shard[at : at + length + 1].astype(np.int32) for at in starts]
    logprobs = [logprob for logprob, _ in score(model, windows, [1] * len(windows))]
    return -float(np.concatenate(logprobs).mean(dtype=np.float64))


def _refuse_divergence(run: PretrainRun, step: int, loss: float, grad_norm: float) -> None:
    """Raise UserError, and leave a record of it, where the loss after `step` steps is one of a run that diverged."""
    first = run.log.first("train_loss")
    latest = [float(row["train_loss"]) for row in run.log.rows[1 - DIVERGED_STEPS :]] + [loss]
    warm = step > run.schedule.warmup_steps
    too_high = warm and first is not None and len(latest) == DIVERGED_STEPS and min(latest) > first + DIVERGED_NATS
    if math.isfinite(loss) and math.isfinite(grad_norm) and not too_high:
        return
    run.state.remove()
    finite = loss if math.isfinite(loss) else None
    write_record(run.job.folder / DIVERGED_FILE, DivergedRecord(run.job.id, "pretrain", step, finite))
    before = "" if first is None else f", first loss {first:.4g}"
    raise UserError(
        f"{run.job.id}: train.lr: the run diverged at step {step} (loss {loss:.4g}, gradient norm "
        f"{grad_norm:.4g}{before}); write a lower lr than {run.settings.lr}, or a longer warmup_fraction"
    )


def _finish(run: PretrainRun) -> dict[str, Any]:
    """Write the checkpoint folder, run.json last, and drop the state; return the record."""
    job, config, folder = run.job, run.config, run.job.folder
    params = checkpoints.weights_in(run.trainer.model)
    outputs = checkpoints.save(folder, config, params, job.upstream["tokenize"] / "tokenizer.json")
    losses = run.log.text().encode()
    write_whole(folder / "loss.csv", losses)
    batches = {(run.settings.batch_size, config.seq_len): run.n_steps}
    record = PretrainRecord(
        **common_record(job, "pretrain", config, run.data, batches, run.n_steps * run.tokens_per_step, run.clock),
        inputs=run.inputs,
        outputs=outputs | {"loss.csv": hashlib.sha256(losses).hexdigest()},
        train_loss=run.log.last("train_loss"),
        validation_loss=run.log.last("validation_loss"),
        validation_bits_per_byte=run.log.last("validation_bits_per_byte"),
        **run.metered,
    )
    write_record(folder / "run.json", record)
    run.state.remove()
    if run.shared_start:
        run.shared_start.remove()
    return asdict(record)


def inputs_of(tokens: Path) -> dict[str, str]:
    """The shards and the tokenizer of a token folder as inputs. Raises UserError where tokens.json names others."""
    record, inputs = content.read_object(tokens / "tokens.json", shards.REMEDY), {}
    for split in content.SPLITS:
        header = shards.read_header(tokens / f"{split}.bin")
        if record.get(split, header) != header:
            raise UserError(f"{tokens / split}.bin: is not the shard that tokens.json names; {shards.REMEDY}")
        inputs[f"tokenize/{split}.bin"] = header["header_sha256"]
    return inputs | {"tokenize/tokenizer.json": content.sha256_of(tokens / "tokenizer.json")}
