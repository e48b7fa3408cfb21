"""The stage `meter`: the time and energy that a model's training would have taken on a modeled machine.

Its weights are those of the run that trained it, as the modeled device computes the same bits; its kernels are counted
one by one, and the cost model gives their seconds and joules.
"""

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from cgpt import provenance
from cgpt.cost.forecast import JOULES_PER_KWH, SECONDS_PER_DAY, Request, forecast
from cgpt.cost.job import job_cost
from cgpt.csv_columns import KERNEL_COLUMNS
from cgpt.data import content
from cgpt.errors import UserError
from cgpt.files.csv_file import write_csv
from cgpt.hardware import Hardware
from cgpt.jobs import Job
from cgpt.kernels import backend, work
from cgpt.model.gpt import GPT, parameter_shapes
from cgpt.records import FinetuneRecord, MeterRecord, PretrainRecord, read_run, write_record
from cgpt.spec import Model
from cgpt.training.trainer import AdamW, Trainer

SECONDS_PER_HOUR = 3600.0
OF_FINETUNING = {f.name for f in fields(FinetuneRecord)} - {f.name for f in fields(PretrainRecord)}


def meter(job: Job) -> dict[str, Any]:
    """Write kernels.csv, the work of one optimizer step, and run.json of a modeled profile; return the latter.

    The upstream stage, `pretrain` or `finetune`, trained the model. Raises UserError where the cost model has no
    answer.
    """
    ((stage, folder),) = job.upstream.items()
    trained, inputs = read_run(folder / "run.json"), content.of_checkpoint(folder, stage)
    config, hardware = Model(**job.spec["model"]), job.hardware
    if isinstance(trained, FinetuneRecord):
        cost, work_of_step = _cost_of_finetuning(config, trained, hardware)
    else:
        train = job.spec["train"]
        cost = _cost(config, hardware, train["batch_size"], trained.tokens)
        work_of_step = step_work(config, train)
    path = job.folder / "kernels.csv"
    write_csv(path, KERNEL_COLUMNS, work.rows(work_of_step))
    hashes = {"inputs": inputs, "outputs": {"kernels.csv": content.sha256_of(path)}}
    record = MeterRecord(**_of_training(job.id, trained, hardware) | hashes, **cost, **work.metered(work_of_step))
    write_record(job.folder / "run.json", record)
    return asdict(record)


def _cost(config: Model, hardware: Hardware, batch_size: int, tokens: int) -> dict[str, Any]:
    """The fields of a record that the cost model gives a training with this batch of full-length sequences."""
    systems = max(n for n in range(1, hardware.systems + 1) if batch_size % n == 0)
    asked = Request(
        model=config.name, shape=None, hardware=hardware.name, systems=systems, tokens=tokens,
        batch_per_system=batch_size // systems,
    )  # fmt: skip
    return _of_cost(forecast(asked, {config.name: config}, {hardware.name: hardware}))


def _cost_of_finetuning(
    config: Model, trained: FinetuneRecord, hardware: Hardware
) -> tuple[dict[str, Any], work.Calls]:
    """The same of a fine-tuning, and the work of a step: those of the commonest shape of its batches, and the time,
    energy and price of all of them. Tokens are those of examples, without what they are padded with."""
    if not trained.batches:
        raise UserError(f"{trained.run}: batches: are not in its record; run `cgpt finetune {trained.run}` again")
    batches = {(n_sequences, length): n_steps for n_sequences, length, n_steps in trained.batches}
    n_sequences, length = max(batches, key=lambda shape: (batches[shape], shape))
    cost = _cost(replace(config, seq_len=length), hardware, n_sequences, trained.tokens)
    whole = job_cost(config, hardware, batches, trained.tokens)
    price = hardware.price_per_hour_usd
    if whole["seconds"] is not None and price is not None:
        cost["price_usd"] = whole["seconds"] / SECONDS_PER_HOUR * price * cost["systems"]
    train = {"batch_size": n_sequences, "micro_batch_size": n_sequences}
    return cost | whole, step_work(replace(config, seq_len=length), train)


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
    modeled = {
        "seconds",
        "tokens_per_s",
        "energy_j",
        "metered_flops",
        "metered_bytes",
        *OF_FINETUNING,
    }  # or are no fields of it
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
