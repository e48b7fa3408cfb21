"""Trained models as points of a scaling law, from an experiment's runs.csv."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.errors import UserError
from cgpt.experiment.run import Plan
from cgpt.files.csv_file import read_csv
from cgpt.recipe import flops
from cgpt.records import FinetuneRecord
from cgpt.scaling.seeds import apart
from cgpt.spec import PARAMETRIZATIONS, Model

IN_NO_TABLE = ("inputs", "outputs", "batches")  # fields of a record
# Columns of runs.csv.
RUN_COLUMNS = ("experiment", "setting", *(f.name for f in fields(FinetuneRecord) if f.name not in IN_NO_TABLE))

# Settings along which a law runs, the parametrization, which makes series anyhow, and the learning rate, whose best
# value stands for each size; runs that differ in another one, such as train.weight_decay, belong to different laws.
ALONG_THE_LAW = ("train.steps", "train.tokens", "train.tokens_per_parameter", "train.flops", "train.batch_size",
                 "train.micro_batch_size", "model.n_layer", "model.d_model", "model.n_head", "model.d_ffn",
                 "model.parametrization", "train.lr")  # fmt: skip


@dataclass(frozen=True)
class Points:
    """Trained models, one entry each; arrays are (n,).

    `setting_of` numbers the settings from 0: runs with the same number differ in nothing but their seed. `flops`
    holds the training FLOPs by convention. `loss` is in nats per token; `bits_per_byte` None where the text's bytes
    are unknown. `runs`, `settings` (what was varied, in words), `shapes` and the tokens of a batch are those of an
    experiment; what is only published has none. `n_left_out`: runs of the series without a finite loss.
    """

    models: tuple[str, ...]
    setting_of: np.ndarray
    n_parameters: np.ndarray
    n_parameters_non_embedding: np.ndarray | None
    tokens: np.ndarray
    flops: Mapping[str, np.ndarray]
    loss: np.ndarray
    bits_per_byte: np.ndarray | None
    vocab_size: int | None = None
    seq_len: int | None = None
    d_model: np.ndarray | None = None
    lr: np.ndarray | None = None
    runs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    n_left_out: int = 0
    shapes: tuple[Model, ...] = ()
    batch_tokens: np.ndarray | None = None

    @property
    def n_settings(self) -> int:
        """Number of different settings."""
        return len(self._firsts())

    def setting_means(self, values: np.ndarray) -> np.ndarray:
        """Mean of `values` (n,) over the seeds of each setting, (n_settings,)."""
        return np.bincount(self.setting_of, values) / np.bincount(self.setting_of)

    def model_of(self, number: int) -> str:
        """Name of the model of a setting."""
        return self.models[self._firsts()[number]]

    def seeds_apart(self) -> list[tuple[str, float]]:
        """Model and loss of each run that lies apart from the other seeds of its setting (`seeds.apart`)."""
        runs = [np.flatnonzero(self.setting_of == number) for number in range(self.n_settings)]
        strange = [of_setting[n] for of_setting in runs for n in apart(self.loss[of_setting].tolist())]
        return [(self.models[run], float(self.loss[run])) for run in strange]

    def by_setting(self) -> Points:
        """One entry a setting, the mean over its seeds: a law misses all of them alike, so that each counts once."""
        averaged = ("loss", "bits_per_byte", "n_parameters_non_embedding", "d_model", "lr", "batch_tokens")
        known = {name: getattr(self, name) for name in averaged if getattr(self, name) is not None}
        means: dict[str, Any] = {name: self.setting_means(values) for name, values in known.items()}
        flops = {name: self.setting_means(values) for name, values in self.flops.items()}
        return replace(self._of(self._firsts()), flops=flops, **means)

    def best_of_each_size(self) -> Points:
        """The runs of the setting with the least mean loss, of those that share size and length, as of a sweep of
        rates: a law is of the best that a size and a length can do, not of what was tried on the way."""
        mean = self.setting_means(self.loss)
        best = [min(numbers, key=lambda number: mean[number]) for numbers in self._sweeps()]
        return self if len(best) == self.n_settings else self._of(np.flatnonzero(np.isin(self.setting_of, best)))

    def competing_axes(self) -> list[str]:
        """The keys in which settings of one size and length differ, such as `train.lr`."""
        words = dict(zip(self.setting_of.tolist(), self.settings))
        sweeps = self._sweeps() if words else []
        competing = [[set(words[number].split(", ")) for number in numbers] for numbers in sweeps]
        differing = [set().union(*settings) - settings[0].intersection(*settings) for settings in competing]
        axes = {part.split("=")[0] for parts in differing for part in parts if part}
        return sorted(axes - {"train.tokens"})  # of one length in batches of several sizes

    def rates_at_an_end(self) -> tuple[int, int]:
        """At how many sizes and lengths the best of several learning rates is the lowest or the highest, beyond which a
        better one may lie, and at how many several were tried."""
        if self.lr is None:
            return 0, 0
        mean, lr = self.setting_means(self.loss), self.setting_means(self.lr)
        swept = [numbers for numbers in self._sweeps() if np.ptp(lr[numbers]) > 0]
        best = [lr[min(numbers, key=lambda number: mean[number])] for numbers in swept]
        return sum(rate in (lr[numbers].min(), lr[numbers].max()) for rate, numbers in zip(best, swept)), len(swept)

    def _firsts(self) -> np.ndarray:
        """Index of the first run of each setting, (n_settings,)."""
        return np.unique(self.setting_of, return_index=True)[1]

    def _sweeps(self) -> list[list[int]]:
        """Numbers of the settings of each size and length. A length is rounded up to whole batches, so that one of T
        tokens in batches of B was asked for as more than T - B: those that could be the same are, whatever their B."""
        first = self._firsts()
        tokens = self.tokens[first]
        least = tokens - (0 if self.batch_tokens is None else self.batch_tokens[first])
        sweeps: list[list[int]] = []
        sizes = self.n_parameters[first]
        for number in np.lexsort((tokens, sizes)).tolist():
            start = sweeps[-1][0] if sweeps else number
            same_length = tokens[number] == tokens[start] or least[number] < tokens[start]
            if sweeps and sizes[number] == sizes[start] and same_length:
                sweeps[-1].append(number)
            else:
                sweeps.append([number])
        return [sorted(numbers) for numbers in sweeps]

    def _of(self, kept: np.ndarray) -> Points:
        """The runs of these indices, their settings numbered anew."""

        def select(values: Any) -> Any:
            if isinstance(values, tuple):
                return tuple(values[run] for run in kept) if values else ()
            return values[kept] if isinstance(values, np.ndarray) else values

        parts = {f.name: select(getattr(self, f.name)) for f in fields(self)}
        parts |= {"setting_of": np.unique(self.setting_of[kept], return_inverse=True)[1],
                  "flops": {name: values[kept] for name, values in self.flops.items()}}  # fmt: skip
        return Points(**parts)


def read_runs(path: Path, plan: Plan) -> dict[str, Points]:
    """The pretraining runs of a runs.csv by series: data, hardware, parametrization, settings not ALONG_THE_LAW.

    The plan gives each run's shape, and so its FLOPs by every convention. Raises UserError where the file is missing
    or names a run that the plan does not.
    """
    rows = [row for row in read_rows(path, RUN_COLUMNS) if row["stage"] == "pretrain" and row["validation_loss"]]
    specs = {run.id: run.spec for run in plan.of("pretrain")}
    refuse_strange(path, rows, specs, plan)
    shapes = {run: Model(**spec["model"]) for run, spec in specs.items()}
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        kind = PARAMETRIZATIONS[shapes[row["run"]].parametrization]
        other_axes = [part for part in row["setting"].split(", ") if part.split("=")[0] not in ALONG_THE_LAW]
        groups.setdefault((row["data"], row["hardware"], kind, ", ".join(other_axes)), []).append(row)
    differ = [len(set(words)) > 1 for words in zip(*groups)]
    names = {group: ", ".join(word for word, differs in zip(group, differ) if word and differs) for group in groups}
    try:
        _refuse_losses(path, {row["run"]: float(row["validation_loss"]) for row in rows})
        series = {names[group]: _points(members, shapes, specs) for group, members in groups.items()}
    except ValueError as error:
        raise UserError(f"{path}: holds what is no number ({error}); run tabulate again") from None
    return {name: points for name, points in series.items() if points}


def _refuse_losses(path: Path, losses: Mapping[str, float]) -> None:
    """Raise UserError where no run has a finite loss, or one a loss that no cross-entropy can be."""
    if not any(map(math.isfinite, losses.values())):
        raise UserError(f"{path}: has no pretraining run with a validation loss; run the experiment first")
    if strange := [run for run, loss in losses.items() if loss <= 0]:
        raise UserError(f"{path}: {strange[0]}: validation_loss: is {losses[strange[0]]:g}, and a cross-entropy is "
                        "above 0; run tabulate again")  # fmt: skip


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a table that `tabulate` writes, which has these columns; raises UserError."""
    try:
        return read_csv(path, columns)
    except ValueError as error:
        raise UserError(f"{path}: {error}; run tabulate again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run `snakemake --cores 2 "
                        f"{path.parent / 'fits.md'}`, which makes it from the experiment") from None  # fmt: skip


def refuse_strange(path: Path, rows: list[dict[str, str]], known: Container[str], plan: Plan) -> None:
    """Raise UserError where a row is of a run that the plan does not name."""
    if strange := [row["run"] for row in rows if row["run"] not in known]:
        raise UserError(f"{path}: run: '{strange[0]}' is not in the plan; run `cgpt tabulate "
                        f"{plan.experiment}` after the experiment's last change")  # fmt: skip


def _points(read: list[dict[str, str]], shapes: Mapping[str, Model], specs: Mapping[str, Any]) -> Points | None:
    """The runs of a series that have a finite loss; None where none has."""
    rows = [row for row in read if math.isfinite(float(row["validation_loss"]))]
    if not rows:
        return None
    keys = [(row["model"], row["n_parameters"], row["tokens"], row["setting"]) for row in rows]
    numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    models = [shapes[row["run"]] for row in rows]

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name]) for row in rows])

    tokens = column("tokens")
    bytes_known = all(row["validation_bits_per_byte"] for row in rows)
    return Points(
        models=tuple(row["model"] for row in rows),
        setting_of=np.array([numbers[key] for key in keys]),
        n_parameters=column("n_parameters"),
        n_parameters_non_embedding=column("n_parameters_non_embedding"),
        tokens=tokens,
        flops={name: tokens * [flops.flops_per_token(model, name) for model in models] for name in flops.CONVENTIONS},
        loss=column("validation_loss"),
        bits_per_byte=column("validation_bits_per_byte") if bytes_known else None,
        vocab_size=models[0].vocab_size,
        seq_len=models[0].seq_len,
        d_model=np.array([model.d_model for model in models]),
        lr=np.array([specs[row["run"]]["train"]["lr"] for row in rows]),
        runs=tuple(row["run"] for row in rows),
        settings=tuple(row["setting"] for row in rows),
        n_left_out=len(read) - len(rows),
        shapes=tuple(models),
        batch_tokens=tokens / column("steps"),
    )
