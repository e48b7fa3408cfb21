"""The stage `meter`: the time and energy that a model's pretraining would have taken on a modeled machine.

Its weights are those of the run that trained it, as the modeled device computes the same bits; its kernels are counted
one by one, and the cost model gives their seconds and joules.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from cgpt import provenance
from cgpt.cost.forecast import JOULES_PER_KWH, SECONDS_PER_DAY, Request, forecast
from cgpt.csv_columns import KERNEL_COLUMNS
from cgpt.data import content
from cgpt.files.csv_file import write_csv
from cgpt.hardware import Hardware
from cgpt.jobs import Job
from cgpt.kernels import backend, work
from cgpt.model.gpt import GPT, parameter_shapes
from cgpt.records import MeterRecord, PretrainRecord, read_run, write_record
from cgpt.spec import Model
from cgpt.training.trainer import AdamW, Trainer


def meter(job: Job) -> dict[str, Any]:
    """Write kernels.csv, the work of one optimizer step, and run.json of a modeled profile; return the latter.

    The upstream stage `pretrain` trained the model. Raises UserError where the cost model has no answer.
    """
    pretrained, hardware = job.upstream["pretrain"], job.hardware
    trained, inputs = read_run(pretrained / "run.json"), content.of_checkpoint(pretrained, "pretrain")
    config, train = Model(**job.spec["model"]), job.spec["train"]
    cost = forecast(
        Request(
            model=config.name, shape=None, hardware=hardware.name, systems=hardware.systems, tokens=trained.tokens,
            batch_per_system=train["batch_size"] // hardware.systems,
        ),
        {config.name: config},
        {hardware.name: hardware},
    )  # fmt: skip
    path, calls = job.folder / "kernels.csv", step_work(config, train)
    write_csv(path, KERNEL_COLUMNS, work.rows(calls))
    hashes = {"inputs": inputs, "outputs": {"kernels.csv": content.sha256_of(path)}}
    training = _of_training(job.id, trained, hardware) | hashes
    record = MeterRecord(**training, **_of_cost(cost), **work.metered(calls))
    write_record(job.folder / "run.json", record)
    return asdict(record)


def step_work(config: Model, train: dict[str, Any]) -> work.Calls:
    """Calls of the kernels of one optimizer step. No weight is allocated."""
    from cgpt.kernels.tensors import without_memory

    ops = backend.prepare(backend.CPU)
    with without_memory():
        shapes = parameter_shapes(config)
        model = GPT(config, {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}, ops, "CPU")
        n_micro_batches = train["batch_size"] // (train["micro_batch_size"] or train["batch_size"])
        return Trainer(model, AdamW()).work(train["batch_size"], n_micro_batches)


def _of_training(run: str, trained: PretrainRecord, hardware: Hardware) -> dict[str, Any]:
    """The fields that are the same on either machine, and nothing that was measured on the one that trained."""
    modeled = {"seconds", "tokens_per_s", "energy_j", "metered_flops", "metered_bytes"}  # which are filled in later
    kept = {key: value for key, value in asdict(trained).items() if key not in modeled}
    changed = {"run": run, "stage": "meter", "hardware": hardware.name, "timing": "modeled", "compile_s": None,
               "peak_memory_bytes": None, "weights_from": trained.hardware}  # fmt: skip
    return kept | changed | provenance.record("stages.meter")


def _of_cost(cost: dict[str, Any]) -> dict[str, Any]:
    same = ("systems", "batch_per_system", "step_s", "parts_s", "utilisation", "energy_j_per_token", "bound_by",
            "in_memory", "extrapolated", "job_overhead_s", "price_usd", "tokens_per_s")  # fmt: skip
    seconds = None if cost["days"] is None else cost["days"] * SECONDS_PER_DAY
    energy_j = None if cost["energy_kwh"] is None else cost["energy_kwh"] * JOULES_PER_KWH
    return {key: cost[key] for key in same} | {"seconds": seconds, "energy_j": energy_j}
