"""The verbs that ask the cost model: `forecast`, `forecast-family` and `calibrate`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.commands.folders import KEPT, reference_folder
from cgpt.errors import UserError
from cgpt.experiment import load
from cgpt.experiment.run import RESULTS

if TYPE_CHECKING:
    from cgpt.cost.forecast import Request

GROUP = "forecasts"
ANSWER = tuple[dict[str, Any], str]
SHARED = {"hardware"}
OF_A_MODEL = SHARED | {"model", "shape", "systems", "vocab_size"}
FLAGS = {  # what has a meaning for each thing that `forecast` can be asked
    "training": OF_A_MODEL | {"batch_per_system", "tokens", "sparsity"},
    "--decode": OF_A_MODEL | {"decode", "context", "grid"},
    "--prefill": OF_A_MODEL | {"prefill", "grid"},
    "--target-loss": SHARED | {"target_loss", "budget_hours", "budget_kwh", "law", "series"},
}


def add_verbs(add_verb: Any) -> None:
    """Add the verbs to a command line."""
    verb = add_verb("forecast", forecast, "compute what a model takes on hardware profiles", group=GROUP,
                    example="--model cerebras-gpt-13b --hardware cs2 h100-8 --tokens 20B")  # fmt: skip
    verb.add_argument("--hardware", required=True, nargs="+", help="profiles of hardware_profiles/; several: a table")
    verb.add_argument("--model", help="a row of workflows/models.yaml")
    verb.add_argument("--shape", help="instead of --model: n_layer=32,d_model=4096,d_ffn=11008,gated=true,n_head=32,"
                      "vocab=32000,seq_len=2048,tied=false")  # fmt: skip
    verb.add_argument("--vocab-size", type=int, help="of the model, instead of its row's")
    verb.add_argument("--systems", type=int, help="default: the profile's")
    verb.add_argument("--batch-per-system", type=int, help="sequences; default: the model's published batch, or by the "
                      "law of Cerebras-GPT's batches, shared among the systems")  # fmt: skip
    verb.add_argument("--tokens", help="of a whole training run: 300M, 20B, 1.5e9")
    verb.add_argument("--sparsity", type=float, help="share of weights that are zero, on a wafer")
    task = verb.add_mutually_exclusive_group()
    task.add_argument("--decode", action="store_const", const=True, help="one token of one sequence, not training")
    task.add_argument("--prefill", action="store_const", const=True, help="a prompt of seq_len tokens, not training")
    verb.add_argument("--context", type=int, help="tokens cached, with --decode; default: seq_len")
    verb.add_argument("--grid", type=int, help="cores along a side of the square that decodes or prefills")
    verb.add_argument("--target-loss", type=float, help="instead of a model: the cheapest way to this loss, by a law")
    verb.add_argument("--budget-hours", type=float, help="with --target-loss: the loss that these hours buy too")
    verb.add_argument("--budget-kwh", type=float, help="with --target-loss: the loss that this energy buys too")
    verb.add_argument("--law", type=Path, help="with --target-loss: a fits.json; default: the published laws")
    verb.add_argument("--series", help="with --target-loss: of the law's file; default: its first")
    verb = add_verb("forecast-family", forecast_family, "the same for all Cerebras-GPT on every profile", group=GROUP)
    verb.add_argument("--out", type=Path, default=RESULTS / "devices" / "cerebras-gpt",
                      help="the table's path without .md and .csv")  # fmt: skip
    add_verb("calibrate", calibrate, "fit the cost model's constants to published rows", group=GROUP)


def forecast(arguments: argparse.Namespace) -> ANSWER:
    """One model on each of the profiles, or with --target-loss the cheapest training that reaches it.

    JSON of one profile is its forecast; of several, `profiles` holds them. Raises UserError.
    """
    asked = ("--target-loss" if arguments.target_loss is not None else "--decode" if arguments.decode else
             "--prefill" if arguments.prefill else "training")  # fmt: skip
    _refuse_flags(arguments, asked)
    workflow = load.read_workflow(Path.cwd())
    if asked == "--target-loss":
        return _target(arguments, workflow)
    return _of_model(arguments, asked.removeprefix("--"), workflow)


def _refuse_flags(arguments: argparse.Namespace, asked: str) -> None:
    """Refuse by name each flag that has no meaning for what is asked, and a profile that is named twice."""
    problems = []
    flags = set().union(*FLAGS.values())
    for key in sorted(flags - FLAGS[asked]):
        if getattr(arguments, key) is not None:
            flag = f"--{key.replace('_', '-')}"
            if key in FLAGS["--target-loss"]:
                problems.append(f"{flag}: has no meaning without --target-loss; write that too, or leave it out")
            elif asked == "--target-loss":
                problems.append(f"{flag}: has no meaning with --target-loss, which finds it; leave it out")
            else:
                problems.append(
                    f"{flag}: has no meaning {'for' if asked == 'training' else 'with'} {asked}; leave it out"
                )
    twice = {name for name in arguments.hardware if arguments.hardware.count(name) > 1}
    problems += [f"--hardware: {name} is named twice; remove one of the two" for name in sorted(twice)]
    if problems:
        raise UserError(*problems)


def _of_model(arguments: argparse.Namespace, task: str, workflow: load.Workflow) -> ANSWER:
    from cgpt.cost.forecast import Request, forecast, refuse
    from cgpt.formats import parse_tokens
    from cgpt.report.machines import forecast_page

    same = ("model", "shape", "systems", "batch_per_system", "sparsity", "context", "grid", "vocab_size")
    asked = Request(
        hardware="", task=task, tokens=None if arguments.tokens is None else parse_tokens(arguments.tokens),
        **{key: getattr(arguments, key) for key in same},
    )  # fmt: skip
    of_profiles = [replace(asked, hardware=name) for name in arguments.hardware]
    problems: dict[str, None] = {}
    for one in of_profiles:
        try:
            refuse(one, workflow.hardware)
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise UserError(*problems)
    sequences, source = _usual_batch(asked, workflow) if task == "training" else (None, None)
    rows = [forecast(replace(one, batch_sequences=sequences), workflow.models, workflow.hardware)
            | ({"batch_source": source} if source else {}) for one in of_profiles]  # fmt: skip
    if len(rows) == 1:
        return rows[0], forecast_page.page(rows[0])
    return {"profiles": rows}, forecast_page.table(rows)


def _usual_batch(asked: Request, workflow: load.Workflow) -> tuple[int | None, str | None]:
    """Sequences of a step, and where the number comes from; neither where the batch of a system is given."""
    from cgpt.cost import cerebras_gpt
    from cgpt.cost.batch import usual_batch
    from cgpt.cost.forecast import shape_of
    from cgpt.scaling import published

    if asked.batch_per_system:
        return None, None
    shape = shape_of(asked, workflow.models)
    try:
        runs = cerebras_gpt.read(reference_folder() / cerebras_gpt.RUNS)
        law = published.batch_tokens_law(published.read(reference_folder() / published.FAMILY))
    except UserError as error:
        raise UserError(*(f"{problem}, or write --batch-per-system" for problem in error.problems)) from None
    return usual_batch(asked.model, shape, asked.tokens, runs, law)


def _target(arguments: argparse.Namespace, workflow: load.Workflow) -> ANSWER:
    from cgpt.scaling import fitted_law as law
    from cgpt.scaling import published, target_loss

    budgets = arguments.budget_hours, arguments.budget_kwh
    asked = target_loss.Target(arguments.target_loss, tuple(arguments.hardware), *budgets)
    batch = published.batch_tokens_law(published.read(reference_folder() / published.FAMILY))
    fits = arguments.law or reference_folder() / "published_fits.json"
    answer = target_loss.target(asked, law.read(fits, arguments.series), batch, workflow.hardware)
    return answer, target_loss.as_text(answer)


def forecast_family(arguments: argparse.Namespace) -> ANSWER:
    """The training of the seven Cerebras-GPT on every profile, written to two files."""
    from cgpt.cost import cerebras_gpt
    from cgpt.report.machines.cerebras_gpt import write

    workflow = load.read_workflow(Path.cwd())
    rows = cerebras_gpt.forecast_family(
        cerebras_gpt.read(reference_folder() / cerebras_gpt.RUNS), workflow.models, workflow.hardware
    )
    write(rows, arguments.out)
    return {"rows": rows, "table": f"{arguments.out}.md"}, f"{arguments.out}.md"


def calibrate(arguments: argparse.Namespace) -> ANSWER:
    """Constants and errors of the cost model, written to results/reference."""
    from cgpt.cost import calibrate, measurements
    from cgpt.report.machines import fidelity

    rows = measurements.read(reference_folder() / "accelerator_measurements.csv")
    calibration = calibrate.calibrate(rows, load.read_workflow(Path.cwd()).hardware)
    fidelity.write(calibration, rows, KEPT)
    return fidelity.as_json(calibration), fidelity.as_text(calibration)
