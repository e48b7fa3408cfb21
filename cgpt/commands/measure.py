"""The verb `measure`: how fast this machine trains a small and a middle model, so that a plan's minutes are its own."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import load, rates
from cgpt.hardware import Hardware
from cgpt.host import cpu_model, granted_cores
from cgpt.kernels import backend
from cgpt.spec import Model

# Two models and their sequences a step, as small and as large as what a processor trains within an hour or a day.
SIZES = (
    (Model("small", n_layer=2, d_model=64, n_head=2, seq_len=128, vocab_size=512), 32),
    (Model("middle", n_layer=4, d_model=256, n_head=4, seq_len=256, vocab_size=8192), 8),
)
LEAST_STEPS = 3
# Generates texts to measure how fast weights are read: 140 MB, more than a processor keeps near itself.
READING, READ_TOKENS = Model("reading", n_layer=4, d_model=768, n_head=12, seq_len=128, vocab_size=8192), 16


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line."""
    verb = add_verb("measure", measure, "measure how fast this machine trains, for plan's minutes", group="start",
                    example="--hardware cpu --threads 1")  # fmt: skip
    verb.add_argument("--hardware", default="cpu", help="a file of hardware_profiles")
    verb.add_argument("--threads", type=int, help="default: the hardware profile's")
    verb.add_argument("--seconds", type=float, default=3.0, help="how long each of the two models is trained, roughly")


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Train each model for a few seconds and keep its rate; the rates as a mapping, and as text. Raises UserError."""
    profiles = load.read_workflow(Path.cwd()).hardware
    if arguments.hardware not in profiles:
        raise UserError(f"--hardware: there is no hardware profile '{arguments.hardware}'; "
                        f"{did_you_mean(arguments.hardware, profiles)}")  # fmt: skip
    hardware = profiles[arguments.hardware]
    if hardware.timing == "modeled":
        raise UserError(f"--hardware: {hardware.name} is modeled, and nothing can be measured on it; run "
                        f"`cgpt forecast --hardware {hardware.name}`")  # fmt: skip
    if not 0 < arguments.seconds < 1e5:
        raise UserError(f"--seconds: must be greater than 0 and below 100,000, not {arguments.seconds}; write e.g. 2")
    backend.open_devices(hardware)
    threads = arguments.threads or hardware.resources.threads
    measured = [training_rate(config, batch_size, hardware, threads, arguments.seconds) for config, batch_size in SIZES]
    starts = _start_s([first_step_s for _, first_step_s in measured])
    usual = threads <= granted_cores()  # more threads than cores start late, and a start is kept for any number
    kept = rates.keep(rates.Measured(tuple(one for one, _ in measured), starts if usual else {}))
    lines = [f"{config.name:8} {rate.flops_per_s:.3g} FLOP/s, {rate.flops_per_s / rate.flops_per_token:,.0f} tokens/s"
             for (config, _), (rate, _) in zip(SIZES, measured)]  # fmt: skip
    lines += [f"{stage:8} starts in {seconds:.1f} s" for stage, seconds in starts.items()]
    if not usual:
        lines.append(f"these starts are not kept: {threads} threads are more than the {granted_cores()} cores")
    n_threads = f"{threads} thread{'s' if threads > 1 else ''}"
    result = {"cpu": cpu_model(), "hardware": hardware.name, "threads": threads, "file": str(kept),
             "flops_per_s": {config.name: one.flops_per_s for (config, _), (one, _) in zip(SIZES, measured)},
             "start_s": starts}  # fmt: skip
    return result, "\n".join([f"{cpu_model()}, {hardware.name}, {n_threads}", *lines, f"kept in {kept}"])


def training_rate(config: Model, batch_size: int, hardware: Hardware, threads: int, seconds: float
                  ) -> tuple[rates.Rate, float | None]:  # fmt: skip
    """Of steps without what the first ones take to compile and capture; and how old the process was after the first."""
    from cgpt.bench.benchmarks import Pretraining, Setup
    from cgpt.bench.measure import WARMUP_STEPS
    from cgpt.recipe import flops

    with tempfile.TemporaryDirectory(prefix="cgpt-measure-") as folder:
        steps = Pretraining(Setup(config, hardware, threads), batch_size, Path(folder)).steps
        steps.run(WARMUP_STEPS)
        steps.run(max(LEAST_STEPS, round(seconds / steps.run(1))))
    per_token = flops.flops_per_token(config, "palm")
    return rates.Rate(hardware.device, hardware.kernels, hardware.dtype, threads, per_token,
                      per_token * steps.tokens_per_step / steps.step_s), steps.first_step_s  # fmt: skip


def reading_rate(hardware: Hardware, threads: int) -> float:
    """Bytes of weights that this machine reads a second while it generates one text, which reads all for each token."""
    from cgpt.bench.benchmarks import Generation, Setup
    from cgpt.bench.measure import WARMUP_STEPS
    from cgpt.recipe import flops

    steps = Generation(Setup(READING, hardware, threads), batch_size=1, max_new_tokens=READ_TOKENS).steps
    steps.run(WARMUP_STEPS + LEAST_STEPS)
    return 4 * flops.n_parameters(READING) * READ_TOKENS / steps.step_s


def _start_s(ages: list[float | None]) -> dict[str, float]:
    """By stage, the seconds before a job's first step: of this process, and for tasks also to import lm-eval."""
    first = ages[0] or 0.0
    before = time.perf_counter()
    import lm_eval.evaluator  # noqa: F401

    on_tasks = first + time.perf_counter() - before
    return {"pretrain": first, "finetune": on_tasks, "evaluate": on_tasks}
