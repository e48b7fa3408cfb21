"""Command line of the peers, and the bursts and the clock that the benchmarks of cgpt use too."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgpt.bench.measure import WARMUP_STEPS, Steps


def read_arguments(description: str | None) -> argparse.Namespace:
    """Arguments of a peer; each takes what it needs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, default=0, help="steps to time, instead of bursts on request")
    parser.add_argument("--burst-s", type=float, default=3.0)
    parser.add_argument("--checkpoint", type=Path, help="a model")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--n-requests", type=int)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--n-bytes", type=int)
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--device", default="cpu", help="PyTorch's name of it: cpu, cuda or mps")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "int8"), help="of products")
    return parser.parse_args()


def measure(steps: Steps, arguments: argparse.Namespace, result: Callable[[], dict[str, Any]]) -> None:
    """Time the steps as asked, then print what they took and what they gave as one JSON line."""
    if arguments.steps:
        steps.run(WARMUP_STEPS + arguments.steps)
    else:
        steps.answer_bursts(arguments.burst_s)
    print(json.dumps(steps.result() | result()))
