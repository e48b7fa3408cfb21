"""What the peers share: their command line, and the bursts and the clock that the benchmarks of cgpt use too."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgpt.bench.measure import WARMUP_STEPS, Steps


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every peer takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--threads", type=int, required=True)
    made.add_argument("--steps", type=int, default=0, help="steps to time, instead of bursts on request")
    made.add_argument("--burst-s", type=float, default=3.0)
    return made


def model_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of a peer that runs a model."""
    made = parser(description)
    made.add_argument("--checkpoint", type=Path, required=True)
    return made


def measure(steps: Steps, chosen: argparse.Namespace, answer: Callable[[], dict[str, Any]]) -> None:
    """Time the steps as asked, then print what they took and what they gave as one JSON line."""
    if chosen.steps:
        steps.run(WARMUP_STEPS + chosen.steps)
    else:
        steps.answer_bursts(chosen.burst_s)
    print(json.dumps(steps.result() | answer()))
