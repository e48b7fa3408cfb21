"""Turns an experiment into its runs: what each one is (identity), what it needs, and what it will roughly cost."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cgpt.cost import memory
from cgpt.errors import UserError
from cgpt.experiment import shared_steps as trunk
from cgpt.experiment.load import Workflow
from cgpt.experiment.vary import Variant, variants
from cgpt.hardware import Hardware, uneven
from cgpt.recipe import flops
from cgpt.spec import Data, Dataset, Experiment, Finetune, Model, Train
from cgpt.tasks import groups as taskgroups
from cgpt.tasks.groups import Leaf, TaskGroup

LONGEST_ID = 230  # bytes; file systems take 255, some of which are for `.log` and temporary names
RUNS_FOLDER = Path("results/runs")
LAST_FILE = {  # of each stage: the file written last, so that a run which has it is finished
    "fetch": "data/{}/fetched.json",
    "tokenize": "tokens/{}/tokens.json",
    "pretrain": "pretrain/{}/run.json",
    "finetune": "finetune/{}/run.json",
    "meter": "meter/{}/run.json",
    "baseline": "baseline/{}/scores.json",
    "evaluate": "evaluate/{}/scores.json",
}
STAGES = tuple(LAST_FILE)
HARDWARE_COST = ("systems", "peak_flops_per_s", "sustained_flops_per_s", "memory_bytes", "bandwidth_bytes_per_s",
                 "power_w", "price_per_hour_usd", "wafer", "gpu")  # fmt: skip
HARDWARE_IDENTITY = ("name", "device", "dtype", "kernels", "timing")
GPT2_DATASET = "gpt2_tokenizer"  # the entry of data.yaml that cgpt.stages.tokenize reads the published vocabulary from
ID_DIGITS = 12  # of a run id's hash: two of 10,000 runs are alike once in five million studies
DEFAULT_HARDWARE = "cpu"  # not spelled out in run ids


@dataclass(frozen=True)
class Execution:
    """How a run is carried out and what it may cost; never part of its identity. None: not known beforehand."""

    hardware: Hardware | None = None
    model: Model | None = None  # that is trained or scored
    threads: int = 1
    checkpoint_every_steps: int = 200
    n_parameters: int | None = None
    tokens: int | None = None
    flops_6nd: float | None = None
    flops: float | None = None  # attention included, PaLM convention
    minutes: float | None = None  # that `planned_time` fills in
    memory_bytes: int | None = None
    label: str = ""  # the run's values of what its experiment varies, for people
    trunk_steps: int = 0  # that `trunk` has done of this run
    trunk: str | None = None  # the next shorter run that does the same up to there
    shorter: tuple[str, ...] = ()  # all such runs, the longest first; what one of them left saves steps, none is needed
    leads_on: bool = False  # a longer run may go on from this one


@dataclass(frozen=True)
class Run:
    """One job. `id` is a readable name and the hash of `spec` and `needs`; `needs` maps stage to upstream id.

    Both parts of an id come from spec and needs alone, so that the same run has the same id in every experiment.
    A tokenize run also needs the fetch of every dataset of `spec["corpus"]`.
    """

    stage: str
    id: str
    spec: dict[str, Any]
    needs: dict[str, str]
    execution: Execution = field(default=Execution(), compare=False)

    def upstream(self) -> list[tuple[str, str]]:
        """All direct upstream runs as (stage, id)."""
        corpus = self.spec["corpus"] if self.stage == "tokenize" else []
        return [("fetch", name) for name in corpus] + list(self.needs.items())


@dataclass(frozen=True)
class Plan:
    """The runs of one experiment, upstream before downstream, each once."""

    experiment: str
    runs: tuple[Run, ...]
    groups: tuple[TaskGroup, ...] = ()  # of its tasks, whose scores are computed of theirs
    not_tuned: tuple[str, ...] = ()  # tasks with a `finetune:` block, where the experiment has none

    def of(self, stage: str) -> tuple[Run, ...]:
        """The runs of one stage."""
        return tuple(run for run in self.runs if run.stage == stage)


def make_plan(experiment: Experiment, workflow: Workflow) -> Plan:
    """The experiment's runs; raises UserError where its tasks cannot be run as it wants them."""
    leaves, groups = taskgroups.expand(experiment, workflow.tasks)
    not_tuned = [name for name, task in leaves if "finetune" in task] if experiment.finetune is None else []
    runs = trunk.share(_runs(experiment, workflow, leaves))
    return Plan(experiment.name, tuple(runs), tuple(groups), tuple(not_tuned))


def _runs(experiment: Experiment, workflow: Workflow, leaves: Sequence[Leaf]) -> list[Run]:
    runs: dict[tuple[str, str], Run] = {}
    points = {name: list(variants(experiment, workflow.models[name])) for name in experiment.models}
    for model_name, hardware_name in itertools.product(experiment.models, experiment.hardware):
        for variant in points[model_name]:
            for run in _runs_of_variant(variant, experiment, workflow, workflow.hardware[hardware_name], leaves):
                runs.setdefault((run.stage, run.id), run)
    found = sorted(runs.values(), key=lambda run: STAGES.index(run.stage))
    if long := next((run.id for run in found if len(run.id.encode()) > LONGEST_ID), None):
        raise UserError(f"workflows/experiments/{experiment.name}.yaml: the run '{long}' has a name too long for a "
                        "file; shorten the names of its model, data and tasks, or vary fewer keys")  # fmt: skip
    return found


def last_file(stage: str, run_id: str) -> Path:
    """The file that shows a run is finished; it stands in the run's folder."""
    return RUNS_FOLDER / LAST_FILE[stage].format(run_id)


def _refuse_uneven(where: str, n_sequences: int, hardware: Hardware) -> None:
    """Every device of a profile takes the same number of sequences in each forward pass."""
    if problem := uneven(n_sequences, hardware):
        raise UserError(f"workflows/{where}: {problem}")


def _runs_of_variant(variant: Variant, experiment: Experiment, workflow: Workflow, hardware: Hardware,
                     leaves: Sequence[Leaf]) -> Iterator[Run]:  # fmt: skip
    """Fetch, tokenize, then for each seed pretrain, and for each task evaluate, fine-tune and evaluate again.

    A modeled profile meters what was pretrained; where another one trains, it does nothing else.
    """
    tokenize = _tokenize_run(variant.data, workflow)
    if experiment.weights_from and hardware.timing == "modeled":
        trained_on = workflow.hardware[experiment.weights_from]
        threads = experiment.threads_per_run or trained_on.resources.threads
        for seed in variant.seeds:
            yield _meter_run(hardware, _pretrain_run(variant, seed, trained_on, threads, tokenize))
        return
    threads = experiment.threads_per_run or hardware.resources.threads
    yield from (_fetch_run(workflow.datasets[name]) for _, name in tokenize.upstream())
    yield tokenize
    for seed in variant.seeds:
        pretrain = _pretrain_run(variant, seed, hardware, threads, tokenize)
        yield pretrain
        if hardware.timing == "modeled":
            yield _meter_run(hardware, pretrain)
        for name, said in leaves:
            task = {key: value for key, value in said.items() if key != "finetune"}
            own, scored = said.get("finetune"), taskgroups.scored(task, experiment)
            dataset = workflow.datasets[task["data"]] if "data" in task else None
            if dataset:
                yield _fetch_run(dataset)
            yield _evaluate_run(pretrain, name, scored, dataset)
            if own is None or variant.finetune is None:
                continue
            tuning = replace(variant.finetune, **own)
            where = f"tasks/{name}" if "batch_size" in own else f"experiments/{experiment.name}"
            _refuse_uneven(f"{where}.yaml: finetune.batch_size", tuning.batch_size, hardware)
            if is_classification(task):
                yield from (_baseline_run(name, scored, dataset, n_labels) for n_labels in tuning.n_labels or (None,))
            for start, n_labels in itertools.product(tuning.start, tuning.n_labels or (None,)):
                finetune = _finetune_run(variant, name, task, dataset, tuning, start, n_labels, pretrain)
                yield finetune
                yield _evaluate_run(finetune, name, _with_shots(scored, tuning.num_fewshot), dataset)


def _with_shots(task: dict[str, Any], num_fewshot: int) -> dict[str, Any]:
    """The task with this many shots, as it is where it says so itself; a task that lm-eval brings may say another."""
    said = task.get("num_fewshot") or (None if task.get("stock") else 0)
    return task if said == num_fewshot else task | {"num_fewshot": num_fewshot}


def _fetch_run(dataset: Dataset) -> Run:
    return Run("fetch", dataset.name, _dataset_identity(dataset), {})


def _tokenize_run(data: Data, workflow: Workflow) -> Run:
    spec = {
        "corpus": list(data.corpus),
        "datasets": {name: _dataset_identity(workflow.datasets[name]) for name in data.corpus},
        "tokenizer": data.tokenizer,
        "vocab_size": data.vocab_size,
        "validation_fraction": data.validation_fraction,
    }
    vocabulary = f"bpe{data.vocab_size}" if data.tokenizer == "bpe" else data.tokenizer
    needs = {"fetch": GPT2_DATASET} if data.tokenizer == "gpt2" else {}
    if needs and GPT2_DATASET not in workflow.datasets:
        raise UserError(f"workflows/data.yaml: datasets: has no '{GPT2_DATASET}', which tokenizer gpt2 needs; add it")
    return _run("tokenize", [_corpus_name(data), vocabulary], spec, needs, Execution())


def _pretrain_run(variant: Variant, seed: int, hardware: Hardware, threads: int, tokenize: Run) -> Run:
    model, train = variant.model, variant.train
    identity = asdict(train)
    del identity["tokens_per_parameter"]
    for key in ("flops", *Train.EXECUTION):
        del identity[key]
    spec = {"model": asdict(model), "train": identity, "seed": seed, "hardware": hardware_identity(hardware),
            "tokenize": tokenize.id}  # fmt: skip
    execution = Execution(
        hardware, model, threads, train.checkpoint_every_steps, flops.n_parameters(model), train.tokens,
        flops_6nd=flops.flops_per_token(model, "6nd") * (train.tokens or 0),
        flops=flops.flops_per_token(model, "palm") * (train.tokens or 0),
        memory_bytes=memory.pretraining_bytes(model, train, threads, hardware.kernels),
        label=", ".join(variant.label("model", "data", "train")),
    )  # fmt: skip
    name = [model.name, _corpus_name(variant.data), *_where(hardware), f"s{seed}"]
    return _run("pretrain", name, spec, {"tokenize": tokenize.id}, execution)


def _meter_run(hardware: Hardware, pretrain: Run) -> Run:
    """What a pretraining run would take on a modeled profile: it depends on the constants of the cost model."""
    spec = {key: pretrain.spec[key] for key in ("model", "train", "seed")} | {
        "hardware": hardware_identity(hardware),
        "weights_from": pretrain.spec["hardware"]["name"],
    }
    execution = replace(pretrain.execution, hardware=hardware, threads=1, tokens=None, flops=None, flops_6nd=None,
                        memory_bytes=None)  # fmt: skip
    return _run("meter", [pretrain.id, hardware.name], spec, {"pretrain": pretrain.id}, execution)


def _finetune_run(variant: Variant, name: str, task: dict[str, Any], dataset: Dataset | None, tuning: Finetune,
                  start: str, n_labels: int | None, pretrain: Run) -> Run:  # fmt: skip
    """From `pretrained` it needs that run's weights; from `scratch` only its tokenizer."""
    settings = {key: value for key, value in asdict(tuning).items() if key not in ("start", "n_labels", "num_fewshot")}
    spec = {
        "model": pretrain.spec["model"],
        "task": task,
        "dataset": _dataset_identity(dataset) if dataset else None,
        "start": start,
        "finetune": settings,
        "n_labels": n_labels,
        "seed": pretrain.spec["seed"],
        "hardware": pretrain.spec["hardware"],
        "tokenize": pretrain.spec["tokenize"],
    }
    needs = {"tokenize": pretrain.needs["tokenize"]} | ({"pretrain": pretrain.id} if start == "pretrained" else {})
    if dataset:
        needs["fetch"] = dataset.name
    hardware, model = pretrain.execution.hardware, variant.model
    assert hardware is not None
    tokens = n_labels * tuning.epochs * model.seq_len if n_labels else None  # an upper bound: full-length examples
    cost = flops.flops_per_token(model, "palm") * tokens if tokens else None
    execution = replace(
        pretrain.execution, tokens=tokens, flops=cost,
        flops_6nd=flops.flops_per_token(model, "6nd") * tokens if tokens else None,
        memory_bytes=memory.finetuning_bytes(model, tuning.batch_size, pretrain.execution.threads, hardware.kernels),
        label=", ".join(variant.label("model", "data", *(["train"] if start == "pretrained" else []), "finetune")),
    )  # fmt: skip
    parts = [model.name, _corpus_name(variant.data), *_where(hardware), f"s{spec['seed']}",
             name, start, *([f"n{n_labels}"] if n_labels else [])]  # fmt: skip
    return _run("finetune", parts, spec, needs, execution)


def is_classification(task: dict[str, Any]) -> bool:
    """Whether a task has a training split and the same choices for every document, so that counting words can do it."""
    return isinstance(task.get("doc_to_choice"), (list, dict)) and bool(task.get("training_split"))


def _baseline_run(name: str, task: dict[str, Any], dataset: Dataset | None, n_labels: int | None) -> Run:
    """Bag of words on the labels that fine-tuning gets; it depends on no model."""
    spec = {"task": task, "dataset": _dataset_identity(dataset) if dataset else None, "n_labels": n_labels}
    parts = [name, "bag_of_words", *([f"n{n_labels}"] if n_labels else [])]
    return _run("baseline", parts, spec, {"fetch": dataset.name} if dataset else {}, Execution())


def _evaluate_run(checkpoint: Run, name: str, task: dict[str, Any], dataset: Dataset | None) -> Run:
    spec = {
        "task": task,
        "dataset": _dataset_identity(dataset) if dataset else None,
        "checkpoint_stage": checkpoint.stage,
        "hardware": checkpoint.spec["hardware"],
    }
    needs = {checkpoint.stage: checkpoint.id} | ({"fetch": dataset.name} if dataset else {})
    cost = checkpoint.execution
    assert cost.model is not None
    needed = memory.evaluation_bytes(cost.model, cost.threads, checkpoint.spec["hardware"]["kernels"])
    execution = replace(cost, tokens=None, flops=None, flops_6nd=None, memory_bytes=needed)
    return _run("evaluate", [checkpoint.id, name], spec, needs, execution)


def _run(stage: str, name: Iterable[str], spec: dict[str, Any], needs: dict[str, str], execution: Execution) -> Run:
    identity = json.dumps({"spec": spec, "needs": needs}, sort_keys=True, separators=(",", ":"))
    return Run(
        stage, f"{'.'.join(name)}-{hashlib.sha256(identity.encode()).hexdigest()[:ID_DIGITS]}", spec, needs, execution
    )


def hardware_identity(hardware: Hardware) -> dict[str, Any]:
    """What of a profile decides a result: where it is modeled also what the cost model reads, as records hold times."""
    profile = asdict(hardware)
    keys = HARDWARE_IDENTITY + (HARDWARE_COST if hardware.timing == "modeled" else ())
    return {key: profile[key] for key in keys}


def _dataset_identity(dataset: Dataset) -> dict[str, Any]:
    """What decides a dataset's bytes: where they come from in words (licence, address) does not."""
    files = [{"path": part.path, "sha256": part.sha256, "split": part.split} for part in dataset.files]
    said = {"builtin": dataset.builtin, "seed": dataset.seed, "path": dataset.path, "files": files,
            "documents": dataset.documents}  # fmt: skip
    return {"name": dataset.name} | said | ({"hub": asdict(dataset.hub)} if dataset.hub else {})


def _corpus_name(data: Data) -> str:
    more = len(data.corpus) - 1
    return data.corpus[0] + (f"+{more}" if more else "")


def _where(hardware: Hardware) -> list[str]:
    return [] if hardware.name == DEFAULT_HARDWARE else [hardware.name]
