"""The contribution of each document of a task to a score, from the samples.jsonl of its run."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cgpt.report.columns import Row
from cgpt.report.samples import Sample, samples_path

AS_GIVEN = 1e-9  # relative: how near the mean over documents comes to the score that it is
Samples = Sequence[Sample]


@dataclass(frozen=True)
class Scored:
    """The documents of a score, and the value of each, (n,); of several seeds the mean."""

    documents: tuple[Mapping[str, Any], ...]
    values: tuple[float, ...]


def read_scored(rows: Sequence[Row], results: Path, read: Callable[[Path], Samples]) -> Scored | None:
    """The values behind a score, a row per seed; `read` gives the samples of a file, which it may remember.

    None where samples are not at hand, where seeds were scored on different documents, or where the metric is no mean
    over documents. Raises UserError where a samples.jsonl cannot be read.
    """
    of_seeds = [_scored(row, results, read) for row in rows]
    scored = [each for each in of_seeds if each is not None]
    if len(scored) < len(rows) or not all(same_documents(scored[0], other) for other in scored[1:]):
        return None
    return Scored(scored[0].documents, tuple(map(fmean, zip(*(each.values for each in scored)))))


def same_documents(a: Scored, b: Scored) -> bool:
    """Whether two scores are of the same documents in the same order: with equal numbers, choices and answers, and with
    prompts of which one ends as the other, as it does where shots stand before it or its start is cut off."""
    return len(a.documents) == len(b.documents) and all(map(_is_same, a.documents, b.documents))


def _is_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    alike = all(a.get(key) == b.get(key) for key in ("doc_id", "choices", "target"))
    prompts_a, prompts_b = (
        [prompt] if isinstance(prompt := each.get("prompt"), str) else prompt or [] for each in (a, b)
    )
    return (
        alike
        and len(prompts_a) == len(prompts_b)
        and all(one.endswith(other) or other.endswith(one) for one, other in zip(prompts_a, prompts_b))
    )


def _scored(row: Row, results: Path, read: Callable[[Path], Samples]) -> Scored | None:
    run = row.get("evaluate_run")
    path = samples_path(results, "evaluate", str(run))
    if not run or not path.is_file():
        return None
    samples = [sample for sample in read(path) if sample.get("filter") == row.get("filter")]
    values = [sample.get("metrics", {}).get(row["metric"]) for sample in samples]
    if not values or not all(isinstance(value, (int, float)) for value in values):
        return None
    if not math.isclose(fmean(values), row["value"], rel_tol=AS_GIVEN, abs_tol=AS_GIVEN):
        return None
    return Scored(tuple(samples), tuple(map(float, values)))
