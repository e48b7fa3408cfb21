"""The best model on each task, document by document: what it takes for what, and where it is surest and wrong."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgpt.formats import score
from cgpt.report.columns import Row, column_key, column_names, is_baseline, series, tasks_of
from cgpt.report.samples import Sample, read_samples, samples_path
from cgpt.report.score_table import metric_text
from cgpt.report.visible import cut

MOST_LABELS = 20  # of a confusion matrix that can be read
MOST_SHOWN = 5  # documents of each kind
LONGEST_PROMPT, LONGEST_ANSWER = 400, 300  # characters shown


@dataclass(frozen=True)
class Excerpt:
    """A text as far as it is shown; `left_out` characters stand before it where `from_end`, else after it."""

    text: str
    left_out: int
    from_end: bool = False


@dataclass(frozen=True)
class Document:
    """A document with the right answer and the model's. `probability`: of that answer among the choices, or of the
    right one where the model is asked for no other; None of generated text."""

    number: int
    prompt: Excerpt
    right: Excerpt
    given: Excerpt | None
    probability: float | None
    correct: bool | None


@dataclass(frozen=True)
class Confusion:
    """`counts[i][j]`: documents whose right answer is `labels[i]` and to which the model gives `labels[j]`."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def share(self, row: int, column: int) -> float:
        """The part of a right answer's documents that gets this answer, 0 to 1."""
        return self.counts[row][column] / max(1, sum(self.counts[row]))


@dataclass(frozen=True)
class TaskView:
    """A task by its best model. `kind`: `choice`, `likelihood` or `generated`, as its documents are answered."""

    task: str
    model: str
    result: str
    n_documents: int
    kind: str = "choice"
    n_wrong: int = 0
    confusion: Confusion | None = None
    n_labels: int = 0  # of the closed set that all documents choose from; 0: each has choices of its own
    documents: Sequence[Document] = field(default_factory=tuple)


def view_tasks(scores: Sequence[Row], order: Sequence[str], groups: Collection[str], results: Path) -> list[TaskView]:
    """A view of each task whose samples are there. Raises UserError for a samples.jsonl that cannot be read."""
    of_models = [row for row in scores if row["primary"] and not is_baseline(row) and row["task"] not in groups]
    names = column_names(of_models)
    views = []
    for task in tasks_of(of_models, order):
        row = _best([row for row in of_models if row["task"] == task])
        path = samples_path(results, "evaluate", row["run"])
        if path.is_file():
            seed = "" if row["seed"] is None else f", seed {row['seed']}"
            model = f"{names[column_key(row)]}, {series(row)}{seed}"
            result = f"{metric_text(row)}: {score(row['value'])}{row['scale'].unit}"
            views.append(
                _view(task, model, result, [s for s in read_samples(path) if s.get("filter") == row["filter"]])
            )
    return views


def _best(rows: Sequence[Row]) -> Row:
    """The row of the best value; the last, of the largest model, where the metric does not say which is better."""
    sign = {True: 1.0, False: -1.0, None: 0.0}[rows[0]["higher_is_better"]]
    return max(reversed(rows), key=lambda row: sign * row["value"])


def _view(task: str, model: str, result: str, samples: Sequence[Sample]) -> TaskView:
    if not samples or not samples[0].get("choices"):
        kind = "likelihood" if samples and samples[0].get("prediction") is None else "generated"
        shown = sorted(samples, key=_likelihood)[:MOST_SHOWN] if kind == "likelihood" else samples[:MOST_SHOWN]
        wrong = sum(sample.get("correct") is False for sample in samples)
        return TaskView(task, model, result, len(samples), kind, wrong, documents=[*map(_answered, shown)])
    wrong_ones = [sample for sample in samples if sample["prediction"] not in sample["target"]]
    surest = sorted(wrong_ones, key=lambda sample: (-_probability(sample), sample["doc_id"]))[:MOST_SHOWN]
    sets = {tuple(sample["choices"]) for sample in samples}
    n_labels = len(next(iter(sets))) if len(sets) == 1 else 0
    confusion = _confusion(samples) if 2 <= n_labels <= MOST_LABELS else None
    return TaskView(task, model, result, len(samples), "choice", len(wrong_ones), confusion, n_labels,
                    [*map(_picked, surest)])  # fmt: skip


def _confusion(samples: Sequence[Sample]) -> Confusion:
    """Of several right answers the one that was given counts, else the first."""
    labels = tuple(choice.strip() or repr(choice) for choice in samples[0]["choices"])
    pairs = Counter((_right(sample), sample["prediction"]) for sample in samples)
    n = range(len(labels))
    return Confusion(labels, tuple(tuple(pairs[right, given] for given in n) for right in n))


def _right(sample: Sample) -> int:
    targets = sample["target"]
    return int(sample["prediction"] if sample["prediction"] in targets else targets[0]) if targets else -1


def _probability(sample: Sample) -> float:
    """The probability of the answer given, among the choices: the softmax of their log-likelihoods."""
    likelihoods = sample["loglikelihoods"]
    most = max(likelihoods)
    return math.exp(likelihoods[sample["prediction"]] - most) / sum(math.exp(each - most) for each in likelihoods)


def _likelihood(sample: Sample) -> float:
    return float((sample.get("loglikelihoods") or [0.0])[0])


def _picked(sample: Sample) -> Document:
    prompts, given = sample["prompt"], sample["prediction"]
    prompt = prompts if isinstance(prompts, str) else prompts[given]
    right = " / ".join(sample["choices"][each].strip() for each in sample["target"])
    return Document(sample["doc_id"], _prompt(prompt), _answer(right), _answer(sample["choices"][given].strip()),
                    _probability(sample), False)  # fmt: skip


def _answered(sample: Sample) -> Document:
    """A document whose answer is scored or generated, not picked from choices."""
    prompt = sample["prompt"] if isinstance(sample["prompt"], str) else sample["prompt"][0]
    right = " / ".join(map(str, _as_texts(sample["target"])))
    given = None if sample.get("prediction") is None else " / ".join(map(str, _as_texts(sample["prediction"])))
    likelihood = math.exp(_likelihood(sample)) if sample.get("loglikelihoods") else None
    return Document(sample["doc_id"], _prompt(prompt), _answer(right), None if given is None else _answer(given),
                    likelihood, sample.get("correct"))  # fmt: skip


def _as_texts(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, (list, tuple)) else [value]


def _prompt(text: str) -> Excerpt:
    return Excerpt(*cut(text, LONGEST_PROMPT, keep_end=True), from_end=True)


def _answer(text: str) -> Excerpt:
    return Excerpt(*cut(text, LONGEST_ANSWER))
