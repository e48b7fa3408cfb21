"""The documents of an evaluation, one by one: samples.jsonl."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgpt.errors import UserError
from cgpt.experiment.run import LAST_FILE
from cgpt.records import REDO

Sample = dict[str, Any]


def samples_path(results: Path, stage: str, run_id: str) -> Path:
    """The samples.jsonl of a run of the stage evaluate or baseline."""
    return (results / "runs" / LAST_FILE[stage].format(run_id)).with_name("samples.jsonl")


def read_samples(path: Path) -> Iterator[Sample]:
    """The record of each document, filter by filter, in the order of the file. Raises UserError."""
    try:
        with path.open(encoding="utf-8", errors="surrogatepass") as lines:
            for line in lines:
                sample = json.loads(line)
                is_record = isinstance(sample, dict) and isinstance(sample.get("doc_id"), int)
                if not is_record or not isinstance(sample.get("metrics", {}), dict):
                    raise ValueError("a line is no record of a document")
                yield sample
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {REDO}") from None


def document_values(path: Path, metric: str, of_filter: str) -> dict[int, float] | None:
    """The metric of each document, by its number; None where there is no such file, or no number for some document.

    Of a baseline, which has no metrics, `acc` is whether its guess is right. Raises UserError.
    """
    if not path.is_file():
        return None
    values: dict[int, float] = {}
    for sample in read_samples(path):
        if sample.get("filter", of_filter) == of_filter:
            value = sample.get("metrics", {"acc": sample.get("correct")}).get(metric)
            if not isinstance(value, (bool, int, float)):
                return None
            values[sample["doc_id"]] = float(value)
    return values
