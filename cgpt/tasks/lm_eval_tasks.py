"""Tasks: from a task's YAML and its data files to an lm-evaluation-harness task, and to examples for fine-tuning.

lm-evaluation-harness renders every prompt and answer, for training as for evaluation, so that both see the same text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cgpt.data import task_rows
from cgpt.data.hub import prepare_environment
from cgpt.errors import UserError, did_you_mean
from cgpt.tasks import functions, stock, templates
from cgpt.tasks.decoding import decoding
from cgpt.tasks.scoring import UNSAFE_CODE, UNUSABLE

if TYPE_CHECKING:
    from cgpt.tasks.text_task import TextTask

SOURCE_KEYS = ("data", "files_sha256")  # keys that say where the data are
# Keys of a task that lm-evaluation-harness does not have.
OWN_KEYS = (*SOURCE_KEYS, "finetune", "limit", "sample", "stock")
FEWSHOT_SEED = 1234  # lm-evaluation-harness's own default
SUBSET_SEED = 0


class Example(NamedTuple):
    """One document of a task as text. `target` and each choice start with the task's target delimiter."""

    prompt: str
    target: str  # what follows the prompt when the answer is right
    choices: tuple[str, ...]  # empty unless the task is multiple choice
    label: int | None  # target is choices[label]


def where(task: dict[str, Any]) -> str:
    """The file that a problem of this task is reported against; lm-evaluation-harness's tasks are named by themselves,
    as one file may stand for many."""
    if task.get("stock"):
        return f"lm-evaluation-harness's task '{task['task']}'"
    return f"workflows/tasks/{task.get('task')}.yaml"


def subset(n: int, limit: int | None) -> list[int]:
    """Indices of at most `limit` of n documents: random but fixed, in order; a smaller limit is a part of a larger."""
    order = list(range(n))
    if limit is None or limit >= n:
        return order
    random.Random(SUBSET_SEED).shuffle(order)
    return sorted(order[:limit])


def documents(task: dict[str, Any], n_documents: int) -> list[int]:
    """Indices of the documents that are scored: the first ones with `limit`, a fixed random sample with `sample`.

    `limit` below 1 is a share, rounded up, as in lm-evaluation-harness.
    """
    if task.get("sample") is not None:
        return subset(n_documents, task["sample"])
    limit = n_documents if task.get("limit") is None else task["limit"]
    return list(range(min(n_documents, math.ceil(n_documents * limit) if limit < 1 else int(limit))))


def selection(task: dict[str, Any], n_documents: int) -> str:
    """Which of its documents a task is scored on, for people: `all`, `first 100 of 3,270`, `random 100 of 3,270`."""
    n = len(documents(task, n_documents))
    if n == n_documents:
        return "all"
    return f"{'first' if task.get('sample') is None else 'random'} {n:,} of {n_documents:,}"


def is_classification(task: dict[str, Any]) -> bool:
    """Whether a task has a training split and the same choices for every document, so that counting words can do it."""
    return isinstance(task.get("doc_to_choice"), (list, dict)) and bool(task.get("training_split"))


def evaluation_split(task: dict[str, Any]) -> str:
    """The split that scores are computed on: `test_split`, else `validation_split` (lm-evaluation-harness's rule)."""
    split = task.get("test_split") or task.get("validation_split")
    if split is None:
        raise UserError(f"{where(task)}: test_split: is missing; write the split that scores are computed on")
    return split


def examples(task: dict[str, Any], data_root: Path, split: str, limit: int | None = None) -> list[Example]:
    """Return documents of a split as (prompt, target, choices, label), zero-shot, for fine-tuning.

    `split` is what the task names: `task["training_split"]`, `task["validation_split"]` or `task["test_split"]`.
    `limit` picks a fixed random subset, as `subset` does. The texts are those that `evaluate` scores. Raises UserError
    as `build` does, and for a wrong label.
    """
    lm_task = build(task | {"num_fewshot": 0}, data_root, split)
    return _examples(task, lm_task, subset(len(lm_task.eval_docs), limit))


def scored_examples(task: dict[str, Any], data_root: Path) -> tuple[list[Example], str]:
    """The documents that `evaluate` scores, as `examples` gives them, and which they are, as `selection` says it."""
    lm_task = build(task | {"num_fewshot": 0}, data_root)
    n_documents = len(lm_task.eval_docs)
    return _examples(task, lm_task, documents(task, n_documents)), selection(task, n_documents)


def _examples(task: dict[str, Any], lm_task: TextTask, numbers: Sequence[int]) -> list[Example]:
    docs, place = lm_task.eval_docs, f"{where(task)}: split '{lm_task.evaluated_split}', document"
    return [_example(lm_task, docs[n], f"{place} {n}") for n in numbers]


def labelled_examples(task: dict[str, Any], data_root: Path, n_labels: int | None) -> list[Example]:
    """The training split's examples, or exactly `n_labels` of them. Raises UserError, also where there are fewer."""
    split = task["training_split"]
    found = examples(task, data_root, split, n_labels)
    if n_labels is not None and len(found) < n_labels:
        raise UserError(f"{where(task)}: finetune.n_labels: {n_labels} labels are asked for, split '{split}' has "
                        f"{len(found)}; write {len(found)} or fewer")  # fmt: skip
    return found


def check_documents(task: dict[str, Any], lm_task: TextTask, numbers: Sequence[int]) -> None:
    """Refuse the first of these documents that cannot be scored, and metrics that cannot be. Raises UserError."""
    from cgpt.tasks.metrics import check_metrics
    from cgpt.tasks.text_task import check_texts

    docs = lm_task.eval_docs
    for n in numbers:
        check_texts(lm_task, docs[n], f"{where(task)}: split '{lm_task.evaluated_split}', document {n}")
    enough = numbers if lm_task.OUTPUT_TYPE == "multiple_choice" else numbers[:20]  # comparing texts takes longer
    check_metrics(lm_task, [docs[n] for n in enough], where(task))


def validation_split(task: dict[str, Any]) -> str:
    """The split that decides when fine-tuning stops. Raises UserError where it, or the training split, is missing."""
    missing = [key for key in ("training_split", "validation_split") if not task.get(key)]
    if missing:
        raise UserError(*(f"{where(task)}: {key}: is missing, fine-tuning needs it; name a split" for key in missing))
    return task["validation_split"]


def rendered(task: dict[str, Any], data_root: Path) -> tuple[list[list[tuple[str, str | int]]], str | None]:
    """What a model is asked of each scored document, as (prompt, answer) pairs, and the first one's right answer.

    Where the model writes the answer, the most tokens it may write stand for it, 0 where the task does not say. Raises
    UserError for any document that cannot be scored.
    """
    lm_task = build(task, data_root)
    docs, n_shot = lm_task.eval_docs, lm_task.config.num_fewshot or 0
    numbers = documents(task, len(docs))
    check_documents(task, lm_task, numbers)
    asked = []
    for n in numbers:
        doc = docs[n]
        prompt = lm_task.fewshot_context(doc, num_fewshot=n_shot, gen_prefix=lm_task.doc_to_prefix(doc))
        made = lm_task.construct_requests(doc, prompt, metadata=(lm_task.task_name, n, 1))
        asked.append([_pair(request.args) for request in (made if isinstance(made, list) else [made])])
    return asked, _right_answer(lm_task, docs[numbers[0]])


def _pair(arguments: tuple) -> tuple[str, str | int]:
    """A request's prompt and answer; a text that is scored from its start, in windows, has none."""
    if len(arguments) == 1:
        return "", ""
    prompt, answer = arguments[:2]
    return prompt, answer if isinstance(answer, str) else decoding(answer).max_new_tokens or 0


def _right_answer(lm_task: TextTask, doc: dict[str, Any]) -> str | None:
    from cgpt.tasks.text_task import gold

    target = lm_task.doc_to_target(doc)
    if lm_task.OUTPUT_TYPE == "multiple_choice" and not lm_task.multiple_input:
        choices = lm_task.doc_to_choice(doc)
        target = [choices[n] for n in gold(target, choices, where(lm_task.config))]
    answer = target[0] if isinstance(target, list) and target else target
    return None if answer == [] else str(answer)


def check_form(task: dict[str, Any], data_root: Path) -> None:
    """Check what can be checked of a task without its data: templates and metrics. Raises UserError."""
    prepare_environment(data_root)
    from cgpt.tasks.text_task import check_fields

    templates.install()
    if not task.get("stock"):
        _check_names(task, where(task))
        check_fields(task, {}, where(task))


def build(task: dict[str, Any], data_root: Path, split: str | None = None) -> TextTask:
    """Return the lm-evaluation-harness task over one split (default: the evaluation split) of the fetched data.

    data_root: the folder that holds one folder per data set. Only a task without `data`, which names a data set of the
    Hugging Face hub, downloads anything, and what it downloads is kept there.
    Raises UserError for missing data, a template that names a field the data have not, an unknown key or metric.
    """
    prepare_environment(data_root, online=not task_rows.in_files(task))
    from cgpt.tasks.text_task import check_fewshot, check_fields, check_shots, shots_split

    templates.install()
    config = _harness_config(task)
    evaluated = split or evaluation_split(config | {"task": task["task"]})
    if evaluated != (config.get("test_split") or config.get("validation_split")):
        config["test_split"] = evaluated  # any other key of its splits stays as the file has it, and so do the shots
    shown = config.get("output_type") != "loglikelihood_rolling"  # which scores a text without anything before it
    config["num_fewshot"] = (shown and config.get("num_fewshot")) or 0
    if config.get("output_type", "generate_until") == "generate_until" and config.get("generation_kwargs") is None:
        config["generation_kwargs"] = {"do_sample": False}  # greedy, as by default there, and the model limits answers
    check_fewshot(config["fewshot_config"] if "fewshot_config" in task else None, config, where(task))
    _check_names(config, where(task))
    _refuse_unusable(config, where(task))
    if task_rows.in_files(config | task):
        source = config | {key: task[key] for key in SOURCE_KEYS if key in task}
        names = {evaluated, shots_split(config) or evaluated}
        rows = {name: task_rows.read_split(source, data_root, name, where(task)) for name in names}
        check_fields(config, rows, where(task))
        loaded = _datasets(rows, config, where(task))
        config["custom_dataset"] = lambda **_: loaded
    lm_task = _construct(config, where(task))
    check_shots(lm_task, where(task))
    lm_task.set_fewshot_seed(FEWSHOT_SEED)
    return lm_task


def _harness_config(task: dict[str, Any]) -> dict[str, Any]:
    """What lm-evaluation-harness is told: its own task's keys where the task is one, then those of the file."""
    config = stock.config(task["task"], where(task)) if task.get("stock") else {}
    said = {key: deepcopy(value) for key, value in task.items() if key not in OWN_KEYS}
    return config | functions.resolve(said, where(task))


def _construct(config: dict[str, Any], place: str) -> TextTask:
    """Make the task object, which renders the first document; whatever goes wrong names the file and the reason."""
    from cgpt.tasks.text_task import TextTask

    try:
        return TextTask(config, place)
    except UserError:
        raise
    except OSError as error:
        problem = (
            f"task: its data set '{config.get('dataset_path')}' cannot be had ({_reason(error)}); connect to the "
            "network, or give your own files with data and dataset_kwargs.data_files"
        )
    except Exception as error:  # templates and keys fail in many ways
        problem = f"lm-evaluation-harness refuses it: {_reason(error)}; correct the named key"
    raise UserError(f"{place}: {problem}")


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _example(lm_task: TextTask, doc: dict[str, Any], place: str) -> Example:
    from cgpt.tasks.text_task import check_texts, gold

    check_texts(lm_task, doc, place)
    if lm_task.multiple_input:
        raise UserError(
            f"{place}: doc_to_text: gives a choice, not a prompt; fine-tuning needs one prompt per document"
        )
    prompt = lm_task.fewshot_context(doc, num_fewshot=0, gen_prefix=lm_task.doc_to_prefix(doc))
    target = lm_task.doc_to_target(doc)
    if lm_task.OUTPUT_TYPE == "loglikelihood":
        return Example(prompt, target, (), None)
    if lm_task.OUTPUT_TYPE != "multiple_choice":
        if lm_task.config.doc_to_choice is not None:
            target = [lm_task.doc_to_choice(doc)[n] for n in gold(target, lm_task.doc_to_choice(doc), place)]
        answers = target if isinstance(target, list) else [target]
        if not answers or not answers[0]:
            raise UserError(f"{place}: doc_to_target: is empty; give every document that is trained on an answer")
        return Example(prompt, lm_task.config.target_delimiter + answers[0], (), None)
    names = lm_task.doc_to_choice(doc)
    labels = gold(target, names, place)
    if not labels:
        raise UserError(f"{place}: doc_to_target: names no correct choice; give one, or leave the document out")
    choices = tuple(lm_task.config.target_delimiter + name for name in names)
    return Example(prompt, choices[labels[0]], choices, labels[0])


def _datasets(rows: dict[str, list[task_rows.Row]], config: dict[str, Any], place: str) -> dict[str, Any]:
    """The rows by split, as the engine reads them; a function that processes documents needs a `datasets.Dataset`."""
    from cgpt.tasks.text_task import Documents

    processed = config.get("process_docs"), (config.get("fewshot_config") or {}).get("process_docs")
    if processed == (None, None):
        return {name: Documents(split) for name, split in rows.items()}
    import datasets
    import pyarrow

    try:
        return {name: datasets.Dataset.from_list(split) for name, split in rows.items()}
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{place}: a field changes its type within the data: {reason}; make its values alike") from None


def _refuse_unusable(config: dict[str, Any], place: str) -> None:
    """What no model of text can do, also where lm-evaluation-harness's own YAML of a task says it."""
    problems = [f"{place}: {key}: {what}" for key, what in UNUSABLE.items() if config.get(key) is not None]
    if config.get("unsafe_code"):
        problems.append(f"{place}: unsafe_code: {UNSAFE_CODE}")
    if problems:
        raise UserError(*problems)


def _check_names(config: dict[str, Any], place: str) -> None:
    import lm_eval.api.metrics
    import lm_eval.filters  # noqa: F401  both fill a registry
    from lm_eval.api.registry import METRIC_REGISTRY, filter_registry

    entries = [] if config.get("process_results") else config.get("metric_list") or []
    names = [
        entry["metric"] for entry in entries if isinstance(entry.get("metric"), str) and not entry.get("hf_evaluate")
    ]
    problems = [
        f"{place}: metric_list: no metric '{name}'; {did_you_mean(name, METRIC_REGISTRY)}"
        for name in names
        if name not in METRIC_REGISTRY
    ]
    filters = list(filter_registry.keys())
    steps = [step["function"] for entry in config.get("filter_list") or () for step in entry["filter"]]
    problems += [
        f"{place}: filter_list: there is no filter '{step}'; {did_you_mean(step, filters)}"
        for step in steps
        if step not in filters
    ]
    if problems:
        raise UserError(*problems)
