"""Seconds from the start of a process to the end of its first optimizer step: empty and warm caches, 4 and 12 layers.

Caches are those of compiled code, ours and the peers'; what the operating system keeps of files in memory is left.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from columns import STARTUP
from sides import OURS, Elsewhere, made_by, ours, peer, run_alone

from cgpt.bench import inputs
from cgpt.commands.bench import BATCH_SIZE, MODEL
from cgpt.experiment import load
from cgpt.files.csv_file import write_csv
from cgpt.host import granted_cores

EMPTY, WARM = "empty", "warm"
TARGETS_S = {EMPTY: 15.0, WARM: 3.0}  # of our own, with the model's own number of layers
MORE_LAYERS = 12
MOST_FOR_MORE_LAYERS = 1.5  # times the seconds of the model as it is


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--model", default=MODEL, help="a row of workflows/models.yaml with its vocab_size")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--threads", type=int, default=granted_cores())
    parser.add_argument("--warm-repeats", type=int, default=3)
    arguments = parser.parse_args()
    config = load.read_workflow(Path.cwd()).models[arguments.model]
    shared = ["--threads", arguments.threads, "--batch-size", arguments.batch_size, "--steps", 1]
    elsewhere, measured = Elsewhere(), []
    for n_layer in (config.n_layer, MORE_LAYERS):
        resized = replace(config, n_layer=n_layer)
        command = ours("pretrain", *shared, "--model", arguments.model, "--n-layer", n_layer)
        measured += first_steps(OURS, n_layer, command, arguments.warm_repeats)
        if n_layer == config.n_layer:
            with tempfile.TemporaryDirectory(prefix="cgpt-bench-") as folder:
                given = [*shared, "--checkpoint", inputs.write_checkpoint(Path(folder), resized)]
                measured += first_steps("PyTorch eager", n_layer, peer("pretrain", *given), arguments.warm_repeats)
                command = peer("pretrain", *given, "--compile")
                measured += first_steps("PyTorch compiled", n_layer, command, arguments.warm_repeats)
    common = {
        "model": arguments.model, "batch_size": arguments.batch_size, "threads": arguments.threads,
        "busy_elsewhere_share": elsewhere.share(), **made_by(),
    }  # fmt: skip
    write_csv(arguments.out, STARTUP, [common | row | {"target_s": target_s(row, measured)} for row in measured])


def first_steps(side: str, n_layer: int, command: Sequence[str], warm_repeats: int) -> list[dict[str, Any]]:
    """A row with caches that are new, and one with those that this left: the median of several starts."""
    with tempfile.TemporaryDirectory(prefix="cgpt-bench-") as folder:
        caches = {
            "CGPT_CACHE": f"{folder}/cgpt", "CACHEDB": f"{folder}/tinygrad.db",
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton",
        }  # fmt: skip
        cold, *warm = [run_alone(command, **caches)["first_step_s"] for _ in range(1 + warm_repeats)]
    row = {"side": side, "n_layer": n_layer}
    return [row | {"caches": EMPTY, "first_step_s": cold, "repeats": 1},
            row | {"caches": WARM, "first_step_s": statistics.median(warm), "repeats": warm_repeats}]  # fmt: skip


def target_s(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> float | None:
    """Seconds that our own side is to stay below; None of another side."""
    if row["side"] != OURS:
        return None
    as_it_is = next(other for other in rows if other["side"] == OURS and other["caches"] == row["caches"])
    return TARGETS_S[row["caches"]] if row is as_it_is else MOST_FOR_MORE_LAYERS * as_it_is["first_step_s"]


if __name__ == "__main__":
    main()
