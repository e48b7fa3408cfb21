"""The answer to an experiment's question: the conclusion that what it asks calls for first, then the others."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgpt.report import columns
from cgpt.report.columns import Row
from cgpt.report.conclusions.comparisons import PRETRAINED, against_chance, fine_tuned_against_others
from cgpt.report.conclusions.conclusion import ONE_SEED, Conclusion, at_seeds, interval
from cgpt.report.conclusions.difference import Result, difference
from cgpt.report.conclusions.laws import fitted_laws
from cgpt.report.conclusions.machines import cheapest_machines
from cgpt.report.conclusions.settings import best_setting
from cgpt.report.rows import Rows
from cgpt.spec import Experiment


def conclude(experiment: Experiment, rows: Rows, results: Path, fits: Mapping[str, Any] | None,
             groups: Collection[str]) -> list[Conclusion]:  # fmt: skip
    """At least one conclusion. Laws come first where the experiment has `fit:`, then what it varies, then machines,
    then what fine-tuning is better than, pretrained models against chance, and the loss where there is nothing else.

    `fits`: its fits.json. `groups`: names of groups of tasks. Raises UserError for a samples.jsonl that cannot be read.
    """
    pretrained = [row for row in rows.runs if row["stage"] == "pretrain"]
    diverged = [row for row in rows.diverged if row["stage"] == "pretrain"]
    machines, fine_tuned = cheapest_machines(rows), fine_tuned_against_others(rows.scores, groups, results)
    if machines and fine_tuned:  # which of the two the question is about no key of an experiment says
        machines = replace(machines, more=(*machines.more, fine_tuned.sentence))
    conclusions = [
        fitted_laws(fits) if fits else None,
        best_setting(experiment, pretrained, diverged, rows.scores, groups) if experiment.vary else None,
        machines,
        fine_tuned,
        *(against_chance(condition, rows.scores, groups, results) for condition in PRETRAINED),
    ]
    return [each for each in conclusions if each] or [least_loss(pretrained)]


def least_loss(pretrained: Sequence[Row]) -> Conclusion:
    """The model with the least validation loss, with the interval that its seeds give."""
    known = [row for row in pretrained if row["validation_loss"] is not None]
    if not known:
        return Conclusion("Nothing can be told: no run has a score or a validation loss.")
    names = columns.column_names(known)
    losses = {key: [row["validation_loss"] for row in seeds]
              for key, seeds in columns.grouped(known, columns.COLUMN_KEYS).items()}  # fmt: skip
    best = min(losses, key=lambda key: sum(losses[key]) / len(losses[key]))
    of_seeds = difference([Result(loss) for loss in losses[best]], [Result(0.0)])
    known_text = interval(of_seeds.low, of_seeds.high) or f"{ONE_SEED}, so how far another seed would lie is not known"
    among = f", the least of {len(losses)}," if len(losses) > 1 else ""
    return Conclusion(f"{names[best]} reaches a validation loss{among} of {at_seeds(losses[best])} nats per token "
                      f"({known_text}).")  # fmt: skip
