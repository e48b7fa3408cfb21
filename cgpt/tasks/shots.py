"""Shots: the examples before a question, which lm-evaluation-harness draws."""

import functools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lm_eval.api.samplers import SAMPLER_REGISTRY
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.task import FewshotConfig

from cgpt.errors import UserError, did_you_mean
from cgpt.tasks.text_task import TextTask, check_texts, render


def check_fewshot(keys: Any, config: dict[str, Any], where: str) -> None:
    """Raise UserError for keys of a file's `fewshot_config` that lm-evaluation-harness has not, or does not use.

    `config` holds all keys of the task, those of one that lm-evaluation-harness brings too, which stand as they are.
    """
    if keys is None:
        return
    if not isinstance(keys, dict):
        raise UserError(f"{where}: fewshot_config: must be a mapping; write `key: value` lines below it")
    known = {field.name for field in fields(FewshotConfig)} - {"fewshot_indices"}  # which no sampler is given
    problems = [f"{where}: fewshot_config.{key}: is no key that has an effect; {did_you_mean(str(key), known)}"
                for key in keys if key not in known]  # fmt: skip
    sampler = keys.get("sampler", "default")
    if isinstance(sampler, str) and sampler not in SAMPLER_REGISTRY:
        problems.append(f"{where}: fewshot_config.sampler: there is no sampler '{sampler}'; "
                        f"{did_you_mean(sampler, SAMPLER_REGISTRY)}")  # fmt: skip
    if keys.get("samples") is not None and keys.get("split", config.get("fewshot_split")) is not None:
        problems.append(f"{where}: fewshot_config.samples: a split for shots is named too, and would be used instead; "
                        "remove one of the two")  # fmt: skip
    samples = keys.get("samples")
    if samples is not None and not callable(samples) and not (
        isinstance(samples, list) and samples and all(isinstance(sample, dict) for sample in samples)
    ):  # fmt: skip
        problems.append(f"{where}: fewshot_config.samples: must be a list of documents; write `- field: text` lines")
    if problems:
        raise UserError(*problems)


def check_shots(task: TextTask, where: str) -> None:
    """Refuse more shots than there are documents to draw from, and shots that cannot be rendered. Raises UserError.

    It draws the shots of the first document, so the seed is to be set after it.
    """
    n_shot = task.config.num_fewshot or 0
    if not n_shot:
        return
    split = shots_split(vars(task.config) | {"fewshot_config": vars(task.fewshot_cfg)})
    same = task.fewshot_cfg.split == task.config.test_split  # then the document itself is left out of what is drawn
    one_more = same and (task.fewshot_cfg.sampler == "default" or split == task.evaluated_split)
    n_docs = len(task.sampler.df)
    if n_shot + one_more > n_docs:
        of = f"split '{split}'" if split else "fewshot_config.samples"
        raise UserError(f"{where}: num_fewshot: {n_shot} shots cannot be drawn from the {n_docs} documents of {of}; "
                        f"write at most {max(0, n_docs - one_more)}")  # fmt: skip
    first = task.name_document(0)
    check_texts(task, task.task_docs[0], first)
    prompt = functools.partial(ConfigurableTask.fewshot_context, task, num_fewshot=n_shot)
    render(prompt, task.task_docs[0], f"{first}, with its shots")


def shots_split(config: Mapping[str, Any]) -> str | None:
    """The split that a task's shots are drawn from, by the engine's rule; None without shots, or where its
    `fewshot_config` holds them."""
    fewshot = config.get("fewshot_config") or {}
    if not config.get("num_fewshot"):
        return None
    if split := fewshot.get("split", config.get("fewshot_split")):
        return split
    if fewshot.get("samples") is not None:
        return None
    return next(filter(None, (config.get(f"{name}_split") for name in ("training", "validation", "test"))))
