"""The stage `finetune`: train on a task's labelled examples, from a pretrained checkpoint or from scratch."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgpt import checkpoint as checkpoints
from cgpt.data import content
from cgpt.data.tokenizer import REMEDY, read_tokenizer
from cgpt.errors import UserError
from cgpt.hardware import Hardware
from cgpt.model.gpt import GPT, init_parameters
from cgpt.model.loglikelihood import score
from cgpt.model.padding import pad, padded_length
from cgpt.recipe.schedule import Schedule
from cgpt.records import DIVERGED_FILE, DivergedRecord, FinetuneRecord, write_record
from cgpt.spec import Model
from cgpt.stages.pretrain import JobCost, common_record, corpus_name, cost_of, flops_of, speed_of
from cgpt.tasks.examples import Example, read_examples, read_labelled_examples, validation_split_of
from cgpt.training.progress import Progress
from cgpt.training.resume import Clock, LossLog
from cgpt.training.trainer import AdamW, Trainer

MIN_LR_RATIO = 0.1


class Encoded(NamedTuple):
    """An example as tokens: the right answer, from token `first` on, and every choice in the same form."""

    tokens: np.ndarray
    first: int
    choices: tuple[tuple[np.ndarray, int], ...]
    label: int | None
    n_tokens_cut: int = 0  # of the prompt's start, so that prompt and right answer fit the model


def finetune(
    spec: dict[str, Any],
    checkpoint: Path | None,
    tokens: Path,
    data_root: Path,
    out: Path,
    hardware: Hardware,
    threads: int,
    job_cost: JobCost | None = None,
) -> dict[str, Any]:
    """Train on the training split of `spec["task"]`; write a checkpoint folder with loss.csv and run.json.

    `checkpoint` None starts from initial weights; `tokens` gives the tokenizer. The loss is that of the target's tokens
    alone. After each epoch the validation split is scored; the best epoch's weights are kept, and training stops after
    `patience` epochs that are no better. `job_cost` is as for `pretrain`. Raises UserError for data, labels or a
    checkpoint that do not fit.
    """
    run = FinetuneRun(spec, checkpoint, tokens, data_root, out, hardware, threads)
    run.train()
    return run.finish(job_cost)


class FinetuneRun:
    """One fine-tuning run: the model, the examples and the best epoch so far."""

    def __init__(
        self, spec: dict[str, Any], checkpoint: Path | None, tokens: Path, data_root: Path, out: Path,
        hardware: Hardware, threads: int,
    ):  # fmt: skip
        self.spec, self.out, self.tokens_folder, self.hardware, self.threads = spec, out, tokens, hardware, threads
        self.config, self.settings = Model(**spec["model"]), spec["finetune"]
        self.data, tokenizer = corpus_name(tokens), read_tokenizer(tokens, self.config.vocab_size)
        self.inputs = {"tokenize/tokenizer.json": content.sha256_of(tokens / "tokenizer.json")}
        self.inputs |= content.of_task_data(spec["task"], data_root)
        params = init_parameters(self.config, spec["seed"]) if checkpoint is None else self._pretrained(checkpoint)
        self.inputs |= content.of_checkpoint(checkpoint, "pretrain") if checkpoint else {}
        train, validation = self._examples(data_root)
        self.model = GPT.on(hardware, self.config, params, threads)
        self.train_set = [encode(example, self.model, tokenizer) for example in train]
        self.validation_set = [encode(example, self.model, tokenizer) for example in validation]
        for name, encoded in (("training", self.train_set), ("validation", self.validation_set)):
            if n_cut := sum(example.n_tokens_cut > 0 for example in encoded):
                print(f"finetune: {n_cut:,} of {len(encoded):,} {name} prompts were longer than the model's "
                      f"{self.config.seq_len} tokens and lost their start", file=sys.stderr)  # fmt: skip
        s = self.settings
        settings = AdamW(weight_decay=s["weight_decay"], grad_clip=s["grad_clip"])
        self.trainer = Trainer(self.model, settings)
        self.log, self.clock = LossLog(out / "loss.csv"), Clock()
        self.n_tokens, self.batches = 0, Counter[tuple[int, int]]()
        self.best: tuple[tuple[float, float], int, dict[str, np.ndarray]] | None = None

    def _pretrained(self, checkpoint: Path) -> dict[str, np.ndarray]:
        content.verified(checkpoint)
        found = asdict(checkpoints.read_config(checkpoint))
        problems = [
            f"{checkpoint / 'config.json'}: {key}: is {found[key]!r}, the run wants {wanted!r}; {REMEDY}"
            for key, wanted in asdict(self.config).items()
            if found[key] != wanted
        ]
        own, wanted = (folder / "tokenizer.json" for folder in (checkpoint, self.tokens_folder))
        if not own.is_file() or own.read_bytes() != wanted.read_bytes():
            problems.append(f"{own}: is not {wanted}, which made the run's tokens; {REMEDY}")
        if problems:
            raise UserError(*problems)
        return checkpoints.read_params(checkpoint, self.config)

    def _examples(self, data_root: Path) -> tuple[list[Example], list[Example]]:
        task = self.spec["task"]
        validation_split = validation_split_of(task)
        train = read_labelled_examples(task, data_root, self.spec["n_labels"])
        validation = read_examples(task, data_root, validation_split, self.settings["max_validation"])
        return train, validation

    def train(self) -> None:
        """Epochs over the training split until the last one or until validation stops getting better."""
        s, progress = self.settings, Progress(self.out.name)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / DIVERGED_FILE).unlink(missing_ok=True)  # of an earlier try
        self.log.start()
        per_epoch = len(batches(self.train_set, s["batch_size"], self.config.seq_len, self.spec["seed"], 0))
        steps, step = per_epoch * s["epochs"], 0
        schedule = Schedule(s["lr"], steps, round(s["warmup_fraction"] * steps), min_ratio=MIN_LR_RATIO)
        for epoch in range(1, s["epochs"] + 1):
            for members, length in batches(
                self.train_set, s["batch_size"], self.config.seq_len, self.spec["seed"], epoch
            ):
                start = time.perf_counter()
                chosen = [self.train_set[i] for i in members]
                batch = pad([e.tokens for e in chosen], [e.first for e in chosen], s["batch_size"], length)
                lr = schedule.rate(step)
                loss, grad_norm = self.trainer.step([batch], lr)
                n_tokens = sum(len(e.tokens) - 1 for e in chosen)
                self.clock.add(n_tokens, time.perf_counter() - start)
                self.batches[s["batch_size"], length] += 1
                step, self.n_tokens = step + 1, self.n_tokens + n_tokens
                last_of_epoch = step % per_epoch == 0
                progress.show(step, steps, loss, self.clock, last=last_of_epoch)
                nats = self._validate(epoch) if last_of_epoch else None
                self.log.append(
                    step=step, tokens=self.n_tokens, train_loss=loss, validation_loss=nats, lr=lr, grad_norm=grad_norm,
                    validation_bits_per_byte=None, **speed_of(self.clock, self.hardware),
                )  # fmt: skip
            assert self.best is not None
            if epoch - self.best[1] >= s["patience"]:
                break

    def _validate(self, epoch: int) -> float:
        """Mean loss of the target's tokens, nats; notes the epoch if it is the best: by accuracy, then by loss."""
        scored = score(self.model, [e.tokens for e in self.validation_set], [e.first for e in self.validation_set])
        nats = -float(np.concatenate([logprobs for logprobs, _ in scored]).mean(dtype=np.float64))
        if not np.isfinite(nats):
            record = DivergedRecord(self.out.name, "finetune", len(self.log.rows) + 1, None)
            write_record(self.out / DIVERGED_FILE, record)
            raise UserError(
                f"{self.out.name}: finetune.lr: the run diverged in epoch {epoch} (loss {nats}); "
                f"write a lower lr than {self.settings['lr']}"
            )
        accuracy = self.validation_accuracy()
        measure = (accuracy if accuracy is not None else 0.0, -nats)
        if self.best is None or measure > self.best[0]:
            self.best = measure, epoch, self.model.numpy()
        return nats

    def validation_accuracy(self) -> float | None:
        """Share of validation examples whose right choice has the highest log-likelihood; None without choices."""
        if self.validation_set[0].label is None:
            return None
        choices = [choice for example in self.validation_set for choice in example.choices]
        totals = iter(float(logprobs.sum()) for logprobs, _ in score(self.model, *zip(*choices)))
        hits = [int(np.argmax([next(totals) for _ in e.choices])) == e.label for e in self.validation_set]
        return float(np.mean(hits))

    def finish(self, job_cost: JobCost | None) -> dict[str, Any]:
        """Write the best epoch's checkpoint and, last, run.json."""
        assert self.best is not None
        (accuracy, minus_nats), epoch, params = self.best
        outputs = checkpoints.save(self.out, self.config, params, self.tokens_folder / "tokenizer.json")
        spec = self.spec
        record = FinetuneRecord(
            **common_record(self.out.name, "finetune", spec, self.data, self.config, self.hardware, self.threads),
            inputs=self.inputs,
            outputs=outputs | {"loss.csv": content.sha256_of(self.log.path)},
            tokens=self.n_tokens,
            steps=len(self.log.rows),
            **flops_of(self.config, self.n_tokens),
            train_loss=self.log.last("train_loss"),
            validation_loss=-minus_nats,
            validation_bits_per_byte=None,
            **cost_of(self.clock, self.config, self.hardware, self.batches, self.n_tokens, job_cost),
            task=spec["task"]["task"],
            start=spec["start"],
            n_labels=spec["n_labels"],
            n_train_examples=len(self.train_set),
            best_epoch=epoch,
            validation_accuracy=accuracy if self.validation_set[0].label is not None else None,
        )
        write_record(self.out / "run.json", record)
        return asdict(record)


def encode(example: Example, model: GPT, tokenizer: Any) -> Encoded:
    """Tokens of prompt and answer, split as lm-evaluation-harness splits them, the last seq_len + 1 of them kept.

    Raises UserError for an answer that is longer than the model.
    """
    from cgpt.inference.lm_eval_model import Adapter, n_tokens_cut

    adapter, longest = Adapter(model, tokenizer), model.config.seq_len

    def pair(answer: str) -> tuple[np.ndarray, int, int]:
        context, continuation = adapter.encode_pair(example.prompt, answer)
        if not continuation or len(continuation) > longest:
            raise UserError(f"finetune: the answer {answer[:60]!r} has {len(continuation)} tokens, of which the model "
                            f"reads 1 to {longest}; correct it, or leave its document out")  # fmt: skip
        kept = np.array([*context, *continuation], np.int32)[-(longest + 1) :]
        return kept, len(kept) - len(continuation), n_tokens_cut(len(context), len(continuation), longest)

    tokens, first, n_cut = pair(example.target)
    return Encoded(tokens, first, tuple(pair(choice)[:2] for choice in example.choices), example.label, n_cut)


def batches(
    examples: Sequence[Encoded], batch_size: int, longest: int, seed: int, epoch: int
) -> list[tuple[list[int], int]]:
    """An epoch's batches as (indices of examples, padded length): random, examples of like length together."""
    random = np.random.RandomState([seed, epoch])
    shapes: dict[int, list[int]] = {}
    for i in random.permutation(len(examples)):
        shapes.setdefault(padded_length(len(examples[i].tokens) - 1, longest), []).append(int(i))
    made = [
        (members[at : at + batch_size], length)
        for length, members in sorted(shapes.items())
        for at in range(0, len(members), batch_size)
    ]
    return [made[i] for i in random.permutation(len(made))]
