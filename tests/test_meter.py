"""Modeled machines: the stage meter, what kernels of a step do, and a modeled device that trains by itself."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import test_finetune
import tiny

from cgpt import records
from cgpt.cost import wafer_training
from cgpt.cost.job import job_cost
from cgpt.cost.shapes import of_model
from cgpt.experiment.load import load_workflow
from cgpt.experiment.plan import hardware_identity
from cgpt.spec import Model
from cgpt.stages.evaluate import evaluate
from cgpt.stages.finetune import finetune
from cgpt.stages.meter import meter, step_work
from cgpt.stages.pretrain import pretrain

WORKFLOW = load_workflow(Path(__file__).parent.parent)
CS2, ANDROMEDA = WORKFLOW.hardware["cs2"], WORKFLOW.hardware["andromeda"]
WEIGHTS = ("model.safetensors", "config.json", "tokenizer.json")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return tiny.token_folder(tmp_path_factory.mktemp("tokens") / "count-0")


def trained_on(hardware, tokens: Path, root: Path, **train) -> Path:
    """The folder of a model pretrained on this profile."""
    out = root / "pretrain" / hardware.name
    spec = tiny.pretrain_spec(**train) | {"hardware": hardware_identity(hardware)}
    pretrain(tiny.job(spec, out, tokens, hardware=hardware, cost=job_cost if hardware.timing == "modeled" else None))
    return out


@pytest.fixture(scope="module")
def pretrained(tokens, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pretrained")
    return {hardware.name: trained_on(hardware, tokens, root) for hardware in (tiny.CPU, CS2)}


def metered(pretrained: Path, out: Path, hardware=CS2, **train) -> records.MeterRecord:
    meter(tiny.job(tiny.pretrain_spec(**train), out, upstream={"pretrain": pretrained}, hardware=hardware))
    record = records.read_run(out / "run.json")
    assert isinstance(record, records.MeterRecord)
    return record


def kernels(folder: Path) -> list[dict[str, str]]:
    with open(folder / "kernels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def loss_rows(folder: Path, *left_out: str) -> list[dict[str, float | None]]:
    rows = records.read_loss(folder / "loss.csv")
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def test_the_stage_gives_the_cost_models_seconds_and_joules_and_the_weights_loss(pretrained, tmp_path):
    record = metered(pretrained["cpu"], tmp_path / "run")
    shape, trained = of_model(tiny.ONE_LAYER), records.read_run(pretrained["cpu"] / "run.json")
    step = wafer_training.training_step(shape, CS2, 4, 1)
    assert record.step_s == pytest.approx(step.step_s) == pytest.approx(sum(record.parts_s.values()))
    assert record.tokens_per_s == pytest.approx(4 * tiny.ONE_LAYER.seq_len / step.step_s)
    assert record.seconds == pytest.approx(20 * step.step_s + record.job_overhead_s)
    assert record.energy_j == pytest.approx(record.seconds * 23_000)
    assert (record.timing, record.hardware, record.weights_from) == ("modeled", "cs2", "cpu")
    assert (record.compile_s, record.peak_memory_bytes) == (None, None)
    assert (record.validation_loss, record.steps) == (trained.validation_loss, 20)
    assert record.extrapolated and record.in_memory is True


def test_sixteen_systems_share_a_batch_and_are_extrapolated(pretrained, tmp_path):
    record = metered(pretrained["cpu"], tmp_path / "run", ANDROMEDA, batch_size=16)
    assert (record.systems, record.batch_per_system, record.extrapolated) == (16, 1, True)
    assert record.energy_j == pytest.approx(record.seconds * 16 * 23_000)


@pytest.mark.parametrize("train", [{}, {"micro_batch_size": 2}])
def test_the_work_that_is_written_is_what_the_device_counts_in_a_step_of_training(train, tokens, pretrained, tmp_path):
    """Two ways: the stage looks at the kernels of a step that it does not run, the device counts those that it runs."""
    counted = records.read_run(trained_on(CS2, tokens, tmp_path, steps=2, **train) / "run.json")
    record = metered(pretrained["cpu"], tmp_path / "run", **train)
    assert (record.metered_flops, record.metered_bytes) == (counted.metered_flops, counted.metered_bytes)
    rows = kernels(tmp_path / "run")
    assert sum(float(row["flops"]) for row in rows) == record.metered_flops > 0
    assert sum(int(row["bytes_read"]) + int(row["bytes_written"]) for row in rows) == record.metered_bytes
    assert {row["phase"] for row in rows} == {"forward", "backward", "update"}


def kernel_flops(model: Model) -> float:
    """FLOPs of a token that the kernels' matrix products need: 6 N + 7 L (S + 1) d, N the matmul weights.

    PaLM's 6 N + 12 L S d counts scores and values, forward (4 L S d) and twice that backward, as if every token saw all
    S. Causally a token sees (S + 1) / 2 of them on average: 6 L (S + 1) d. The backward pass computes the scores once
    more instead of keeping them, a seventh product beside the six: 7 L (S + 1) d. What remains, embeddings, LayerNorm,
    GELU, softmax and AdamW, is what the kernels count beyond this: the less, the wider the model.
    """
    shape = of_model(model)
    return 6 * shape.matmul_weights + 7 * model.n_layer * (model.seq_len + 1) * model.d_model


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [("bench-7m", 8), ("cerebras-gpt-111m", 8), pytest.param("cerebras-gpt-13b", 16, marks=pytest.mark.slow)],
)
def test_the_flops_of_a_step_are_the_analytic_ones_within_two_percent(name, batch_size):
    model = WORKFLOW.models[name]
    calls = step_work(model, {"batch_size": batch_size, "micro_batch_size": None})
    per_token = sum(n * work.flops for work, n in calls.items()) / batch_size / model.seq_len
    assert 1 < per_token / kernel_flops(model) < 1.02
    assert {work.layer for work in calls} == {None, *range(model.n_layer)}


def test_a_modeled_device_trains_the_same_weights_and_records_the_cost_models_times(pretrained):
    for name in WEIGHTS:
        assert (pretrained["cs2"] / name).read_bytes() == (pretrained["cpu"] / name).read_bytes(), name
    modeled, measured = (records.read_run(pretrained[name] / "run.json") for name in ("cs2", "cpu"))
    step_s = wafer_training.training_step(of_model(tiny.ONE_LAYER), CS2, 4, 1).step_s
    assert (modeled.timing, modeled.hardware) == ("modeled", "cs2")
    assert modeled.tokens_per_s == pytest.approx(4 * tiny.ONE_LAYER.seq_len / step_s)
    assert modeled.seconds > 20 * step_s + 2869 + 232  # compilation and programming, rows O05 and O02
    assert modeled.energy_j == pytest.approx(23_000 * modeled.seconds)
    assert (modeled.compile_s, modeled.peak_memory_bytes) == (None, None)
    assert (modeled.validation_loss, modeled.train_loss) == (measured.validation_loss, measured.train_loss)
    assert modeled.metered_flops == measured.metered_flops > 0


def test_its_loss_csv_has_the_losses_of_the_cpu_and_no_times(pretrained):
    times = ("tokens_per_s", "seconds")
    assert loss_rows(pretrained["cs2"], *times) == loss_rows(pretrained["cpu"], *times)
    assert {row[key] for row in loss_rows(pretrained["cs2"]) for key in times} == {None}
    assert None not in {row["seconds"] for row in loss_rows(pretrained["cpu"])}


def test_fine_tuning_and_evaluation_on_a_modeled_device_have_the_cpus_bits_and_none_of_its_times(tmp_path):
    test_finetune.write_rows(tmp_path / "data" / "toy")
    tiny.token_folder(tmp_path / "tokens")
    task = test_finetune.TASK | {"test_split": "validation"}
    spec, results = test_finetune.spec(task), {}
    for hardware in (tiny.CPU, CS2):
        out, cost = tmp_path / hardware.name, job_cost if hardware.timing == "modeled" else None
        there = {"data": tmp_path / "data", "hardware": hardware}
        finetune(tiny.job(spec, out, tmp_path / "tokens", cost=cost, **there))
        scored = {"task": task, "checkpoint_stage": "finetune"}
        evaluate(tiny.job(scored, out / "scores", upstream={"finetune": out}, **there))
        results[hardware.name] = (
            asdict(records.read_run(out / "run.json")),
            records.read_scores(out / "scores/scores.json"),
        )
    for name in (*WEIGHTS, "scores/samples.jsonl"):
        assert (tmp_path / "cs2" / name).read_bytes() == (tmp_path / "cpu" / name).read_bytes(), name
    (modeled, scores), (measured, _) = results["cs2"], results["cpu"]
    shortest_s = wafer_training.training_step(of_model(tiny.ONE_LAYER), CS2, 8, 1).parts_s["pass_latency"]
    assert modeled["timing"] == "modeled" and modeled["seconds"] > 3000 > measured["seconds"]
    assert modeled["tokens_per_s"] < modeled["tokens"] / modeled["steps"] / shortest_s
    assert scores.seconds is None
    assert all(row["seconds"] is None for row in loss_rows(tmp_path / "cs2"))


def test_a_job_is_its_steps_and_what_it_takes_before_and_after():
    one, both = (job_cost(tiny.ONE_LAYER, CS2, batches, 1) for batches in ({(4, 20): 10}, {(4, 20): 10, (4, 12): 5}))
    of_steps = 1 / both["tokens_per_s"] - 1 / one["tokens_per_s"]
    assert both["seconds"] - one["seconds"] == pytest.approx(of_steps, rel=1e-6)
    alone = job_cost(tiny.ONE_LAYER, ANDROMEDA, {(3, 20): 10}, 1)  # three systems get a sequence each
    assert alone["tokens_per_s"] == pytest.approx(
        1 / 10 / wafer_training.training_step(of_model(tiny.ONE_LAYER), CS2, 1, 3).step_s)  # fmt: skip
    assert alone["energy_j"] == pytest.approx(alone["seconds"] * 16 * 23_000)


def test_the_record_is_one_json_object_without_nan(pretrained, tmp_path):
    metered(pretrained["cpu"], tmp_path / "run")
    json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=lambda name: pytest.fail(name))
