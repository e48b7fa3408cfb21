"""The stage `finetune`: train on a task's labelled examples, from a pretrained checkpoint or from scratch."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgpt import checkpoint as checkpoints
from cgpt.data import content
from cgpt.data.tokenizer import REMEDY, read_tokenizer
from cgpt.errors import UserError
from cgpt.files.whole import write_whole
from cgpt.jobs import Job
from cgpt.model.gpt import GPT, init_parameters
from cgpt.model.loglikelihood import score
from cgpt.model.padding import pad, padded_length
from cgpt.recipe.schedule import Schedule
from cgpt.records import DIVERGED_FILE, DivergedRecord, FinetuneRecord, read_import, write_record
from cgpt.spec import Model
from cgpt.tasks.examples import Example, read_examples, read_labelled_examples, validation_split_of
from cgpt.training.progress import Progress
from cgpt.training.resume import Clock, LossLog
from cgpt.training.run_record import common_record, corpus_name, speed
from cgpt.training.trainer import AdamW, Trainer

MIN_LR_RATIO = 0.1
ENDS_BESIDE = ("generation_config.json", "tokenizer_config.json")  # what ends a text, beside a tokenizer.json


class Encoded(NamedTuple):
    """An example as tokens: the right answer, from token `first` on, and every choice in the same form."""

    tokens: np.ndarray
    first: int
    choices: tuple[tuple[np.ndarray, int], ...]
    label: int | None
    n_tokens_cut: int = 0  # of the prompt's start, so that prompt and right answer fit the model


class Epoch(NamedTuple):
    """An epoch and what validation says of its weights."""

    number: int
    accuracy: float | None  # None: a task without choices
    nats: float
    params: dict[str, np.ndarray]


def finetune(job: Job) -> dict[str, Any]:
    """Train on the training split of the task; write a checkpoint folder with loss.csv and run.json, the record, which
    is returned.

    Training starts from the model of the upstream stage `pretrain` or `import`, or from initial weights; the stage
    `tokenize`, or `import`, gives the tokenizer. The loss is that of the target's tokens alone. After each epoch the
    validation split is scored; the best epoch's weights, by accuracy, then by loss, are kept, and training stops after
    `patience` epochs that are no better. Raises UserError for data, labels or a checkpoint that are not the run's.
    """
    run = FinetuneRun(job)
    s, seed, seq_len, log, clock = job.spec["finetune"], job.spec["seed"], run.config.seq_len, run.log, run.clock
    steps_per_epoch = len(batches(run.train_set, s["batch_size"], seq_len, seed, 0))
    steps = steps_per_epoch * s["epochs"]
    schedule = Schedule(s["lr"], steps, round(s["warmup_fraction"] * steps), min_ratio=MIN_LR_RATIO)
    progress, best = Progress(job.id), Epoch(0, None, np.inf, {})
    for epoch in range(1, s["epochs"] + 1):
        for members, length in batches(run.train_set, s["batch_size"], seq_len, seed, epoch):
            start, lr = time.perf_counter(), schedule.rate(run.trainer.n_updates)
            examples = [run.train_set[i] for i in members]
            batch = pad([e.tokens for e in examples], [e.first for e in examples], s["batch_size"], length)
            loss, grad_norm = run.trainer.step([batch], lr)
            n_tokens = sum(len(e.tokens) - 1 for e in examples)
            clock.add(n_tokens, time.perf_counter() - start)
            run.n_tokens += n_tokens
            run.batches[s["batch_size"], length] += 1
            step, nats = run.trainer.n_updates, None
            progress.show(step, steps, loss, clock, last=step % steps_per_epoch == 0)
            if step % steps_per_epoch == 0:
                nats, accuracy = validate(run.trainer.model, run.validation_set)
                _refuse_divergence(run, epoch, nats)
                if (accuracy or 0.0, -nats) > (best.accuracy or 0.0, -best.nats):
                    best = Epoch(epoch, accuracy, nats, run.trainer.model.numpy())
            log.append(
                step=step, tokens=run.n_tokens, train_loss=loss, validation_loss=nats, lr=lr, grad_norm=grad_norm,
                validation_bits_per_byte=None, **speed(clock, job.hardware),
            )  # fmt: skip
        if epoch - best.number >= s["patience"]:
            break
    return _finish(run, best)


class FinetuneRun:
    """A fine-tuning run between two steps: its examples, its model and what was done so far."""

    def __init__(self, job: Job):
        self.job, self.config = job, Model(**job.spec["model"])
        stage = "import" if "import" in job.upstream else "tokenize"
        self.tokens, start = job.upstream[stage], _start(job)
        self.data = read_import(self.tokens / "run.json").data if stage == "import" else corpus_name(self.tokens)
        tokenizer = read_tokenizer(self.tokens, self.config.vocab_size)
        self.inputs = {f"{stage}/tokenizer.json": content.sha256_of(self.tokens / "tokenizer.json")}
        self.inputs |= content.of_task_data(job.spec["task"], job.data)
        params = _pretrained(job.upstream[start], self.config, self.tokens) if start else \
            init_parameters(self.config, job.spec["seed"])  # fmt: skip
        self.inputs |= content.of_checkpoint(job.upstream[start], start) if start else {}
        task, settings = job.spec["task"], job.spec["finetune"]
        validation_split = validation_split_of(task)
        splits = (
            read_labelled_examples(task, job.data, job.spec["n_labels"]),
            read_examples(task, job.data, validation_split, settings["max_validation"]),
        )
        model = GPT.on(job.hardware, self.config, params, job.threads)
        self.train_set, self.validation_set = ([encode(e, model, tokenizer) for e in examples] for examples in splits)
        for split, examples in (("training", self.train_set), ("validation", self.validation_set)):
            if n_cut := sum(example.n_tokens_cut > 0 for example in examples):
                print(f"finetune: {n_cut:,} of {len(examples):,} {split} prompts were longer than the model's "
                      f"{self.config.seq_len} tokens and lost their start", file=sys.stderr)  # fmt: skip
        self.trainer = Trainer(model, AdamW(weight_decay=settings["weight_decay"], grad_clip=settings["grad_clip"]))
        self.n_tokens, self.batches = 0, Counter[tuple[int, int]]()
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / DIVERGED_FILE).unlink(missing_ok=True)  # of an earlier try
        self.log, self.clock = LossLog(job.folder / "loss.csv"), Clock()
        self.log.start()


def _start(job: Job) -> str | None:
    """The stage whose checkpoint training starts from; None: from scratch."""
    if "import" in job.upstream:  # for its tokenizer in any case
        return "import" if job.spec["start"] == "pretrained" else None
    return "pretrain" if "pretrain" in job.upstream else None


def _pretrained(checkpoint: Path, config: Model, tokens: Path) -> Mapping[str, np.ndarray]:
    """The parameters of a checkpoint. Raises UserError where its model or its tokenizer is not the run's."""
    content.verified(checkpoint)
    saved = asdict(checkpoints.read_config(checkpoint))
    problems = [
        f"{checkpoint / 'config.json'}: {key}: is {saved[key]!r}, the run wants {wanted!r}; {REMEDY}"
        for key, wanted in asdict(config).items()
        if saved[key] != wanted
    ]
    tokenizer, wanted = (folder / "tokenizer.json" for folder in (checkpoint, tokens))
    if not tokenizer.is_file() or tokenizer.read_bytes() != wanted.read_bytes():
        problems.append(f"{tokenizer}: is not {wanted}, which made the run's tokens; {REMEDY}")
    if problems:
        raise UserError(*problems)
    return checkpoints.read_params(checkpoint, config)


def validate(model: GPT, examples: Sequence[Encoded]) -> tuple[float, float | None]:
    """Mean loss of the targets' tokens, nats, and the share of examples whose right choice has the highest
    log-likelihood; None for that without choices."""
    answers = [example.choices or ((example.tokens, example.first),) for example in examples]
    scored = iter(score(model, *zip(*chain.from_iterable(answers))))
    logprobs = [[next(scored)[0] for _ in of_example] for of_example in answers]
    right = [of_example[example.label or 0] for of_example, example in zip(logprobs, examples)]
    nats = -float(np.concatenate(right).mean(dtype=np.float64))
    if examples[0].label is None:
        return nats, None
    likeliest = [int(np.argmax([float(each.sum()) for each in of_example])) for of_example in logprobs]
    return nats, float(np.mean([guess == example.label for guess, example in zip(likeliest, examples)]))


def _refuse_divergence(run: FinetuneRun, epoch: int, nats: float) -> None:
    """Raise UserError, and leave a record of it, where the loss of an epoch is no number."""
    if np.isfinite(nats):
        return
    record = DivergedRecord(run.job.id, "finetune", run.trainer.n_updates, None)
    write_record(run.job.folder / DIVERGED_FILE, record)
    raise UserError(f"{run.job.id}: finetune.lr: the run diverged in epoch {epoch} (loss {nats}); "
                    f"write a lower lr than {run.job.spec['finetune']['lr']}")  # fmt: skip


def _finish(run: FinetuneRun, best: Epoch) -> dict[str, Any]:
    """Write the best epoch's checkpoint and, last, run.json; return the record."""
    job, spec, folder = run.job, run.job.spec, run.job.folder
    outputs = checkpoints.save(folder, run.config, best.params, run.tokens / "tokenizer.json")
    for name in ENDS_BESIDE:  # of an imported checkpoint
        if (run.tokens / name).is_file():
            write_whole(folder / name, (run.tokens / name).read_bytes())
    record = FinetuneRecord(
        **common_record(job, "finetune", run.config, run.data, run.batches, run.n_tokens, run.clock),
        inputs=run.inputs,
        outputs=outputs | {"loss.csv": content.sha256_of(run.log.path)},
        train_loss=run.log.last("train_loss"),
        validation_loss=best.nats,
        validation_bits_per_byte=None,
        task=spec["task"]["task"],
        start=spec["start"],
        n_labels=spec["n_labels"],
        n_train_examples=len(run.train_set),
        best_epoch=best.number,
        validation_accuracy=best.accuracy,
        batches=[[*shape, n_steps] for shape, n_steps in sorted(run.batches.items())],
    )
    write_record(folder / "run.json", record)
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
