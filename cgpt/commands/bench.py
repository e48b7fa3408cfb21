"""The verb `bench`: runs one benchmark, and returns its measurements."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import load
from cgpt.hardware import Hardware, uneven
from cgpt.host import check_threads, memory_bytes
from cgpt.kernels import backend
from cgpt.recipe import flops
from cgpt.spec import Model

VOCAB_SIZE = 8192  # where the model's row leaves it to the tokenizer
MOST_DIGITS = 9
LONGEST_BURST_S = 100_000
MODEL = "bench-7m"
BATCH_SIZE, MAX_NEW_TOKENS, N_BYTES = 8, 128, 8_000_000
WHOLE_NUMBERS = ("batch_size", "seq_len", "n_layer", "threads", "steps", "n_requests", "max_new_tokens", "n_bytes")


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line; numbers are checked in `bench`, so that each problem is one line."""
    verb = add_verb("bench", bench, "time pretraining, evaluation, generation or tokenization", group="others",
                    example="pretrain --model bench-2m --steps 30")  # fmt: skip
    verb.add_argument("benchmark", choices=("pretrain", "evaluate", "generate", "tokenize"), help="the work to time")
    verb.add_argument("--model", default=MODEL, help="a row of workflows/models.yaml")
    verb.add_argument("--hardware", default="cpu", help="a file of hardware_profiles")
    verb.add_argument("--checkpoint", type=Path, help="a model with its weights, instead of a row's initial ones")
    verb.add_argument("--batch-size", default=str(BATCH_SIZE), help="pretrain, generate: sequences at once")
    verb.add_argument("--seq-len", help="another length than the model's row says")
    verb.add_argument("--n-layer", help="another number of layers than the model's row says")
    verb.add_argument("--threads", help="default: the hardware profile's")
    verb.add_argument("--steps", default="10", help="steps to time, after the warm-up")
    verb.add_argument("--n-requests", default="256", help="evaluate: log-likelihoods in a step")
    verb.add_argument("--max-new-tokens", default=str(MAX_NEW_TOKENS), help="generate: tokens after each prompt")
    verb.add_argument("--n-bytes", default=str(N_BYTES), help="tokenize: bytes of text")
    verb.add_argument("--out", type=Path, help="evaluate: a JSON file for the log-likelihoods")
    verb.add_argument("--bursts", action="store_true", help="take turns: steps for each line `run` until `end`")
    verb.add_argument("--burst-s", type=float, default=3.0, help="seconds that a burst lasts, roughly")


def bench(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Run a benchmark; its measurements as a mapping and as one line a number. Raises UserError."""
    from cgpt.bench.measure import WARMUP_STEPS

    _read_numbers(arguments)
    workflow = load.read_workflow(Path.cwd())
    hardware = _named(arguments.hardware, workflow.hardware, "hardware_profiles", "hardware profile")
    if arguments.benchmark == "pretrain" and (problem := uneven(arguments.batch_size, hardware)):
        raise UserError(f"bench: --batch-size: {problem}")
    if arguments.benchmark != "tokenize":
        backend.open_devices(hardware)
    arguments.threads = arguments.threads or hardware.resources.threads
    with tempfile.TemporaryDirectory(prefix="cgpt-bench-") as folder:
        benchmark = _set_up(arguments, workflow.models, hardware, Path(folder))
        if arguments.bursts:
            arguments.json = True
            benchmark.steps.answer_bursts(arguments.burst_s)
            if not benchmark.steps.seconds:
                raise UserError("bench: --bursts: standard input has no line `run`; write one a burst, then `end`")
        else:
            benchmark.steps.run(WARMUP_STEPS + arguments.steps)
        measured = benchmark.steps.result()  # before `result`, which does more steps
        record = {"benchmark": arguments.benchmark, "threads": arguments.threads} | measured | benchmark.result()
    return record, _as_text(record)


def _read_numbers(arguments: argparse.Namespace) -> None:
    problems = []
    for key in WHOLE_NUMBERS:
        text = getattr(arguments, key)
        if text is None:
            continue
        if not text.isdecimal() or len(text) > MOST_DIGITS or not int(text):
            problems.append(f"bench: --{key.replace('_', '-')}: must be a whole number above 0, not '{text}'; "
                            "write e.g. 8")  # fmt: skip
        else:
            setattr(arguments, key, int(text))
    if not 0 <= arguments.burst_s < LONGEST_BURST_S:
        problems.append(f"bench: --burst-s: must be from 0 to below {LONGEST_BURST_S:,}, not "
                        f"{arguments.burst_s}; write e.g. 3")  # fmt: skip
    if problems:
        raise UserError(*problems)
    if arguments.threads:
        check_threads(arguments.threads)


def _named(name: str, known: dict[str, Any], file: str, kind: str) -> Any:
    if name not in known:
        raise UserError(f"{file}: there is no {kind} '{name}'; {did_you_mean(name, known)}")
    return known[name]


def _config(arguments: argparse.Namespace, models: dict[str, Model]) -> Model:
    """The checkpoint's, or the row of models.yaml with what the command line says otherwise."""
    if arguments.checkpoint:
        from cgpt.checkpoint.folder import read_config

        return read_config(arguments.checkpoint)
    row = _named(arguments.model, models, "workflows/models.yaml", "model")
    return replace(
        row,
        n_layer=arguments.n_layer or row.n_layer,
        seq_len=arguments.seq_len or row.seq_len,
        vocab_size=row.vocab_size or VOCAB_SIZE,
    )


def _set_up(arguments: argparse.Namespace, models: dict[str, Model], hardware: Hardware, folder: Path) -> Any:
    from cgpt.bench.benchmarks import Evaluation, Generation, Pretraining, Setup, Tokenization

    if arguments.benchmark == "tokenize":
        return Tokenization(arguments.n_bytes, arguments.threads, folder)
    setup = Setup(_config(arguments, models), hardware, arguments.threads, arguments.checkpoint)
    weights_bytes, available_bytes = 4 * flops.n_parameters(setup.config), memory_bytes()
    if available_bytes and weights_bytes > available_bytes:
        raise UserError(f"bench: the model's weights take {weights_bytes / 2**30:,.0f} GiB, and the machine has "
                        f"{available_bytes / 2**30:,.0f}; write a smaller model, --n-layer or --seq-len")  # fmt: skip
    if arguments.benchmark == "pretrain":
        return Pretraining(setup, arguments.batch_size, folder)
    if arguments.benchmark == "evaluate":
        return Evaluation(setup, arguments.n_requests, arguments.out)
    return Generation(setup, arguments.batch_size, arguments.max_new_tokens)


def _as_text(record: dict[str, Any]) -> str:
    """One line for each number; losses and tokens, which are many, in --json alone."""
    shown = {key: value for key, value in record.items() if not isinstance(value, list)}
    return "\n".join(f"{key:20} {value:,.4g}" if isinstance(value, float) else f"{key:20} {value}"
                     for key, value in shown.items())  # fmt: skip
