"""The verb `forecast`: what one model takes on one hardware profile, from the cost model alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from cgpt import bounds
from cgpt.bounds import Fraction, Positive
from cgpt.cost import gpu, shapes, wafer_inference
from cgpt.cost.job import job_overhead_s, processor_step, training_step
from cgpt.cost.shapes import Shape
from cgpt.cost.step import Step
from cgpt.errors import UserError, did_you_mean
from cgpt.files.layers import file_of
from cgpt.hardware import Hardware
from cgpt.spec import Model

SECONDS_PER_DAY, JOULES_PER_KWH = 86_400, 3.6e6


@dataclass(frozen=True)
class Request:
    """A question to `forecast`; `task` is training, decode or prefill. None: not given.

    `batch_sequences`, of all systems together, is the batch of training where `batch_per_system` is not given.
    """

    model: str | None
    shape: str | None
    hardware: str
    task: str = "training"
    systems: Annotated[int, Positive(10**6)] | None = None
    batch_per_system: Annotated[int, Positive(10**9)] | None = None
    tokens: Annotated[float, Positive()] | None = None
    sparsity: Annotated[float, Fraction()] | None = None
    context: Annotated[int, Positive(10**9)] | None = None
    grid: Annotated[int, Positive(10**6)] | None = None
    vocab_size: Annotated[int, Positive(10**9)] | None = None
    batch_sequences: int | None = None


def forecast(asked: Request, models: Mapping[str, Model], profiles: Mapping[str, Hardware]) -> dict[str, Any]:
    """The answer as a flat mapping, seconds and joules of all systems together; raises UserError."""
    refuse(asked, profiles)
    hardware, shape = profiles[asked.hardware], shape_of(asked, models)
    systems = asked.systems or hardware.systems
    batch = asked.batch_per_system
    if asked.task == "training" and batch is None:
        assert asked.batch_sequences
        batch = max(1, round(asked.batch_sequences / systems))
    step = _step(asked, shape, hardware, systems, batch)
    answer: dict[str, Any] = {
        "model": asked.model or asked.shape, "hardware": hardware.name, "task": asked.task,
        "timing": "modeled", "systems": systems, "batch_per_system": batch,
        "batch_sequences": batch * systems if batch else None,
        "n_parameters": shape.n_parameters, "vocab_size": shape.vocab_size,
        "step_s": step.step_s, "samples_per_s": step.samples_per_s, "tokens_per_s": step.tokens_per_s,
        "utilisation": _utilisation(step, hardware, systems), "model_flops": step.model_flops,
        "energy_j_per_token": _energy_j(step, hardware, systems), "bound_by": step.bound_by,
        "in_memory": step.problem is None if step.memory_bytes else None,  # None: no profile says how much there is
        "problem": step.problem, "extrapolated": step.extrapolated,
        "parts_s": step.parts_s, "memory_bytes": step.memory_bytes, "layout": step.layout,
    }  # fmt: skip
    return answer | (_run(asked.tokens, step, shape, hardware, systems) if asked.tokens else {})


def refuse(asked: Request, profiles: Mapping[str, Hardware]) -> None:
    """Raise UserError with every problem of the arguments that can be told before the model is known."""
    problems = []
    if (asked.model is None) == (asked.shape is None):
        problems.append("forecast: give exactly one of --model <a row of models.yaml> and --shape n_layer=...,...")
    if asked.shape and asked.vocab_size:
        problems.append("--vocab-size: stands beside --shape, which says it; leave it out")
    problems += [f"--{str(keys[0]).replace('_', '-')}: {problem}" for keys, problem in bounds.problems(Request, asked)]
    profile = profiles.get(asked.hardware)
    if profile is None:
        problems.append(f"--hardware: there is no hardware profile '{asked.hardware}'; "
                        f"{did_you_mean(asked.hardware, profiles)}")  # fmt: skip
    else:
        problems += _refuse_for(asked, profile)
    if problems:
        raise UserError(*problems)


def _refuse_for(asked: Request, profile: Hardware) -> list[str]:
    """Problems of arguments that this profile has no answer to."""
    where, problems = file_of("hardware", profile.name), []
    if not profile.wafer and not profile.gpu:
        if profile.sustained_flops_per_s is None:
            problems.append(f"{where}: has no `wafer`, no `gpu` and no `sustained_flops_per_s`, and a forecast needs "
                            "one; write one, or take another profile")  # fmt: skip
        if asked.task == "decode" and profile.bandwidth_bytes_per_s is None:
            problems.append(f"{where}: bandwidth_bytes_per_s: is missing, and --decode needs it; write the memory's")
        if (asked.systems or 1) > 1:
            problems.append(f"--systems: {profile.name} is one machine, not {asked.systems}; leave it out")
    if not profile.wafer:
        for key in ("grid", "sparsity"):
            if getattr(asked, key) is not None:
                problems.append(f"--{key}: {profile.name} is no wafer; leave it out, or take a profile such as cs2")
        return problems
    if asked.systems and asked.systems > profile.wafer.max_systems:
        problems.append(f"--systems: a cluster has at most {profile.wafer.max_systems} of these, not {asked.systems}; "
                        "write fewer")  # fmt: skip
    if asked.grid and asked.grid > profile.wafer.mesh_side:
        problems.append(f"--grid: the wafer is {profile.wafer.mesh_side} cores wide, not {asked.grid}; write fewer")
    return problems


def shape_of(asked: Request, models: Mapping[str, Model]) -> Shape:
    """The shape that is asked for, with the vocabulary that is; raises UserError where there is no such model."""
    if asked.shape is not None:
        return shapes.parse(asked.shape)
    assert asked.model is not None
    if asked.model not in models:
        raise UserError(f"--model: there is no model '{asked.model}'; {did_you_mean(asked.model, models)}")
    row = models[asked.model]
    if asked.context and asked.context > row.seq_len:
        raise UserError(f"--context: {asked.context:,} is more than the {row.seq_len:,} positions that {asked.model} "
                        "has; write fewer")  # fmt: skip
    return shapes.of_model(replace(row, vocab_size=asked.vocab_size) if asked.vocab_size else row)


def _step(asked: Request, shape: Shape, hardware: Hardware, systems: int, batch: int | None) -> Step:
    context = asked.context or shape.seq_len
    if asked.task == "decode":
        if hardware.wafer:
            return wafer_inference.decode(shape, hardware, context, asked.grid, systems)
        return gpu.decode(shape, hardware, context, systems) if hardware.gpu else _processor_decode(
            shape, hardware, context)  # fmt: skip
    if asked.task == "prefill":
        if hardware.wafer:
            return wafer_inference.prefill(shape, hardware, asked.grid, systems)
        return gpu.prefill(shape, hardware, systems) if hardware.gpu else processor_step(
            hardware, 1, shape.seq_len, shape.training_flops_per_token / 3)  # fmt: skip
    assert batch is not None
    return training_step(shape, hardware, batch, systems, asked.sparsity or 0.0)


def _processor_decode(shape: Shape, hardware: Hardware, context: int) -> Step:
    """One token: all 32-bit weights and the cache are read from memory once, or multiplied, whichever takes longer."""
    read = 4.0 * (shape.matmul_weights + shape.n_layer * shape.cached_values(context))
    flops = shape.forward_flops(1, context)
    assert hardware.bandwidth_bytes_per_s and hardware.sustained_flops_per_s
    read_s, compute_s = read / hardware.bandwidth_bytes_per_s, flops / hardware.sustained_flops_per_s
    parts = {"compute": compute_s, "memory_bandwidth": max(0.0, read_s - compute_s)}
    return Step(1, 1, flops, parts, "memory_bandwidth" if read_s > compute_s else "compute", True)


def _utilisation(step: Step, hardware: Hardware, systems: int) -> float | None:
    """Model FLOPs (6 N + 12 L S d a token in training, nothing recomputed) over the dense peak."""
    precision = hardware.wafer.precision if hardware.wafer else hardware.dtype
    peak = hardware.peak_flops_per_s.get(precision)
    return step.model_flops / (step.step_s * systems * peak) if step.step_s and peak else None


def _energy_j(step: Step, hardware: Hardware, systems: int) -> float | None:
    """Joules a token: nameplate power of all systems for as long as it takes."""
    return hardware.power_w * systems * step.step_s / step.tokens if step.step_s and hardware.power_w else None


def _run(tokens: float, step: Step, shape: Shape, hardware: Hardware, systems: int) -> dict[str, Any]:
    """A whole run of `tokens`: its steps, and what a job takes before, and to write the last checkpoint. Days, energy
    and price are of both."""
    overhead_s = job_overhead_s(shape, hardware)
    steps_s = None if step.tokens_per_s is None else tokens / step.tokens_per_s
    seconds = None if steps_s is None else steps_s + overhead_s
    watts = None if hardware.power_w is None else hardware.power_w * systems
    hours = None if seconds is None else seconds / 3600
    price = hardware.price_per_hour_usd
    return {
        "tokens": tokens,
        "steps": tokens / step.tokens,
        "steps_s": steps_s,
        "job_overhead_s": overhead_s,
        "days": None if seconds is None else seconds / SECONDS_PER_DAY,
        "energy_kwh": None if seconds is None or watts is None else watts * seconds / JOULES_PER_KWH,
        "price_usd": None if hours is None or price is None else hours * price * systems,
    }
