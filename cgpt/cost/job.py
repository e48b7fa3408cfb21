"""Training on a modeled machine: one step, and a whole job with its seconds before and after the steps."""

from collections.abc import Mapping
from dataclasses import replace

from cgpt.cost import gpu, wafer_training
from cgpt.cost.shapes import Shape, of_model
from cgpt.cost.step import Step
from cgpt.hardware import Hardware
from cgpt.spec import Model


def training_step(shape: Shape, hardware: Hardware, batch_per_system: float, systems: int, sparsity: float = 0.0
                  ) -> Step:  # fmt: skip
    """One optimizer step of `batch_per_system` sequences on each of `systems` of a profile's machines."""
    if hardware.wafer:
        return wafer_training.training_step(shape, hardware, batch_per_system, systems, sparsity=sparsity)
    if hardware.gpu:
        return gpu.training_step(shape, hardware, batch_per_system, systems)
    return processor_step(hardware, batch_per_system, batch_per_system * shape.seq_len, shape.training_flops_per_token)


def processor_step(hardware: Hardware, samples: float, tokens: float, flops_per_token: float) -> Step:
    """At the rate that the profile's processor was measured to sustain in training: one, for models of every size."""
    flops = flops_per_token * tokens
    assert hardware.sustained_flops_per_s
    return Step(samples, tokens, flops, {"compute": flops / hardware.sustained_flops_per_s}, "compute", True)


def job_overhead_s(shape: Shape, hardware: Hardware) -> float:
    """Compilation, programming, sending weights and optimizer state, one checkpoint; 0 where no profile says."""
    if not hardware.wafer:
        return 0.0
    state = wafer_training.STATE_BYTES_PER_WEIGHT * shape.n_parameters
    rates = (hardware.wafer.weight_send_bytes_per_s, hardware.wafer.checkpoint_bytes_per_s)
    fixed = (hardware.wafer.compile_s or 0.0) + (hardware.wafer.programming_s or 0.0)
    return fixed + sum(state / rate for rate in rates if rate)


def job_cost(model: Model, hardware: Hardware, batches: Mapping[tuple[int, int], int], n_tokens: int
             ) -> dict[str, float | None]:  # fmt: skip
    """seconds and energy_j of a job, and tokens_per_s of its steps; all None where the cost model has no answer.

    `batches`: number of steps by sequences and by tokens in each. A batch is shared by as many of the profile's systems
    as divide it; all of them draw power. Raises UserError where the vocabulary is left to the tokenizer.
    """
    shape, steps_s = of_model(model), 0.0
    for (n_sequences, length), n_steps in batches.items():
        systems = max(n for n in range(1, hardware.systems + 1) if n_sequences % n == 0)
        step = training_step(replace(shape, seq_len=length), hardware, n_sequences / systems, systems)
        if step.step_s is None:
            return {"seconds": None, "tokens_per_s": None, "energy_j": None}
        steps_s += n_steps * step.step_s
    seconds = steps_s + job_overhead_s(shape, hardware)
    energy_j = None if hardware.power_w is None else hardware.power_w * hardware.systems * seconds
    return {"seconds": seconds, "tokens_per_s": n_tokens / steps_s, "energy_j": energy_j}
