"""The verb `forecast-family`: what the training of the seven Cerebras-GPT would take on every profile.

With the paper's own batch sizes, steps and numbers of systems, from results/reference/cerebras_gpt_runs.csv; nothing is
run and nothing is measured.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgpt.cost.forecast import JOULES_PER_KWH, SECONDS_PER_DAY, Request, forecast
from cgpt.errors import UserError
from cgpt.files.csv_file import read_csv
from cgpt.hardware import Hardware
from cgpt.spec import Model

COLUMNS = (
    "model", "n_parameters", "hardware", "timing", "systems", "batch_size", "batch_per_system", "tokens", "step_s",
    "tokens_per_s", "utilisation", "energy_j_per_token", "seconds", "energy_j", "bound_by", "in_memory", "extrapolated",
    "problem",
)  # fmt: skip
RUNS = "cerebras_gpt_runs.csv"  # the paper's trainings, in results/reference
Row = dict[str, Any]


@dataclass(frozen=True)
class Stretch:
    """Steps of one training with the same batch and number of systems; the 13B model has two."""

    model: str
    systems: int
    batch_size: int  # sequences, on all systems together
    steps: int
    source: str


def read(path: Path) -> list[Stretch]:
    """The paper's trainings; raises UserError where a line is not whole."""
    try:
        return [Stretch(line["model"], int(line["systems"]), int(line["batch_size"]), int(line["steps"]),
                        line["source"]) for line in read_csv(path)]  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}); it comes with the project: restore it") from None


def forecast_family(
    stretches: list[Stretch], models: Mapping[str, Model], profiles: Mapping[str, Hardware]
) -> list[Row]:
    """COLUMNS: one row per model and profile that the cost model has an answer for. Raises UserError."""
    of_model: dict[str, list[Stretch]] = {}
    for stretch in stretches:
        of_model.setdefault(stretch.model, []).append(stretch)
    answering = [profile for profile in profiles.values()
                 if profile.wafer or profile.gpu or profile.sustained_flops_per_s]  # fmt: skip
    return [_row(training, models, profile) for training in of_model.values() for profile in answering]


def _row(stretches: list[Stretch], models: Mapping[str, Model], profile: Hardware) -> Row:
    """A whole training: rates are those of the longest stretch, time and energy the sums, a job for each stretch."""
    longest = max(stretches, key=lambda stretch: stretch.steps)
    forecasts = {stretch: _forecast(stretch, stretches, models, profile) for stretch in stretches}
    last = forecasts[longest]
    return {key: last.get(key) for key in COLUMNS} | {
        "batch_size": longest.batch_size,
        "tokens": sum(one["tokens"] for one in forecasts.values()),
        "seconds": _sum(forecasts.values(), "days", SECONDS_PER_DAY),
        "energy_j": _sum(forecasts.values(), "energy_kwh", JOULES_PER_KWH),
        "in_memory": None if last["in_memory"] is None else all(one["in_memory"] for one in forecasts.values()),
    }


def _forecast(stretch: Stretch, stretches: list[Stretch], models: Mapping[str, Model], profile: Hardware) -> Row:
    systems = _systems(stretch, stretches, profile)
    asked = Request(
        model=stretch.model, shape=None, hardware=profile.name, systems=systems,
        batch_per_system=stretch.batch_size // systems,
        tokens=stretch.steps * stretch.batch_size * models[stretch.model].seq_len,
    )  # fmt: skip
    return forecast(asked, models, {profile.name: profile})


def _systems(stretch: Stretch, stretches: list[Stretch], profile: Hardware) -> int:
    """The paper's number; of a profile that is a cluster as many as divide every batch; a processor is one."""
    if not profile.wafer and not profile.gpu:
        return 1
    if profile.systems == 1:
        return stretch.systems
    together = math.gcd(*(one.batch_size for one in stretches))
    return max(n for n in range(1, profile.systems + 1) if together % n == 0)


def _sum(forecasts: Iterable[Row], key: str, factor: float) -> float | None:
    values = [one[key] for one in forecasts]
    return None if None in values else factor * sum(values)
