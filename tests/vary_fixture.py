"""A small made-up experiment that varies something, on disk, for the tests of its tables and figure."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from results_fixture import SIZES, run, run_json, scores_json, write_json, write_loss

from cgpt.experiment.run import Execution, Plan, Run
from cgpt.spec import Data, Experiment, Train

Point = dict[str, Any]


def bowl(point: Point, model: str) -> float:
    """A loss that is least at lr 0.004, less for larger models, and a little more for each further axis."""
    lr = point.get("train.lr", 0.004)
    rest = 0.1 * sum(len(str(value)) for axis, value in point.items() if axis != "train.lr")
    return 4.0 - 0.2 * list(SIZES).index(model) + 0.3 * math.log2(lr / 0.004) ** 2 / 4 + rest


def make_varied(
    results: Path,
    vary: dict[str, list[Any]],
    seeds: tuple[int, ...] = (0, 1, 2),
    models: tuple[str, ...] = tuple(SIZES),
    tasks: tuple[str, ...] = (),
    loss: Callable[[Point, str], float] = bowl,
) -> tuple[Experiment, Plan]:
    """Write every record of an experiment with these axes; seeds differ by a fixed noise of 0.02 nats."""
    runs: list[Run] = []
    noise = random.Random(0)
    for model, values, seed in itertools.product(models, itertools.product(*vary.values()), seeds):
        point = dict(zip(vary, values, strict=True))
        runs += _trained(results, model, point, seed, loss(point, model) + noise.gauss(0, 0.02), tasks)
    unique = {(each.stage, each.id): each for each in runs}
    experiment = Experiment(
        name="varied", question="Which is best?", data=Data(corpus=("world",)), models=models,
        train=Train(lr=0.004, batch_size=8, steps=20), seeds=seeds, tasks=tasks, vary=vary,
    )  # fmt: skip
    return experiment, Plan("varied", tuple(unique.values()))


def _trained(results: Path, model: str, point: Point, seed: int, loss: float, tasks: tuple[str, ...]) -> list[Run]:
    """The records of one pretrained model: its own, and zero-shot, fine-tuned and from-scratch scores on each task."""
    blocks: dict[str, dict[str, Any]] = {
        "model": {"name": model, "parametrization": "sp"}, "train": {"lr": 0.004, "steps": 20, "tokens": 20_480},
        "data": {"corpus": ["world"]}, "finetune": {},
    }  # fmt: skip
    for axis, value in point.items():
        block, _, key = axis.partition(".")
        blocks[block][key] = value
    corpus = "+".join(blocks["data"]["corpus"])
    tuned = {axis: value for axis, value in point.items() if axis.startswith("finetune.")}
    label = ".".join(f"{axis.partition('.')[2]}={value}" for axis, value in point.items() if axis not in tuned)
    base, tokens = f"{model}.{label}.s{seed}", f"t.{blocks['data']}"
    write_json(results, "pretrain", base, "run.json",
               run_json(base, "pretrain", model, seed, validation_loss=loss, data=corpus))  # fmt: skip
    write_loss(results, base, 20_480, loss)
    where = {"seed": seed, "hardware": {"name": "cpu", "timing": "measured"}}
    spec = {"train": blocks["train"], "model": blocks["model"], **where}
    pretrain = replace(run("pretrain", base, spec, tokenize=tokens), execution=Execution(n_parameters=SIZES[model]))
    runs = [run("tokenize", tokens, blocks["data"]), pretrain]
    of_model = {key: value for key, value in point.items() if not key.startswith("train.")}
    for task in tasks:
        runs += _scored(results, base, "pretrain", task, 1.2 - 0.2 * loss)
        for start, identity, gain in (
            ("pretrained", f"{base}.{tuned}", 0.1),
            ("scratch", f"{model}.{of_model}.s{seed}", 0.0),
        ):
            id = f"{identity}.{task}.{start}"
            write_json(results, "finetune", id, "run.json",
                       run_json(id, "finetune", model, seed, task=task, start=start, data=corpus))  # fmt: skip
            needs = {"tokenize": tokens} | ({"pretrain": base} if start == "pretrained" else {})
            spec = {"model": blocks["model"], "finetune": blocks["finetune"], **where}
            runs.append(run("finetune", id, spec, **needs))
            value = 1.2 - 0.2 * loss + gain if start == "pretrained" else 0.35 + 0.01 * seed
            runs += _scored(results, id, "finetune", task, value)
    return runs


def _scored(results: Path, model_run: str, stage: str, task: str, value: float) -> list[Run]:
    id = f"{model_run}.{task}-e"
    write_json(results, "evaluate", id, "scores.json", scores_json(id, task, stage, value, checkpoint=model_run))
    return [run("evaluate", id, {"task": {"task": task, "metric_list": [{"metric": "acc"}]}, "checkpoint_stage": stage},
                **{stage: model_run})]  # fmt: skip
