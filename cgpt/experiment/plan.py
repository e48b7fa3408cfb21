"""Turns an experiment into its runs: those of each setting of each model on each hardware profile."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cgpt.cost import memory
from cgpt.data import checkpoint_files
from cgpt.data.content import GPT2_DATASET
from cgpt.errors import UserError
from cgpt.experiment import shared_steps
from cgpt.experiment.checkpoint_rows import published_names
from cgpt.experiment.load import Workflow
from cgpt.experiment.run import STAGES, Execution, Key, Plan, Run
from cgpt.experiment.vary import ScoredSetting, Setting, complete, make_scored_settings, make_settings
from cgpt.files.layers import file_of
from cgpt.hardware import Hardware, uneven
from cgpt.recipe import flops
from cgpt.spec import SCRATCH, TOKENIZERS, Data, Dataset, Experiment, Finetune, Model, Train
from cgpt.tasks import groups as taskgroups
from cgpt.tasks.lm_eval_tasks import is_classification

LONGEST_ID = 230  # bytes; file systems take 255, some of which are for `.log` and temporary names
HARDWARE_COST = ("systems", "peak_flops_per_s", "sustained_flops_per_s", "memory_bytes", "bandwidth_bytes_per_s",
                 "power_w", "price_per_hour_usd", "wafer", "gpu")  # fmt: skip
HARDWARE_IDENTITY = ("name", "device", "dtype", "kernels", "timing")
ID_DIGITS = 12  # of a run id's hash: two of 10,000 runs are alike once in five million studies
DEFAULT_HARDWARE = "cpu"  # not spelled out in run ids
UNKNOWN = Execution()


def make_plan(experiment: Experiment, workflow: Workflow) -> Plan:
    """The experiment's runs; raises UserError where its tasks cannot be run as it wants them."""
    leaves, groups = taskgroups.expand(experiment, workflow.tasks)
    tasks = [_prepare_task(leaf, experiment, workflow.datasets) for leaf in leaves]
    runs: dict[Key, Run] = {}
    for model_name, hardware_name in itertools.product(experiment.models, experiment.hardware):
        for run in _runs_of(workflow.models[model_name], workflow.hardware[hardware_name], experiment, workflow, tasks):
            runs.setdefault(run.key, run)
    in_order = sorted(runs.values(), key=lambda run: STAGES.index(run.stage))
    if long := next((run.id for run in in_order if len(run.id.encode()) > LONGEST_ID), None):
        raise UserError(f"{file_of('experiments', experiment.name)}: the run '{long}' has a name too long for a "
                        "file; shorten the names of its model, data and tasks, or vary fewer keys")  # fmt: skip
    not_tuned = [task.name for task in tasks if task.finetune is not None] if experiment.finetune is None else []
    rows = [workflow.published[name] for name in experiment.models if name in workflow.published]
    return Plan(experiment.name, tuple(shared_steps.share(in_order)), tuple(groups), published_names(rows),
                tuple(not_tuned))  # fmt: skip


@dataclass(frozen=True)
class _UsedTask:
    """A task by the name that its runs have, as fine-tuning and as scoring use it, and its data set."""

    name: str
    task: dict[str, Any]
    scored: list[dict[str, Any]]  # once for each number of shots
    finetune: dict[str, Any] | None  # keys of its block of that name
    dataset: Dataset | None

    @property
    def data_identity(self) -> dict[str, Any] | None:
        """The part of its data set's entry that decides the bytes; None where it has no data set."""
        return dataset_identity(self.dataset) if self.dataset else None

    @property
    def needs(self) -> dict[str, str]:
        """The fetch of its data set."""
        return {"fetch": self.dataset.name} if self.dataset else {}


def _prepare_task(leaf: taskgroups.Leaf, experiment: Experiment, datasets: Mapping[str, Dataset]) -> _UsedTask:
    task = {key: value for key, value in leaf.task.items() if key != "finetune"}
    dataset = datasets[task["data"]] if "data" in task else None
    return _UsedTask(leaf.name, task, taskgroups.scored(task, experiment), leaf.task.get("finetune"), dataset)


@dataclass(frozen=True)
class _Scoring:
    """A setting on the profile that scores and tunes its model, with what that costs, and the run whose tokenizer the
    model reads: the same for every seed and task."""

    setting: ScoredSetting
    hardware: Hardware
    tokenizer: Run
    execution: Execution

    def name(self, seed: int) -> list[str]:
        """The parts that the ids of its runs begin with."""
        hardware = [] if self.hardware.name == DEFAULT_HARDWARE else [self.hardware.name]
        corpus = [_corpus_name(self.setting.data)] if isinstance(self.setting, Setting) else []
        return [self.setting.model.name, *corpus, *hardware, f"s{seed}"]


def _prepare_scoring(setting: ScoredSetting, hardware: Hardware, experiment: Experiment, tokenizer: Run) -> _Scoring:
    model, threads = setting.model, experiment.threads_per_run or hardware.resources.threads
    every = setting.train.checkpoint_every_steps if isinstance(setting, Setting) else Train.checkpoint_every_steps
    return _Scoring(setting, hardware, tokenizer, Execution(
        hardware, model, threads, every, flops.n_parameters(model), flops.flops_per_token(model, "palm"),
        label=", ".join(setting.label("model", "data", "train")),
        memory_bytes=memory.evaluation_bytes(model, threads, hardware.kernels),
    ))  # fmt: skip


def _count_work(model: Model, tokens: int) -> dict[str, Any]:
    """Tokens that are trained on, and their FLOPs by two conventions, as an Execution names them."""
    return {"tokens": tokens, "flops": flops.flops_per_token(model, "palm") * tokens,
            "flops_6nd": flops.flops_per_token(model, "6nd") * tokens}  # fmt: skip


def _runs_of(model: Model, hardware: Hardware, experiment: Experiment, workflow: Workflow,
             tasks: Sequence[_UsedTask]) -> Iterator[Run]:  # fmt: skip
    """The runs of one of an experiment's models on one of its profiles."""
    if model.name in workflow.published:
        for scored in make_scored_settings(experiment, model):
            yield from _runs_of_published(scored, hardware, experiment, workflow, tasks)
    else:
        for setting in make_settings(experiment, model, workflow.models):
            yield from _runs_of_trained(setting, hardware, experiment, workflow, tasks)


def _runs_of_published(setting: ScoredSetting, hardware: Hardware, experiment: Experiment, workflow: Workflow,
                       tasks: Sequence[_UsedTask]) -> Iterator[Run]:  # fmt: skip
    """Import, then for each task evaluate, and for each seed fine-tune and evaluate again. A modeled profile meters
    the fine-tunings; where another one trains, it does nothing else."""
    imported = _import_run(setting.model.name, workflow)
    elsewhere = experiment.weights_from and hardware.timing == "modeled"
    trainer = workflow.hardware[experiment.weights_from] if experiment.weights_from and elsewhere else hardware
    scoring = _prepare_scoring(setting, trainer, experiment, imported)
    runs = [run for seed in setting.seeds for task in tasks
            for run in _task_runs(task, scoring, imported, seed, experiment.name)]  # fmt: skip
    if not elsewhere:
        yield from (imported, *runs)
    if hardware.timing == "modeled":
        yield from (_meter_run(hardware, run) for run in runs if run.stage == "finetune")


def _runs_of_trained(setting: Setting, hardware: Hardware, experiment: Experiment, workflow: Workflow,
                     tasks: Sequence[_UsedTask]) -> Iterator[Run]:  # fmt: skip
    """Fetch, tokenize, then for each seed pretrain, and for each task evaluate, fine-tune and evaluate again.

    A modeled profile meters what was pretrained; where another one trains, it does nothing else.
    """
    tokenize = _tokenize_run(setting.data, workflow)
    start = None if setting.train.start == SCRATCH else _import_run(setting.train.start, workflow)
    if experiment.weights_from and hardware.timing == "modeled":
        training = _prepare_scoring(setting, workflow.hardware[experiment.weights_from], experiment, tokenize)
        yield from (_meter_run(hardware, _pretrain_run(setting, training, seed, start)) for seed in setting.seeds)
        return
    training = _prepare_scoring(setting, hardware, experiment, tokenize)
    yield from (_fetch_run(workflow.datasets[name]) for stage, name in tokenize.upstream() if stage == "fetch")
    if setting.data.tokenizer not in TOKENIZERS:
        yield _import_run(setting.data.tokenizer, workflow)
    if start:
        yield start
    yield tokenize
    for seed in setting.seeds:
        pretrain = _pretrain_run(setting, training, seed, start)
        yield pretrain
        if hardware.timing == "modeled":
            yield _meter_run(hardware, pretrain)
        for task in tasks:
            yield from _task_runs(task, training, pretrain, seed, experiment.name)


def _task_runs(task: _UsedTask, scoring: _Scoring, checkpoint: Run, seed: int, experiment: str) -> Iterator[Run]:
    """Evaluate what was pretrained or imported, with each number of shots; where the task is trained on, also
    fine-tune, evaluate that, and count words."""
    if task.dataset:
        yield _fetch_run(task.dataset)
    yield from (_evaluate_run(scoring, checkpoint, task, scored) for scored in task.scored)
    if task.finetune is None or scoring.setting.finetune is None:
        return
    tuning = replace(scoring.setting.finetune, **task.finetune)
    if problem := uneven(tuning.batch_size, scoring.hardware):
        of_task = "batch_size" in task.finetune
        where = file_of("tasks", task.name) if of_task else file_of("experiments", experiment)
        raise UserError(f"{where}: finetune.batch_size: {problem}")
    if is_classification(task.task):
        yield from (_baseline_run(task, n_labels) for n_labels in tuning.n_labels or (None,))
    for start, n_labels in itertools.product(tuning.start, tuning.n_labels or (None,)):
        finetune = _finetune_run(scoring, task, tuning, start, n_labels, checkpoint, seed)
        yield finetune
        yield _evaluate_run(scoring, finetune, task, taskgroups.with_shots(task.scored[0], tuning.num_fewshot))


def _fetch_run(dataset: Dataset) -> Run:
    return Run("fetch", dataset.name, dataset_identity(dataset), {})


def _import_run(name: str, workflow: Workflow) -> Run:
    """The checkpoint of a row of models.yaml, by what it holds, wherever that lies."""
    row, model = workflow.published[name], complete(workflow.models[name])
    spec = {"model": asdict(model), "source": checkpoint_files.identity(row, workflow.root)}
    execution = Execution(model=model, n_parameters=flops.n_parameters(model), memory_bytes=memory.import_bytes(model))
    return _run("import", [name], spec, {}, execution)


def _tokenize_run(data: Data, workflow: Workflow) -> Run:
    spec = {
        "corpus": list(data.corpus),
        "datasets": {name: dataset_identity(workflow.datasets[name]) for name in data.corpus},
        "tokenizer": data.tokenizer,
        "vocab_size": data.vocab_size,
        "validation_fraction": data.validation_fraction,
    }
    vocabulary = f"bpe{data.vocab_size}" if data.tokenizer == "bpe" else data.tokenizer
    needs = {"fetch": GPT2_DATASET} if data.tokenizer == "gpt2" else {}
    if data.tokenizer not in TOKENIZERS:
        needs = {"import": _import_run(data.tokenizer, workflow).id}
    if data.tokenizer == "gpt2" and GPT2_DATASET not in workflow.datasets:
        raise UserError(f"workflows/data.yaml: datasets: has no '{GPT2_DATASET}', which tokenizer gpt2 needs; add it")
    return _run("tokenize", [_corpus_name(data), vocabulary], spec, needs)


def _pretrain_run(setting: Setting, training: _Scoring, seed: int, start: Run | None) -> Run:
    not_identity = ("tokens_per_parameter", "flops", *Train.EXECUTION)  # lengths that `steps` and `tokens` stand for
    train = {key: value for key, value in asdict(setting.train).items() if key not in not_identity}
    if start is None:
        del train["start"]  # from scratch, as of old
    spec = {"model": asdict(setting.model), "train": train, "seed": seed,
            "hardware": hardware_identity(training.hardware), "tokenize": training.tokenizer.id}  # fmt: skip
    needed = memory.pretraining_bytes(setting.model, setting.train, training.execution.threads,
                                      training.hardware.kernels)  # fmt: skip
    work = _count_work(setting.model, setting.train.tokens or 0)
    execution = replace(training.execution, memory_bytes=needed, **work)
    name, needs = training.name(seed), {"tokenize": training.tokenizer.id}
    if start:
        name, needs = [*name, f"from_{setting.train.start}"], needs | {"import": start.id}
    return _run("pretrain", name, spec, needs, execution)


def _meter_run(hardware: Hardware, trained: Run) -> Run:
    """The time of a training that was run on a modeled profile: it depends on the constants of the cost model."""
    keys = ("model", "train", "seed") if trained.stage == "pretrain" else ("model", "task", "start", "finetune", "seed")
    spec = {key: trained.spec[key] for key in keys} | {
        "hardware": hardware_identity(hardware),
        "weights_from": trained.spec["hardware"]["name"],
    }
    cost = trained.execution
    execution = Execution(hardware, cost.model, n_parameters=cost.n_parameters, label=cost.label)
    return _run("meter", [trained.id, hardware.name], spec, {trained.stage: trained.id}, execution)


def _finetune_run(scoring: _Scoring, task: _UsedTask, tuning: Finetune, start: str, n_labels: int | None,
                  checkpoint: Run, seed: int) -> Run:  # fmt: skip
    """From `pretrained` it needs that checkpoint's weights; from `scratch` only its tokenizer."""
    keys = {key: value for key, value in asdict(tuning).items() if key not in ("start", "n_labels", "num_fewshot")}
    spec = {
        "model": asdict(scoring.setting.model),
        "task": task.task,
        "dataset": task.data_identity,
        "start": start,
        "finetune": keys,
        "n_labels": n_labels,
        "seed": seed,
        "hardware": hardware_identity(scoring.hardware),
        scoring.tokenizer.stage: scoring.tokenizer.id,
    }
    pretrained = start == "pretrained"
    needs = {scoring.tokenizer.stage: scoring.tokenizer.id} | ({checkpoint.stage: checkpoint.id} if pretrained else {})
    model, cost = scoring.setting.model, scoring.execution
    most_tokens = (n_labels or 0) * tuning.epochs * model.seq_len  # full-length examples
    work = _count_work(model, most_tokens) if n_labels else {}
    blocks = ("model", "data", "train", "finetune") if pretrained else ("model", "data", "finetune")
    needed = memory.finetuning_bytes(model, tuning.batch_size, cost.threads, scoring.hardware.kernels)
    execution = replace(cost, label=", ".join(scoring.setting.label(*blocks)), memory_bytes=needed, **work)
    name = [*scoring.name(seed), task.name, start, *_labels_name(n_labels)]
    return _run("finetune", name, spec, needs | task.needs, execution)


def _baseline_run(task: _UsedTask, n_labels: int | None) -> Run:
    """Bag of words on the labels that fine-tuning gets; it depends on no model."""
    spec = {"task": task.scored[0], "dataset": task.data_identity, "n_labels": n_labels}
    return _run("baseline", [task.name, "bag_of_words", *_labels_name(n_labels)], spec, task.needs)


def _evaluate_run(scoring: _Scoring, checkpoint: Run, task: _UsedTask, scored: dict[str, Any]) -> Run:
    spec = {
        "task": scored,
        "dataset": task.data_identity,
        "checkpoint_stage": checkpoint.stage,
        "hardware": hardware_identity(scoring.hardware),
    }
    execution = replace(scoring.execution, label=checkpoint.execution.label)
    return _run("evaluate", [checkpoint.id, task.name], spec, {checkpoint.stage: checkpoint.id} | task.needs, execution)


def _run(stage: str, name: Iterable[str], spec: dict[str, Any], needs: dict[str, str],
         execution: Execution = UNKNOWN) -> Run:  # fmt: skip
    identity = json.dumps({"spec": spec, "needs": needs}, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:ID_DIGITS]
    return Run(stage, f"{'.'.join(name)}-{digest}", spec, needs, execution)


def hardware_identity(hardware: Hardware) -> dict[str, Any]:
    """The part of a profile that decides a result; where it is modeled also what the cost model reads, as records
    hold times."""
    profile = asdict(hardware)
    keys = HARDWARE_IDENTITY + (HARDWARE_COST if hardware.timing == "modeled" else ())
    return {key: profile[key] for key in keys}


def dataset_identity(dataset: Dataset) -> dict[str, Any]:
    """The part of an entry that decides a data set's bytes: a licence or an address does not."""
    files = [{"path": part.path, "sha256": part.sha256, "split": part.split} for part in dataset.files]
    identity = {"name": dataset.name, "builtin": dataset.builtin, "seed": dataset.seed, "path": dataset.path,
                "files": files, "documents": dataset.documents}  # fmt: skip
    return identity | ({"hub": asdict(dataset.hub)} if dataset.hub else {})


def _corpus_name(data: Data) -> str:
    more = len(data.corpus) - 1
    return data.corpus[0] + (f"+{more}" if more else "")


def _labels_name(n_labels: int | None) -> list[str]:
    return [f"n{n_labels}"] if n_labels else []
