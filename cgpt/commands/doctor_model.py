"""`doctor --model`: whether this machine's memory is enough for a model, and how long a document takes."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cgpt.commands import measure
from cgpt.data.checkpoint_files import fetch_config, source_of
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import load, rates
from cgpt.experiment.uses import SAMPLES, Rates, Use, uses_of
from cgpt.formats import amount, count, duration
from cgpt.hardware import Hardware
from cgpt.host import cpu_model, memory_bytes
from cgpt.kernels import backend
from cgpt.recipe import flops
from cgpt.spec import Data, Model

PROFILE = "cpu"
MEASURED_S = 1.0
VOCABULARY = Data(corpus=()).vocab_size  # of a row that leaves it to the tokenizer


def examine_model(name: str) -> tuple[dict[str, Any], str]:
    """The uses of a row of models.yaml and what they take here, as a mapping and as lines. Raises UserError.

    A published row's config.json is fetched where it is not here.
    """
    workflow, model = _read(name)
    row, hardware = workflow.published.get(name), workflow.hardware[PROFILE]
    others = [_with_vocabulary(other) for other_name, other in workflow.models.items()
              if (other_name in workflow.published) == (row is not None)]  # fmt: skip
    has_bytes, model = memory_bytes(), _with_vocabulary(model)
    measured, source = _rates(hardware, flops.flops_per_token(model))
    uses = uses_of(model, row is not None, hardware, has_bytes, measured, others)
    facts = {
        "model": name, "source": source_of(row.checkpoint) if row else None, "n_parameters": flops.n_parameters(model),
        "vocab_size": model.vocab_size, "seq_len": model.seq_len, "cpu": cpu_model(), "hardware": hardware.name,
        "threads": hardware.resources.threads, "memory_bytes": has_bytes, "rate": asdict(measured) | {"source": source},
        "uses": {use.name: asdict(use) | {"in_memory": use.in_memory} for use in uses},
    }  # fmt: skip
    return facts, "\n".join([*_head(facts), *map(_line, uses)])


def _read(name: str) -> tuple[load.Workflow, Model]:
    workflow = load.read_workflow(Path.cwd())
    if name not in workflow.models:
        raise UserError(f"--model: '{name}' is no row of models.yaml; {did_you_mean(name, workflow.models)}")
    row = workflow.published.get(name)
    if row and name in workflow.models.absent and (row.checkpoint.hub is None or row.checkpoint.revision):
        fetch_config(row, workflow.root)
        workflow = load.read_workflow(Path.cwd())
    return workflow, workflow.models[name]


def _with_vocabulary(model: Model) -> Model:
    return replace(model, vocab_size=model.vocab_size or VOCABULARY)


def _rates(hardware: Hardware, per_token: float) -> tuple[Rates, str]:
    """This machine's rates, and where that of training comes from. A second's rate is not kept: plans want a better."""
    threads = hardware.resources.threads
    backend.open_devices(hardware)
    training, source = rates.flops_per_s(rates.read().rates, hardware, threads, per_token), "kept by `cgpt measure`"
    if training is None:
        rate, _ = measure.training_rate(*measure.SIZES[1], hardware, threads, MEASURED_S)
        training, source = rate.flops_per_s, "measured now for a second; `cgpt measure` measures longer and keeps it"
    return Rates(training, measure.reading_rate(hardware, threads)), source


def _head(facts: dict[str, Any]) -> list[str]:
    rate, where = facts["rate"], f", {facts['source']}" if facts["source"] else ""
    has = f"{facts['memory_bytes'] / 2**30:.1f} GiB for this process" if facts["memory_bytes"] else "not known"
    return [
        f"model       {facts['model']}{where}: {count(facts['n_parameters'])} parameters, vocabulary "
        f"{count(facts['vocab_size'])}, context {count(facts['seq_len'])}",
        f"processor   {facts['cpu']}, {facts['threads']} threads of {facts['hardware']}",
        f"memory      {has}",
        f"training    {rate['flops_per_s']:.3g} FLOP/s, {rate['source']}",
        f"reading     {amount(rate['weights_bytes_per_s'] / 1e9)} GB/s of weights to generate a text, measured now",
    ]


def _line(use: Use) -> str:
    """A use in one line: whether it is held, and then how long it takes, else what to do."""
    size = f" in steps of {use.batch_size}" if use.batch_size else ""
    size = f" for {SAMPLES} texts at once" if use.name == "generation" else size
    needs, has = f"{use.needs_bytes / 2**30:.1f} GiB{size}", f"{(use.has_bytes or 0) / 2**30:.1f} GiB"
    if not use.in_memory:
        return f"{use.name:11} not in memory: takes {needs}, and there are {has}; {use.instead}"
    takes = f"; about {duration(use.seconds_per_document)} for {use.document}" if use.seconds_per_document else ""
    return f"{use.name:11} in memory: takes {needs}{takes}"
