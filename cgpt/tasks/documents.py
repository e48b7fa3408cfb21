"""Documents of a task that are scored: which ones, that they can be, and what a model is asked of them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.tasks.decoding import read_options
from cgpt.tasks.lm_eval_tasks import build, where

if TYPE_CHECKING:
    from cgpt.tasks.text_task import Doc, TextTask

SUBSET_SEED = 0
N_TEXTS_COMPARED = 20  # documents whose metrics of texts are tried out, which takes longer than that of choices


def pick_subset(n: int, limit: int | None) -> list[int]:
    """Indices of at most `limit` of n documents: random but fixed, in order; a smaller limit is a part of a larger."""
    order = list(range(n))
    if limit is None or limit >= n:
        return order
    random.Random(SUBSET_SEED).shuffle(order)
    return sorted(order[:limit])


def select_documents(task: dict[str, Any], n_documents: int) -> list[int]:
    """Indices of the documents that are scored: the first ones with `limit`, a fixed random sample with `sample`.

    `limit` below 1 is a share, rounded up, as in lm-evaluation-harness.
    """
    if task.get("sample") is not None:
        return pick_subset(n_documents, task["sample"])
    limit = n_documents if task.get("limit") is None else task["limit"]
    return list(range(min(n_documents, math.ceil(n_documents * limit) if limit < 1 else int(limit))))


def describe_selection(task: dict[str, Any], n_documents: int) -> str:
    """The documents that are scored, for people: `all`, `first 100 of 3,270`, `random 100 of 3,270`."""
    n = len(select_documents(task, n_documents))
    if n == n_documents:
        return "all"
    return f"{'first' if task.get('sample') is None else 'random'} {n:,} of {n_documents:,}"


def check_documents(task: dict[str, Any], lm_task: TextTask, numbers: Sequence[int]) -> None:
    """Refuse the first of these documents that cannot be scored, and metrics that cannot be. Raises UserError."""
    from cgpt.tasks.metrics import check_metrics
    from cgpt.tasks.text_task import check_texts

    docs = lm_task.eval_docs
    for n in numbers:
        check_texts(lm_task, docs[n], lm_task.name_document(n))
    enough = numbers if lm_task.OUTPUT_TYPE == "multiple_choice" else numbers[:N_TEXTS_COMPARED]
    check_metrics(lm_task, [docs[n] for n in enough], where(task))


def render_documents(task: dict[str, Any], data_root: Path) -> tuple[list[list[tuple[str, str | int]]], str | None]:
    """The (prompt, answer) pairs that a model is asked of each scored document, and the first one's right answer.

    Where the model writes the answer, the most tokens it may write stand for it, 0 where the task does not say. Raises
    UserError for any document that cannot be scored.
    """
    lm_task = build(task, data_root)
    docs, n_shot = lm_task.eval_docs, lm_task.config.num_fewshot or 0
    numbers = select_documents(task, len(docs))
    check_documents(task, lm_task, numbers)
    pairs = []
    for n in numbers:
        prompt = lm_task.fewshot_context(docs[n], num_fewshot=n_shot, gen_prefix=lm_task.doc_to_prefix(docs[n]))
        requests = lm_task.construct_requests(docs[n], prompt, metadata=(lm_task.task_name, n, 1))
        requests = requests if isinstance(requests, list) else [requests]
        pairs.append([_prompt_and_answer(request.args) for request in requests])
    return pairs, _right_answer(lm_task, docs[numbers[0]])


def _prompt_and_answer(arguments: tuple) -> tuple[str, str | int]:
    """Of a request; a text that is scored from its start, in windows, has neither."""
    if len(arguments) == 1:
        return "", ""
    prompt, answer = arguments[:2]
    return prompt, answer if isinstance(answer, str) else read_options(answer).max_new_tokens or 0


def _right_answer(lm_task: TextTask, doc: Doc) -> str | None:
    from cgpt.tasks.text_task import right_choices

    target = lm_task.doc_to_target(doc)
    if lm_task.OUTPUT_TYPE == "multiple_choice" and not lm_task.multiple_input:
        choices = lm_task.doc_to_choice(doc)
        target = [choices[n] for n in right_choices(target, choices, where(lm_task.config))]
    answer = target[0] if isinstance(target, list) and target else target
    return None if answer == [] else str(answer)
