"""Labelled documents for fine-tuning, as text that lm-evaluation-harness renders: the same that evaluation scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cgpt.errors import UserError
from cgpt.tasks.documents import describe_selection, pick_subset, select_documents
from cgpt.tasks.lm_eval_tasks import build, where

if TYPE_CHECKING:
    from cgpt.tasks.text_task import Doc, TextTask


class Example(NamedTuple):
    """One document of a task as text. `target` and each choice start with the task's target delimiter."""

    prompt: str
    target: str  # what follows the prompt when the answer is right
    choices: tuple[str, ...]  # empty unless the task is multiple choice
    label: int | None  # target is choices[label]


def read_examples(task: dict[str, Any], data_root: Path, split: str, limit: int | None = None) -> list[Example]:
    """Documents of a split as examples without shots, to train on or to validate with.

    `split` is what the task names: `task["training_split"]`, `task["validation_split"]` or `task["test_split"]`.
    `limit` picks a fixed random subset, as `pick_subset` does. Raises UserError as `build` does, for a wrong label and
    for an empty prompt, whose tokens lm-evaluation-harness does not split from the answer's.
    """
    lm_task = build(task | {"num_fewshot": 0}, data_root, split)
    numbers = pick_subset(len(lm_task.eval_docs), limit)
    examples = _examples(task, lm_task, numbers)
    for n, example in zip(numbers, examples, strict=True):
        if not example.prompt:
            raise UserError(f"{lm_task.name_document(n)}: doc_to_text: gives an empty prompt, which fine-tuning "
                            "cannot train on; write text around the field, or leave the document out")  # fmt: skip
    return examples


def read_labelled_examples(task: dict[str, Any], data_root: Path, n_labels: int | None) -> list[Example]:
    """The training split's examples, or exactly `n_labels` of them. Raises UserError, also where there are fewer."""
    split = task["training_split"]
    examples = read_examples(task, data_root, split, n_labels)
    if n_labels is not None and len(examples) < n_labels:
        raise UserError(f"{where(task)}: finetune.n_labels: {n_labels} labels are asked for, split '{split}' has "
                        f"{len(examples)}; write {len(examples)} or fewer")  # fmt: skip
    return examples


def read_scored_examples(task: dict[str, Any], data_root: Path) -> tuple[list[Example], str]:
    """The documents that `evaluate` scores as examples, and which they are, in the words of `describe_selection`."""
    lm_task = build(task | {"num_fewshot": 0}, data_root)
    n_documents = len(lm_task.eval_docs)
    return _examples(task, lm_task, select_documents(task, n_documents)), describe_selection(task, n_documents)


def validation_split_of(task: dict[str, Any]) -> str:
    """The split that decides when fine-tuning stops. Raises UserError where it, or the training split, is missing."""
    missing = [key for key in ("training_split", "validation_split") if not task.get(key)]
    if missing:
        raise UserError(*(f"{where(task)}: {key}: is missing, fine-tuning needs it; name a split" for key in missing))
    return task["validation_split"]


def _examples(task: dict[str, Any], lm_task: TextTask, numbers: Sequence[int]) -> list[Example]:
    return [_example(lm_task, lm_task.eval_docs[n], lm_task.name_document(n)) for n in numbers]


def _example(lm_task: TextTask, doc: Doc, name: str) -> Example:
    from cgpt.tasks.text_task import check_texts, right_choices

    check_texts(lm_task, doc, name)
    if lm_task.multiple_input:
        raise UserError(f"{name}: doc_to_text: gives a choice, not a prompt; fine-tuning needs one prompt per document")
    prompt = lm_task.fewshot_context(doc, num_fewshot=0, gen_prefix=lm_task.doc_to_prefix(doc))
    target, delimiter = lm_task.doc_to_target(doc), lm_task.config.target_delimiter
    if lm_task.OUTPUT_TYPE == "loglikelihood":
        return Example(prompt, target, (), None)
    choices = [] if lm_task.config.doc_to_choice is None else lm_task.doc_to_choice(doc)
    if lm_task.OUTPUT_TYPE != "multiple_choice":
        if choices:
            target = [choices[n] for n in right_choices(target, choices, name)]
        answers = target if isinstance(target, list) else [target]
        if not answers or not answers[0]:
            raise UserError(f"{name}: doc_to_target: is empty; give every document that is trained on an answer")
        return Example(prompt, delimiter + answers[0], (), None)
    labels = right_choices(target, choices, name)
    if not labels:
        raise UserError(f"{name}: doc_to_target: names no correct choice; give one, or leave the document out")
    texts = tuple(delimiter + choice for choice in choices)
    return Example(prompt, texts[labels[0]], texts, labels[0])
