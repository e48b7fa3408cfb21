"""Tasks of lm-evaluation-harness, built of a task's YAML and its data files."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.data import task_rows
from cgpt.data.hub import prepare_environment
from cgpt.errors import UserError, did_you_mean, first_line
from cgpt.files.layers import file_of
from cgpt.tasks import functions, stock, templates
from cgpt.tasks.keys import OUR_KEYS
from cgpt.tasks.scoring import UNSAFE_CODE, UNUSABLE

if TYPE_CHECKING:
    from cgpt.tasks.text_task import TextTask

SOURCE_KEYS = ("data", "files_sha256")  # keys of a task in a plan that say where the data are
FEWSHOT_SEED = 1234  # lm-evaluation-harness's own default


def where(task: dict[str, Any]) -> str:
    """The file that a problem of this task is reported against; lm-evaluation-harness's tasks are named by themselves,
    as one file may stand for many."""
    if task.get("stock"):
        return f"lm-evaluation-harness's task '{task['task']}'"
    return file_of("tasks", str(task.get("task")))


def is_classification(task: dict[str, Any]) -> bool:
    """Whether a task has a training split and the same choices for every document, so that counting words can do it."""
    return isinstance(task.get("doc_to_choice"), (list, dict)) and bool(task.get("training_split"))


def evaluation_split(task: dict[str, Any]) -> str:
    """The split that scores are computed on: `test_split`, else `validation_split` (lm-evaluation-harness's rule)."""
    split = task.get("test_split") or task.get("validation_split")
    if split is None:
        raise UserError(f"{where(task)}: test_split: is missing; write the split that scores are computed on")
    return split


def check_form(task: dict[str, Any], data_root: Path) -> None:
    """Check what can be checked of a task without its data: templates and metrics. Raises UserError."""
    prepare_environment(data_root)
    from cgpt.tasks.fields import check_fields

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
    from cgpt.tasks.fields import check_fields
    from cgpt.tasks.shots import check_fewshot, check_shots, shots_split

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
        # With `dataset_kwargs`, which are for the files that were just read, it imports the library `datasets`.
        config |= {"custom_dataset": lambda **_: loaded, "dataset_kwargs": None}
    lm_task = _construct(config, where(task))
    check_shots(lm_task, where(task))
    lm_task.set_fewshot_seed(FEWSHOT_SEED)
    return lm_task


def _harness_config(task: dict[str, Any]) -> dict[str, Any]:
    """The keys that lm-evaluation-harness is given: its own task's where the task is one, then those of the file."""
    config = stock.config(task["task"], where(task)) if task.get("stock") else {}
    keys = {key: deepcopy(value) for key, value in task.items() if key not in (*OUR_KEYS, *SOURCE_KEYS)}
    return config | functions.resolve(keys, where(task))


def _construct(config: dict[str, Any], name: str) -> TextTask:
    """Make the task object, which renders the first document; whatever goes wrong names the file and the reason."""
    from cgpt.tasks.text_task import TextTask

    try:
        return TextTask(config, name)
    except UserError:
        raise
    except OSError as error:
        problem = (
            f"task: its data set '{config.get('dataset_path')}' cannot be had ({first_line(error)}); connect to the "
            "network, or give your own files with data and dataset_kwargs.data_files"
        )
    except Exception as error:  # templates and keys fail in many ways
        problem = f"lm-evaluation-harness refuses it: {first_line(error)}; correct the named key"
    raise UserError(f"{name}: {problem}")


def _datasets(rows: dict[str, list[task_rows.Row]], config: dict[str, Any], name: str) -> dict[str, Any]:
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
        raise UserError(f"{name}: a field changes its type within the data: {first_line(error)}; make its values alike"
                        ) from None  # fmt: skip


def _refuse_unusable(config: dict[str, Any], name: str) -> None:
    """Raise UserError for keys that no model of text can use, which lm-evaluation-harness's own tasks may have too."""
    problems = [f"{name}: {key}: {what}" for key, what in UNUSABLE.items() if config.get(key) is not None]
    if config.get("unsafe_code"):
        problems.append(f"{name}: unsafe_code: {UNSAFE_CODE}")
    if problems:
        raise UserError(*problems)


def _check_names(config: dict[str, Any], name: str) -> None:
    """Raise UserError for metrics and filters that lm-evaluation-harness has not."""
    import lm_eval.api.metrics
    import lm_eval.filters  # noqa: F401  both fill a registry
    from lm_eval.api.registry import METRIC_REGISTRY, filter_registry

    problems = []
    for entry in [] if config.get("process_results") else config.get("metric_list") or []:
        metric = entry.get("metric")
        if isinstance(metric, str) and not entry.get("hf_evaluate") and metric not in METRIC_REGISTRY:
            problems.append(f"{name}: metric_list: no metric '{metric}'; {did_you_mean(metric, METRIC_REGISTRY)}")
    filters = list(filter_registry.keys())
    for step in (step["function"] for entry in config.get("filter_list") or () for step in entry["filter"]):
        if step not in filters:
            problems.append(f"{name}: filter_list: there is no filter '{step}'; {did_you_mean(step, filters)}")
    if problems:
        raise UserError(*problems)
