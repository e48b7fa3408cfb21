"""The stage `evaluate`: a checkpoint on a task, by lm-evaluation-harness; writes scores.json and samples.jsonl."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from cgpt.data import content
from cgpt.files.whole import write_whole
from cgpt.jobs import Job
from cgpt.records import ANSWER_BITS, Score, ScoresRecord, write_record
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.answers import commonest_answer
from cgpt.tasks.documents import check_documents, describe_selection, select_documents

BOOTSTRAP_ITERATIONS = 1000  # for the standard error of metrics that are no mean (perplexity, F1)
ACCURACIES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")

Sample = dict[str, Any]


def evaluate(job: Job) -> dict[str, Any]:
    """Score the model of the upstream stage `checkpoint_stage` on the task; write scores.json and samples.jsonl, and
    return the former. Raises UserError."""
    started = time.monotonic()
    task, stage, hardware = job.spec["task"], job.spec["checkpoint_stage"], job.hardware
    checkpoint = job.upstream[stage]
    print(f"evaluate: {checkpoint.name} on {task['task']}", file=sys.stderr)
    # The task first: a wrong label or a missing file must not cost the loading of a model.
    inputs = content.of_task_data(task, job.data)
    lm_task = lm_eval_tasks.build(task, job.data)
    from cgpt.checkpoint.folder import load
    from cgpt.inference.lm_eval_model import Adapter

    model, tokenizer = load(checkpoint, hardware, job.threads)
    inputs |= content.of_checkpoint(checkpoint, stage)
    scores, samples = score_task(task, lm_task, Adapter(model, tokenizer))
    prompt, (answer, share) = samples[0]["prompt"], commonest_answer(samples)
    lines = "".join(json.dumps(sample, ensure_ascii=False, default=_plain) + "\n" for sample in samples).encode()
    write_whole(job.folder / "samples.jsonl", lines)
    seconds = time.monotonic() - started
    record = ScoresRecord(
        run=job.id,
        task=task["task"],
        task_version=lm_task.VERSION,
        checkpoint=checkpoint.name,
        stage=stage,
        n_shot=lm_task.config.num_fewshot,
        documents=describe_selection(task, len(lm_task.eval_docs)),
        n_samples=len({sample["doc_id"] for sample in samples}),
        n_prompts_cut=len({sample["doc_id"] for sample in samples if sample["n_tokens_cut"]}),
        hardware=hardware.name,
        weights_dtype=hardware.weights_dtype,
        prompt_example=prompt if isinstance(prompt, str) else prompt[0],
        seconds=seconds if hardware.timing == "measured" else None,
        samples_sha256=hashlib.sha256(lines).hexdigest(),
        inputs=inputs,
        lm_eval_version=importlib.metadata.version("lm_eval"),
        scores=scores,
        commonest_answer=answer,
        commonest_answer_share=share,
    )
    write_record(job.folder / "scores.json", record)
    if record.n_prompts_cut:
        print(f"evaluate: {record.n_prompts_cut:,} of {record.n_samples:,} prompts were longer than the model's "
              f"{model.config.seq_len} tokens and lost their start", file=sys.stderr)  # fmt: skip
    summary = ", ".join(f"{score.metric} {score.value:.4g}" for score in scores)
    print(f"evaluate: {record.n_samples:,} documents in {seconds:.1f} s: {summary}", file=sys.stderr)
    return asdict(record)


def score_task(task: dict[str, Any], lm_task: Any, adapter: Any) -> tuple[list[Score], list[Sample]]:
    """Run lm-evaluation-harness on a task that `build` made; return its metrics, and every document's record.

    The task's `limit` evaluates the first documents, its `sample` a fixed random sample of them. Raises UserError for a
    document that cannot be scored.
    """
    from lm_eval.evaluator import evaluate as run_harness

    name, numbers = lm_task.task_name, select_documents(task, len(lm_task.eval_docs))
    check_documents(task, lm_task, numbers)
    with contextlib.redirect_stdout(sys.stderr):  # lm-evaluation-harness prints while it bootstraps
        results = run_harness(
            adapter,
            {"tasks": {name: lm_task}},
            limit=len(numbers) if task.get("sample") is None else None,
            samples={name: numbers} if task.get("sample") is not None else None,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
        )
    cuts = getattr(adapter, "cuts", {})  # another model of lm-evaluation-harness cuts in silence
    samples = [_sample(lm_task, logged, cuts) for logged in results["samples"][name]]
    samples.sort(key=lambda sample: (sample["doc_id"], sample["filter"]))
    return _scores(results["results"][name], results["higher_is_better"][name], samples), samples


def chance_level(samples: list[Sample]) -> float | None:
    """Expected accuracy of a uniform guess: the documents' mean of correct choices / choices; None without choices."""
    if not samples or not samples[0]["choices"]:
        return None
    return float(np.mean([len(set(sample["target"])) / len(sample["choices"]) for sample in samples]))


def bits_per_byte(text: str, loglikelihood: float) -> float:
    """-log2 p(text) / its UTF-8 bytes, of a log-likelihood in nats; lower is better.

    The bytes are those of the whole text that was scored, with the delimiter before an answer. So do OLMES and OLMo's
    evaluation in the training loop count (allenai/OLMo-in-loop-evals, tasks.py: `cont_byte_len`). At the time of the
    model ladder (arXiv 2412.04403) they did not (allenai/OLMo, olmo/eval/downstream.py: `continuation_str[1:]`), and
    `acc_bytes` of lm-evaluation-harness does not: an answer of n bytes after its space has 1 + 1/n times as many there.
    """
    return -loglikelihood / math.log(2) / len(text.encode())


def _sample(lm_task: Any, logged: dict[str, Any], cuts: dict) -> Sample:
    """The record of one document: the text as the model saw it, its answers, and the value of every metric."""
    from cgpt.tasks.text_task import right_choices

    contexts, n_tokens_cut = _contexts_seen(logged["arguments"], cuts)
    metrics = {name: logged[name] for name in logged["metrics"]}
    prompt: str | list[str] = contexts[0]
    choices: list[str] | None = None
    target, loglikelihoods, prediction = logged["target"], None, None
    if lm_task.OUTPUT_TYPE == "multiple_choice":
        names = lm_task.doc_to_choice(logged["doc"])
        label = lm_task.doc_to_text(logged["doc"]) if lm_task.multiple_input else target
        target = right_choices(label, names, "document")
        choices = [arguments[1] for arguments in logged["arguments"]][: len(names)]
        prompt = contexts[: len(names)] if lm_task.multiple_input else prompt
        loglikelihoods = [float(answer[0]) for answer in logged["filtered_resps"]][: len(names)]
        prediction = int(np.argmax(loglikelihoods))
        for right in target[:1]:  # of several correct choices the first, which is the one that fine-tuning learns
            metrics[ANSWER_BITS] = bits_per_byte(choices[right], loglikelihoods[right])
    elif lm_task.OUTPUT_TYPE == "loglikelihood":
        loglikelihoods = [float(logged["filtered_resps"][0][0])]
        metrics[ANSWER_BITS] = bits_per_byte(logged["arguments"][0][1], loglikelihoods[0])
    elif lm_task.OUTPUT_TYPE == "loglikelihood_rolling":
        prompt, loglikelihoods = "", [float(logged["filtered_resps"][0])]
    else:
        prediction = logged["filtered_resps"][0]
    correct = metrics.get("acc", metrics.get("exact_match"))
    return {
        "doc_id": logged["doc_id"],
        "filter": logged["filter"],
        "prompt": prompt,
        "n_tokens_cut": n_tokens_cut,
        "choices": choices,
        "target": target,
        "loglikelihoods": loglikelihoods,
        "prediction": prediction,
        "correct": None if correct is None else bool(correct),
        "metrics": metrics,
    }


def _contexts_seen(requests: list[tuple], cuts: dict) -> tuple[list[str], int]:
    """The context of each request of a document as the model saw it, and the most tokens that were cut from one.

    Of a prompt that was cut, it is what the model saw beside the longest answer.
    """
    contexts, n_tokens_cut = [arguments[0] for arguments in requests], 0
    for asked, answer in [(arguments[0], arguments[-1]) for arguments in requests]:
        cut = cuts.get((asked, answer if isinstance(answer, str) else None))
        if cut and cut.n_tokens > n_tokens_cut:
            n_tokens_cut = cut.n_tokens
            contexts = [cut.text if arguments[0] == asked else context
                        for arguments, context in zip(requests, contexts)]  # fmt: skip
    return contexts, n_tokens_cut


def _scores(values: dict[str, Any], higher_is_better: dict[str, bool], samples: list[Sample]) -> list[Score]:
    chance, scores = chance_level(samples), []
    for key, value in values.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = values.get(f"{metric}_stderr,{filter_name}")
        scores.append(
            Score(
                metric=metric,
                filter=filter_name,
                value=float(value),
                stderr=None if stderr in (None, "N/A") else float(stderr),
                higher_is_better=higher_is_better.get(metric),
                chance=chance if metric in ACCURACIES else None,
            )
        )
    return scores + _answer_score(samples)


def _answer_score(samples: list[Sample]) -> list[Score]:
    """Mean over documents of the bits per byte of the correct answer; nothing where answers have no likelihood."""
    one_filter = [sample["metrics"] for sample in samples if sample["filter"] == samples[0]["filter"]]
    bits = np.array([metrics[ANSWER_BITS] for metrics in one_filter if ANSWER_BITS in metrics])
    if not bits.size:
        return []
    stderr = float(bits.std(ddof=1) / math.sqrt(bits.size)) if bits.size > 1 else None
    return [Score(ANSWER_BITS, samples[0]["filter"], float(bits.mean()), stderr, False, None)]


def _plain(value: Any) -> Any:
    """NumPy scalars as JSON numbers."""
    return value.item() if hasattr(value, "item") else str(value)
