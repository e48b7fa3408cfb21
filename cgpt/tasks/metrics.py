"""A task's metrics and filters, tried out on made-up answers before a model is asked for any."""

import warnings
from collections.abc import Sequence
from typing import Any

from lm_eval.api.task import ConfigurableTask

from cgpt.errors import UserError
from cgpt.tasks.text_task import Doc, TextTask, reason_of

METRICS = {  # that lm-evaluation-harness computes of each kind of task; of generated text, all that compare texts
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1", "mcc", "brier_score",
                        "likelihood"),
    "loglikelihood": ("acc", "perplexity"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}  # fmt: skip


def check_metrics(task: TextTask, docs: Sequence[Doc], where: str) -> None:
    """Score documents with made-up answers, so that a metric that cannot be computed is known before a model is asked.
    Raises UserError."""
    if task.OUTPUT_TYPE == "generate_until":
        check_filters(task, docs, where)
    if task.config.process_results is not None:
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            scored = [ConfigurableTask.process_results(task, doc, _made_up(task, doc)) for doc in docs]
    except Exception as error:  # metrics fail in many ways
        raise UserError(f"{where}: metric_list: cannot be computed ({reason_of(error)}); correct the metric") from None
    for entry in task.config.metric_list or () if task.OUTPUT_TYPE != "generate_until" else ():
        name = getattr(entry["metric"], "__name__", entry["metric"])
        if name not in scored[0]:
            raise UserError(f"{where}: metric_list: output_type {task.OUTPUT_TYPE} gives no {name}; take it "
                            f"out, or keep one of {', '.join(METRICS[task.OUTPUT_TYPE])}")  # fmt: skip
    for name in scored[0]:
        try:
            with warnings.catch_warnings(action="ignore"):
                float(task.aggregation()[name]([metrics[name] for metrics in scored]))
        except Exception as error:
            raise UserError(f"{where}: metric_list: {name} cannot be aggregated so ({reason_of(error)}); leave out its "
                            "`aggregation`, so that its own is used, or the metric") from None  # fmt: skip


def check_filters(task: TextTask, docs: Sequence[Doc], where: str) -> None:
    """Filter right answers, a long one and an empty one, so that a filter that cannot work is known before a model is
    asked. Raises UserError."""
    answers = [answer for doc in docs[:1] for answer in (*_made_up(task, doc), "", "a" * 256 + "!")]
    for name, filtered in task.filtered([docs[0]] * len(answers), answers).items():
        for answer, text in zip(answers, filtered) if task.config.process_results is None else ():
            if not isinstance(text, str):
                raise UserError(f"{where}: filter_list: '{name}' makes {text!r:.60} of the answer {answer!r:.60}, "
                                "which is no text; end it with take_first, or give a default")  # fmt: skip


def _made_up(task: TextTask, doc: Doc) -> list[Any]:
    """Results of the kind that a model gives: a log-likelihood for each choice, or the right text."""
    if task.OUTPUT_TYPE == "multiple_choice":
        n = len(task.doc_to_choice(doc))
        twice = "acc_mutual_info" in task.aggregation()
        return [(-1.0 - i, i == 0) for i in range(2 * n if twice else n)]
    if task.OUTPUT_TYPE == "loglikelihood":
        return [(-1.0, True)]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return [-1.0]
    target = task.doc_to_target(doc)
    return [str(target[0] if isinstance(target, list) and target else target)]
