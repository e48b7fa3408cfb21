"""The stage `baseline`: a bag-of-words classifier on the same prompts and labels, blind to the order of the words."""

import hashlib
import importlib.metadata
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgpt.data import content
from cgpt.errors import UserError
from cgpt.files.whole import write_whole
from cgpt.jobs import Job
from cgpt.records import Score, ScoresRecord, write_record
from cgpt.tasks.answers import commonest_answer
from cgpt.tasks.examples import Example, read_examples, read_labelled_examples, read_scored_examples
from cgpt.tasks.lm_eval_tasks import is_classification, where

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # C of scikit-learn; the best on the validation split is used


def baseline(job: Job) -> dict[str, Any]:
    """Train bag-of-words on the task, with its spec's `n_labels` labels; write scores.json (stage "baseline") and
    samples.jsonl; return the former. Raises UserError."""
    started = time.monotonic()
    task = job.spec["task"]
    inputs = content.of_task_data(task, job.data)
    result, samples = bag_of_words(task, job.data, job.spec["n_labels"])
    lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples).encode()
    write_whole(job.folder / "samples.jsonl", lines)
    chance = 1 / len(samples[0]["choices"])
    answer, share = commonest_answer(samples)
    record = ScoresRecord(
        run=job.id,
        task=task["task"],
        task_version=(task.get("metadata") or {}).get("version"),
        checkpoint=None,
        stage="baseline",
        n_shot=0,
        n_samples=result["n_test"],
        documents=result["documents"],
        n_prompts_cut=0,
        hardware="cpu",
        prompt_example=samples[0]["prompt"],
        seconds=time.monotonic() - started,
        samples_sha256=hashlib.sha256(lines).hexdigest(),
        inputs=inputs,
        lm_eval_version=importlib.metadata.version("lm_eval"),
        scores=[Score("acc", "none", result["accuracy"], result["stderr"], True, chance)],
        commonest_answer=answer,
        commonest_answer_share=share,
    )
    write_record(job.folder / "scores.json", record)
    print(f"baseline: {task['task']}: acc {result['accuracy']:.4f}", file=sys.stderr)
    return asdict(record)


def refuse_one_label(task: dict[str, Any], train: Sequence[Example]) -> None:
    """Raises UserError where all training documents have the same label, which nothing can be learnt from."""
    if len({example.label for example in train}) < 2:
        raise UserError(f"{where(task)}: n_labels: the {len(train)} training documents have one label; take more")


def bag_of_words(
    task: dict[str, Any], data_root: Path, n_labels: int | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Accuracy of L2 logistic regression on which words occur, on the documents that `evaluate` scores.

    n_labels: how many training documents, the same ones that `tasks.examples` gives for this limit; None for all.
    Returns accuracy, stderr (over test documents), n_train, n_test, the strength C and the documents' selection; and a
    record of each document. Raises UserError.
    """
    if not is_classification(task):
        raise UserError(
            f"{where(task)}: doc_to_choice: bag of words needs a fixed list of choices and a training_split"
        )
    train = read_labelled_examples(task, data_root, n_labels)
    test, documents = read_scored_examples(task, data_root)
    refuse_one_label(task, train)
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    words = CountVectorizer(binary=True, token_pattern=r"\S+")
    inputs, labels = words.fit_transform([example.prompt for example in train]), [example.label for example in train]
    with threadpool_limits(1):  # what the stage is granted; more threads are slower on matrices this sparse
        models = {c: LogisticRegression(C=c, tol=1e-3, max_iter=300).fit(inputs, labels) for c in STRENGTHS}
    strength = 1.0
    if validation_split := task.get("validation_split"):
        held_out = read_examples(task, data_root, validation_split, 2000)
        seen = words.transform([example.prompt for example in held_out])
        strength = max(STRENGTHS, key=lambda c: models[c].score(seen, [example.label for example in held_out]))
    predictions = models[strength].predict(words.transform([example.prompt for example in test])).tolist()
    accuracy = sum(guess == example.label for guess, example in zip(predictions, test)) / len(test)
    samples = [
        {"doc_id": n, "prompt": example.prompt, "choices": list(example.choices), "target": [example.label],
         "prediction": guess, "correct": guess == example.label}
        for n, (example, guess) in enumerate(zip(test, predictions))
    ]  # fmt: skip
    stderr = math.sqrt(accuracy * (1 - accuracy) / (len(test) - 1)) if len(test) > 1 else None
    return {
        "accuracy": accuracy, "stderr": stderr, "n_train": len(train), "n_test": len(test), "c": strength,
        "documents": documents,
    }, samples  # fmt: skip
