"""A small made-up experiment on disk, for the tests of tables and figures."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from cgpt.csv_columns import LOSS_COLUMNS
from cgpt.experiment.run import Plan, Run
from cgpt.spec import Data, Experiment, Train

SIZES = {"gpt-90k": 90_112, "gpt-350k": 352_256, "gpt-1m": 1_230_000}
TASKS = ("topic", "mood", "passage")
# Every made-up model has the same made-up files.
CHECKPOINT = {name: "2" * 64 for name in ("config.json", "tokenizer.json", "model.safetensors")}


def from_checkpoint(stage: str) -> dict[str, str]:
    """A checkpoint as the input of a record."""
    return {f"{stage}/{name}": sha256 for name, sha256 in CHECKPOINT.items()}


def run(stage: str, id: str, spec: dict | None = None, **needs: str) -> Run:
    """A run with a short id instead of a hashed one."""
    return Run(stage, id, spec or {}, needs)


def run_json(id: str, stage: str, model: str, seed: int, **changes: object) -> dict:
    """A run.json as the contract between the stages has it."""
    n, tokens = SIZES[model], SIZES[model] * 20
    record: dict = dict(
        run=id, stage=stage, model=model, data="world", seed=seed, hardware="cpu", timing="measured", n_parameters=n,
        n_parameters_non_embedding=n // 2, tokens=tokens, steps=20, flops_6nd=6.0 * n * tokens, flops=7.0 * n * tokens,
        train_loss=2.1, validation_loss=round(8 - 0.42 * len(str(n)) - n / 2e6 + 0.03 * seed, 4),
        validation_bits_per_byte=1.234, seconds=61.5, tokens_per_s=12345.6, compile_s=9.0,
        peak_memory_bytes=812_000_000, host_cpu="Some CPU @ 2.00GHz", threads=2, compiler="clang 19",
        versions={"python": "3.11", "tinygrad": "0.13.0"},
        code_sha256="0" * 64, commit="abc1234", date="2026-11-23T16:20:00+00:00",
        inputs={} if stage == "pretrain" else from_checkpoint("pretrain"), outputs=CHECKPOINT,
    )  # fmt: skip
    if stage == "finetune":
        record |= dict(task="topic", start="pretrained", n_labels=None, n_train_examples=900, best_epoch=2,
                       validation_accuracy=0.8)  # fmt: skip
    return record | changes


def meter_json(id: str, pretrained: dict, hardware: str, **changes: object) -> dict:
    """A run.json of the stage meter."""
    measured = dict(compile_s=None, peak_memory_bytes=None, timing="modeled", hardware=hardware, stage="meter", run=id)
    record = pretrained | measured | dict(
        weights_from=pretrained["hardware"], systems=1, batch_per_system=8, step_s=0.0144, seconds=3110.2,
        tokens_per_s=142247.0, parts_s={"compute": 0.0036, "pass_latency": 0.0108, "reduction": 0.0}, utilisation=0.1,
        energy_j_per_token=0.16, energy_j=7.2e7, bound_by="pass_latency", in_memory=True, extrapolated=False,
        job_overhead_s=3101.0, price_usd=None, metered_flops=2e9, metered_bytes=9e7,
        inputs=from_checkpoint("pretrain"), outputs={},
    )  # fmt: skip
    return record | changes


def add_metered(results: Path, plan: Plan, hardware: str, spec: dict | None = None, **changes: object) -> Plan:
    """The plan with a meter run of each pretrained model on this machine, whose records are written."""
    runs = []
    for pretrained in plan.of("pretrain"):
        id = f"{pretrained.id}.{hardware}"
        record = json.loads((results / "runs" / "pretrain" / pretrained.id / "run.json").read_text())
        write_json(results, "meter", id, "run.json", meter_json(id, record, hardware, **changes))
        runs.append(run("meter", id, spec, pretrain=pretrained.id))
    return Plan(plan.experiment, (*plan.runs, *runs))


def scores_json(id: str, task: str, stage: str, value: float, **changes: object) -> dict:
    """A scores.json; the better the accuracy, the fewer bits the correct answer takes."""
    rest = {"filter": "none", "stderr": 0.015}
    bits = {"metric": "bits_per_byte_of_answer", "value": 3 - 2 * value, "higher_is_better": False, "chance": None}
    record = dict(
        run=id, task=task, task_version=1.0, checkpoint="x", stage=stage, n_shot=0, n_samples=400,
        n_prompts_cut=0, hardware="cpu",
        prompt_example="Text: ...", seconds=3.0, samples_sha256="1" * 64, lm_eval_version="0.4.13",
        inputs={} if stage == "baseline" else from_checkpoint(stage),
        scores=[
            bits | rest,
            {"metric": "acc", "value": value, "higher_is_better": True, "chance": 0.25, **rest},
        ],
    )  # fmt: skip
    return record | changes


def write_json(results: Path, stage: str, id: str, name: str, record: dict) -> None:
    folder = results / "runs" / stage / id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(record))


def write_loss(results: Path, id: str, last_tokens: int, last_loss: float) -> None:
    """A loss.csv of 20 steps; every fifth has a validation loss."""
    noise = random.Random(id)
    lines = [",".join(LOSS_COLUMNS)]
    for step in range(1, 21):
        loss = last_loss + 4 * (1 - step / 20) ** 2
        validation = f"{loss + 0.05},{loss / 3}" if step % 5 == 0 else ","
        train = loss + noise.gauss(0, 0.05)
        lines.append(f"{step},{last_tokens * step // 20},{train},{validation},0.001,0.5,12000,{step}")
    (results / "runs" / "pretrain" / id / "loss.csv").write_text("\n".join(lines) + "\n")


def make_results(results: Path, seeds: tuple[int, ...] = (0, 1)) -> tuple[Experiment, Plan]:
    """Write every record of an experiment with three sizes, three tasks and some seeds; the plan names them all."""
    runs = []
    step = min(1.0, 4 / len(SIZES))  # so that no accuracy of many models is above 1
    for n, model in enumerate(SIZES):
        for seed in seeds:
            base = f"{model}.world.s{seed}"
            record = run_json(base, "pretrain", model, seed)
            write_json(results, "pretrain", base, "run.json", record)
            write_loss(results, base, record["tokens"], record["validation_loss"])
            spec = {"train": {"lr": 0.001}, "model": {"parametrization": "sp"}}
            runs.append(run("pretrain", base, spec, tokenize="t"))
            for task in TASKS:
                runs += _evaluate(results, base, "pretrain", task, 0.3 + 0.05 * step * n + 0.01 * seed)
                for start, gain in (("pretrained", 0.5), ("scratch", 0.3)):
                    id = f"{base}.{task}.{start}"
                    tuned = run_json(id, "finetune", model, seed, task=task, start=start)
                    write_json(results, "finetune", id, "run.json", tuned)
                    runs.append(run("finetune", id, tokenize="t", **({"pretrain": base} if gain == 0.5 else {})))
                    runs += _evaluate(results, id, "finetune", task, 0.25 + gain + 0.04 * step * n + 0.02 * seed)
    experiment = Experiment(
        name="made-up", question="Does a bigger model learn more from the same text?", data=Data(corpus=("world",)),
        models=tuple(SIZES), train=Train(lr=0.001, batch_size=8, steps=20), seeds=seeds, tasks=TASKS,
    )  # fmt: skip
    return experiment, Plan(experiment.name, tuple(runs))


def _evaluate(results: Path, model_run: str, stage: str, task: str, value: float) -> list[Run]:
    id = f"{model_run}.{task}-e"
    write_json(results, "evaluate", id, "scores.json", scores_json(id, task, stage, value, checkpoint=model_run))
    return [run("evaluate", id, {"task": {"task": task, "metric_list": [{"metric": "acc"}]}}, **{stage: model_run})]


def add_samples(results: Path, plan: Plan, n_documents: int = 60, prompt: str = "A made-up text.") -> None:
    """Write the samples.jsonl of each evaluation, with choices and as many right answers as its accuracy says; the
    accuracy is then that of the documents."""
    for each in plan.of("evaluate"):
        path = results / "runs" / "evaluate" / each.id / "scores.json"
        record, dice = json.loads(path.read_text()), random.Random(each.id)
        wanted = next(score for score in record["scores"] if score["metric"] == "acc")
        lines, right = [], 0
        for n in range(n_documents):
            target, correct = n % 4, dice.random() < wanted["value"]
            given = target if correct else (target + 1) % 4
            right += correct
            lines.append(json.dumps({
                "doc_id": n, "filter": "none", "prompt": f"{prompt} {n}", "n_tokens_cut": 0,
                "choices": [" sea", " land", " sky", " <b>home</b>"], "target": [target],
                "loglikelihoods": [-dice.random() - 5 * (choice != given) for choice in range(4)],
                "prediction": given, "correct": correct, "metrics": {"acc": float(correct)},
            }))  # fmt: skip
        content = "".join(f"{line}\n" for line in lines).encode()
        path.with_name("samples.jsonl").write_bytes(content)
        wanted["value"] = right / n_documents
        record |= {"samples_sha256": hashlib.sha256(content).hexdigest(), "n_samples": n_documents}
        path.write_text(json.dumps(record))


def add_figures(results: Path, experiment: str, *names: str) -> None:
    """Write an empty picture for each name."""
    folder = results / experiment / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="900" height="300"/>')
