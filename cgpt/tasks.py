"""Tasks: from a task's YAML and its data files to an lm-evaluation-harness task, and to examples for fine-tuning.

lm-evaluation-harness renders every prompt and answer, for training as for evaluation, so that both see the same text.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cgpt import taskdata
from cgpt.errors import UserError, did_you_mean
from cgpt.hub import prepare_environment

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

OWN_KEYS = ("data", "finetune", "limit", "stock")  # keys of a task file that lm-evaluation-harness does not have
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice")
FEWSHOT_SEED = 1234  # lm-evaluation-harness's own default
SUBSET_SEED = 0


class Example(NamedTuple):
    """One document of a task as text. `target` and each choice start with the task's target delimiter."""

    prompt: str
    target: str  # what follows the prompt when the answer is right
    choices: tuple[str, ...]  # empty unless the task is multiple choice
    label: int | None  # target is choices[label]


def where(task: dict[str, Any]) -> str:
    """The file that a problem of this task is reported against."""
    return f"workflows/tasks/{task.get('task')}.yaml"


def subset(n: int, limit: int | None) -> list[int]:
    """Indices of at most `limit` of n documents: random but fixed, in order; a smaller limit is a part of a larger."""
    order = list(range(n))
    if limit is None or limit >= n:
        return order
    random.Random(SUBSET_SEED).shuffle(order)
    return sorted(order[:limit])


def evaluation_split(task: dict[str, Any]) -> str:
    """The split that scores are computed on: `test_split`, else `validation_split` (lm-evaluation-harness's rule)."""
    split = task.get("test_split") or task.get("validation_split")
    if split is None:
        raise UserError(f"{where(task)}: test_split: is missing; write the split that scores are computed on")
    return split


def examples(task: dict[str, Any], data_root: Path, split: str, limit: int | None = None) -> list[Example]:
    """Return documents of a split as (prompt, target, choices, label), zero-shot, for fine-tuning.

    `split` is what the task names: `task["training_split"]`, `task["validation_split"]` or `task["test_split"]`.
    `limit` picks a fixed random subset. The texts are those that `evaluate` scores. Raises UserError as `build` does,
    and for a wrong label.
    """
    lm_task = build(task, data_root, split)
    docs = lm_task.eval_docs
    return [
        _example(lm_task, docs[n], f"{where(task)}: split '{split}', document {n}") for n in subset(len(docs), limit)
    ]


def build(task: dict[str, Any], data_root: Path, split: str | None = None) -> ConfigurableTask:
    """Return the lm-evaluation-harness task over one split (default: the evaluation split) of the fetched data.

    data_root: the folder that holds one folder per data set. Only a task without `data`, which names a data set of the
    Hugging Face hub, downloads anything, and what it downloads is kept there.
    Raises UserError for missing data, a template that names a field the data have not, an unknown key or metric.
    """
    prepare_environment(data_root, online="data" not in task)
    _compile_templates_once()
    config = _stock_config(task) if task.get("stock") else {}
    config |= {key: deepcopy(value) for key, value in task.items() if key not in OWN_KEYS}
    split = split or evaluation_split(config)
    n_shot = config.get("num_fewshot") or 0
    shots = config.get("fewshot_split") or config.get("training_split") or config.get("validation_split") or split
    config |= {"num_fewshot": n_shot, "test_split": split, "training_split": None, "validation_split": None}
    config["fewshot_split"] = shots if n_shot else split
    _check_metrics(config, where(task))
    first: taskdata.Row = {}
    if "data" in task:
        source, names = config | {"data": task["data"]}, {split, config["fewshot_split"]}
        rows = {name: taskdata.read_split(source, data_root, name, where(task)) for name in names}
        _check_fields(config, rows, where(task))
        loaded, first = _datasets(rows, where(task)), rows[split][0]
        config["custom_dataset"] = lambda **_: loaded
    lm_task = _construct(config, first, where(task))
    lm_task.set_fewshot_seed(FEWSHOT_SEED)
    return lm_task


def _construct(config: dict[str, Any], first: taskdata.Row, place: str) -> ConfigurableTask:
    """Make the task object, which renders the first document; whatever goes wrong names the file and the reason."""
    from lm_eval.api.task import ConfigurableTask

    try:
        return ConfigurableTask(config=config)
    except IndexError:
        problem = f"split '{config['test_split']}', document 0: {_label_problem(config, first)}"
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


def gold(target: Any, choices: Sequence[str], place: str) -> list[int]:
    """The indices of the correct choices: one, unless a task has several targets. UserError for a wrong label."""
    found = []
    for value in target if isinstance(target, list) else [target]:
        index = choices.index(value) if isinstance(value, str) and value in choices else value
        if not isinstance(index, int) or not 0 <= index < len(choices):
            raise UserError(
                f"{place}: doc_to_target: label {value!r} is not among the choices {list(choices)}; "
                f"give an index from 0 to {len(choices) - 1} or one of the texts"
            )
        found.append(int(index))
    return found


def _compile_templates_once() -> None:
    """lm-evaluation-harness compiles a template anew for every document, which takes longer than filling it in."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = functools.cache(env.from_string)


def _example(lm_task: ConfigurableTask, doc: dict[str, Any], place: str) -> Example:
    prompt = lm_task.fewshot_context(doc, num_fewshot=0, gen_prefix=lm_task.doc_to_prefix(doc))
    target = lm_task.doc_to_target(doc)
    if lm_task.OUTPUT_TYPE == "loglikelihood":
        return Example(prompt, str(target), (), None)
    if lm_task.OUTPUT_TYPE != "multiple_choice":
        first = target[0] if isinstance(target, list) else target
        return Example(prompt, lm_task.config.target_delimiter + str(first), (), None)
    if lm_task.multiple_input:
        raise UserError(
            f"{place}: doc_to_text: gives a choice, not a prompt; fine-tuning needs one prompt per document"
        )
    names = lm_task.doc_to_choice(doc)
    label = gold(target, names, place)[0]
    choices = tuple(lm_task.config.target_delimiter + name for name in names)
    return Example(prompt, choices[label], choices, label)


def _datasets(rows: dict[str, list[taskdata.Row]], place: str) -> dict[str, Any]:
    import datasets
    import pyarrow

    try:
        return {name: datasets.Dataset.from_list(split) for name, split in rows.items()}
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{place}: a field changes its type within the data: {reason}; make its values alike") from None


def _check_fields(config: dict[str, Any], rows: dict[str, list[taskdata.Row]], place: str) -> None:
    """Refuse templates that name a field which the data, or one document of them, have not."""
    from jinja2 import TemplateSyntaxError, meta
    from lm_eval.utils import env

    problems = []
    columns = set(next(iter(rows.values()))[0])
    used: dict[str, str] = {}  # field -> the key that names it
    for key in TEMPLATES if config.get("process_docs") is None else ():
        template = config.get(key)
        if not isinstance(template, str):
            continue
        try:
            names = {template} if template.isidentifier() else meta.find_undeclared_variables(env.parse(template))
        except TemplateSyntaxError as error:
            problems.append(f"{place}: {key}: is not a Jinja template: {error.message}; correct the braces")
            continue
        problems += [
            f"{place}: {key}: the data have no field '{name}'; {did_you_mean(name, columns)}"
            for name in sorted(names - columns)
        ]
        used |= dict.fromkeys(names & columns, key)
    for split, documents in rows.items():
        for name, key in used.items():
            lacking = next((n for n, row in enumerate(documents) if name not in row), None)
            if lacking is not None:
                problems.append(f"{place}: {key}: split '{split}', document {lacking} has no field '{name}'; add it")
    if problems:
        raise UserError(*problems)


def _check_metrics(config: dict[str, Any], place: str) -> None:
    import lm_eval.api.metrics  # noqa: F401  fills the registry
    from lm_eval.api.registry import METRIC_REGISTRY

    entries = [] if config.get("process_results") else config.get("metric_list") or []
    names = [
        entry["metric"] for entry in entries if isinstance(entry.get("metric"), str) and not entry.get("hf_evaluate")
    ]
    problems = [
        f"{place}: metric_list: no metric '{name}'; {did_you_mean(name, METRIC_REGISTRY)}"
        for name in names
        if name not in METRIC_REGISTRY
    ]
    if problems:
        raise UserError(*problems)


def _label_problem(config: dict[str, Any], row: taskdata.Row) -> str:
    from lm_eval.utils import apply_template

    target, choices = config["doc_to_target"], config["doc_to_choice"]
    if not row:
        return "doc_to_target: its index is not among the choices; correct doc_to_target or doc_to_choice"
    label = row.get(target, target) if not isinstance(target, str) or target in row else apply_template(target, row)
    if isinstance(choices, str):
        choices = row[choices] if choices in row else apply_template(choices, row)
    return f"doc_to_target: label {label} is not among the choices {choices}; give an index or one of the texts"


def _stock_config(task: dict[str, Any]) -> dict[str, Any]:
    """The YAML of a task that ships with lm-evaluation-harness, found by its file's name, else by its `task:` line."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    folder, name = Path(lm_eval.tasks.__file__).parent, task["task"]
    named = sorted(folder.rglob(f"{name}.yaml"))
    wanted = f"\ntask: {name}\n".encode()
    for path in named or sorted(folder.rglob("*.yaml")):
        if wanted in b"\n" + path.read_bytes() + b"\n":
            return load_yaml(path)
    known = {path.stem for path in folder.rglob("*.yaml")}
    raise UserError(f"{where(task)}: task: lm-evaluation-harness has no task '{name}'; {did_you_mean(name, known)}")
