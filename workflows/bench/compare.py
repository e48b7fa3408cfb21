"""Compare cgpt with its peers in one benchmark: all run at once and take turns, a burst of steps each.

Writes a CSV with a row per side. Ends with a message, and writes nothing, where a peer does not compute the same.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from columns import COMPARISON, MEASURED
from sides import OUR_SIDES, OURS, OURS_INT8, Elsewhere, Side, made_by, ours, peer

from cgpt.bench import inputs
from cgpt.commands.bench import BATCH_SIZE, MAX_NEW_TOKENS, MODEL, N_BYTES
from cgpt.errors import did_you_mean
from cgpt.experiment import load
from cgpt.files.csv_file import write_csv
from cgpt.hardware import Hardware
from cgpt.host import granted_cores

PEERS: dict[str, dict[str, list[str]]] = {  # by their names in the table: a program of this folder, and its options
    "pretrain": {"PyTorch eager": ["pretrain"], "PyTorch compiled": ["pretrain", "--compile"]},
    "evaluate": {f"lm-eval, batch {n}": ["evaluate", "--batch-size", str(n)] for n in (1, 8, 32)},  # 1 is its default
    "generate": {
        "transformers": ["generate"],
        "CTranslate2": ["generate_ctranslate2"],
        "CTranslate2 int8": ["generate_ctranslate2", "--dtype", "int8"],
    },
    "tokenize": {"tokenizers": ["tokenize"]},
}
LIKE = {"CTranslate2 int8": OURS_INT8}  # which of our sides a peer is compared with, where it is not OURS
OPTIONS = ("threads", "burst_s", "batch_size", "n_requests", "max_new_tokens", "n_bytes")  # each side takes its own
TARGETS = {"pretrain": 1.2, "evaluate": 1.2, "generate": 1.5, "tokenize": 1.2}  # least ratio that is aimed at
TARGET_OF_INT8 = 1.0
# What both sides must agree in, and how far apart they may be: nats, nats, token ids, tokens.
ANSWERS = {"pretrain": "losses", "evaluate": "loglikelihoods", "generate": "tokens", "tokenize": "n_tokens"}
TOLERANCES = {"pretrain": 1e-3, "evaluate": 1e-3, "generate": 0, "tokenize": 0}
TOLERANCE_OF_BFLOAT16 = 1e-2  # nats: its products have 8 bits, and the sides do not round in the same places
TORCH_DEVICES = {"CPU": "cpu", "CUDA": "cuda", "NV": "cuda", "AMD": "cuda", "METAL": "mps"}  # by tinygrad's names
LOGLIKELIHOODS = "loglikelihoods.json"
VARIED_STD = 0.1  # of random weights that generate: at 0.02 the likeliest token of a tied head is always the last one


def main() -> None:
    arguments = read_arguments()
    hardware = profile(arguments)
    with tempfile.TemporaryDirectory(prefix="cgpt-bench-") as folder:
        elsewhere, sides = Elsewhere(), prepare(arguments, hardware, Path(folder))
        try:
            rates = alternate(sides, arguments.rounds)
            results = {side.name: side.end() for side in sides}
        finally:
            for side in sides:
                side.stop()
        if arguments.benchmark == "evaluate":
            results[OURS]["loglikelihoods"] = json.loads((Path(folder) / LOGLIKELIHOODS).read_text())
    common = {
        "benchmark": arguments.benchmark, "hardware": hardware.name, "threads": arguments.threads,
        "busy_elsewhere_share": elsewhere.share(),
        **made_by(),
    }  # fmt: skip
    write_csv(
        arguments.out, COMPARISON, [common | row for row in rows(arguments.benchmark, rates, results, hardware.dtype)]
    )


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", choices=tuple(PEERS))
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--model", default=MODEL, help="a row of workflows/models.yaml with its vocab_size")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="pretrain, generate")
    parser.add_argument("--n-requests", type=int, default=128, help="evaluate")
    parser.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS, help="generate")
    parser.add_argument("--n-bytes", type=int, default=N_BYTES, help="tokenize")
    parser.add_argument("--hardware", default="cpu", help="pretrain: a profile of hardware_profiles/")
    parser.add_argument("--peer", action="append", help="only this peer, by its name in the table; may be repeated")
    parser.add_argument("--threads", type=int, default=granted_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--burst-s", type=float, default=2.0)
    arguments = parser.parse_args()
    if arguments.benchmark != "pretrain" and arguments.hardware != "cpu":
        parser.error(f"--hardware: the peers of {arguments.benchmark} run on the processor; leave it out")
    return arguments


def profile(arguments: argparse.Namespace) -> Hardware:
    """The hardware profile that was asked for. Ends the program where there is none, or none for PyTorch."""
    profiles = load.read_workflow(Path.cwd()).hardware
    if arguments.hardware not in profiles:
        sys.exit(
            f"--hardware: there is no profile '{arguments.hardware}'; {did_you_mean(arguments.hardware, profiles)}"
        )
    hardware = profiles[arguments.hardware]
    if hardware.device.split(":")[0] not in TORCH_DEVICES:
        sys.exit(f"--hardware: PyTorch has nothing like '{hardware.device}'; name a profile that both can run")
    return hardware


def prepare(arguments: argparse.Namespace, hardware: Hardware, folder: Path) -> list[Side]:
    """All sides, with the same inputs; none is started yet."""
    shared = [part for key in OPTIONS for part in (f"--{key.replace('_', '-')}", getattr(arguments, key))]
    if arguments.benchmark != "tokenize":
        config = load.read_workflow(Path.cwd()).models[arguments.model]
        std = config.init_std if arguments.benchmark == "pretrain" else VARIED_STD
        shared += ["--checkpoint", inputs.write_checkpoint(folder / arguments.model, replace(config, init_std=std))]
    out = ["--out", folder / LOGLIKELIHOODS] if arguments.benchmark == "evaluate" else []
    device = ["--device", TORCH_DEVICES[hardware.device.split(":")[0]], "--dtype", hardware.dtype]
    peers = {name: command for name, command in PEERS[arguments.benchmark].items()
             if name in (arguments.peer or PEERS[arguments.benchmark])}  # fmt: skip
    profiles = {OURS: hardware.name} | {LIKE[name]: "cpu-int8" for name in peers if name in LIKE}
    return [
        *(Side(name, ours(arguments.benchmark, "--hardware", profile, "--bursts", *shared, *out))
          for name, profile in profiles.items()),
        *(Side(name, peer(program, *device, *shared, *options)) for name, (program, *options) in peers.items()),
    ]  # fmt: skip


def alternate(sides: Sequence[Side], rounds: int) -> list[dict[str, float]]:
    """Tokens per second of each side in each round."""
    for side in sides:
        side.burst()  # starts it while no other works; this burst does not count
    measured = []
    for n in range(rounds):
        measured.append({side.name: side.burst() for side in sides})
        speeds = ", ".join(f"{name} {rate:,.0f} tokens/s" for name, rate in measured[-1].items())
        print(f"round {n + 1}: {speeds}", file=sys.stderr)
    return measured


def rows(
    benchmark: str, rates: list[dict[str, float]], results: dict[str, dict[str, Any]], dtype: str = "float32"
) -> list[dict[str, Any]]:
    """A row per side. `ratio` is the median over rounds of our speed to this side's, in our own rows to the best peer's
    of each round; `difference` is the largest one between this side's answers and ours. A peer that rounds is compared
    with our side that does, and gives no answers, as rounding may give others."""
    made, mine = [], results[OURS]
    peers = [name for name in results if name not in OUR_SIDES]
    alike = [name for name in peers if name not in LIKE]
    for name, result in results.items():
        side = name if name in OUR_SIDES else LIKE.get(name, OURS)
        others = [each for each in peers if LIKE.get(each, OURS) == side] if name in OUR_SIDES else [name]
        against = [max((round_[other] for other in others), default=math.nan) for round_ in rates]
        ratios = [round_[side] / rate for round_, rate in zip(rates, against)]
        made.append({
            **{key: mine.get(key) for key in ("model", "n_parameters", "vocab_size", "seq_len")},
            "batch_size": result.get("batch_size", mine.get("batch_size")),
            "side": name,
            "tokens_per_s": statistics.median(round_[name] for round_ in rates),
            "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "target": TARGET_OF_INT8 if side == OURS_INT8 else TARGETS[benchmark], "rounds": len(rates),
            "difference": difference(benchmark, name, result, mine, dtype) if name in alike else None,
            **{key: result.get(key) for key in MEASURED},
        })  # fmt: skip
    return made


def difference(
    benchmark: str, name: str, theirs: dict[str, Any], mine: dict[str, Any], dtype: str = "float32"
) -> float:
    """The largest difference between both sides' answers; ends the program where it is too large."""
    key, allowed = ANSWERS[benchmark], TOLERANCES[benchmark] if dtype == "float32" else TOLERANCE_OF_BFLOAT16
    largest = float(np.max(np.abs(np.array(theirs[key]) - np.array(mine[key]))))
    if not largest <= allowed:
        sys.exit(f"{benchmark}: {key} of cgpt and {name} differ by {largest:.3g}, at most {allowed:g} is allowed: "
                 "one of them computes something else, so there is no comparison")  # fmt: skip
    return largest


if __name__ == "__main__":
    main()
