"""The bag-of-words baseline."""

from __future__ import annotations

import json

import pytest
from test_tasks import ROWS, write_task

from cgpt.errors import UserError
from cgpt.jobs import Job
from cgpt.records import read_scores
from cgpt.stages.baseline import bag_of_words, baseline


def test_words_that_decide_a_task_are_learned_from_the_labels_given(tmp_path):
    task = write_task(tmp_path, ROWS)
    result, _ = bag_of_words(task, tmp_path, None)
    assert result["accuracy"] == 1.0 and result["n_train"] == 20 and result["n_test"] == 2
    assert bag_of_words(task, tmp_path, 8)[0]["n_train"] == 8


def test_word_order_is_beyond_it(tmp_path):
    rows = [{"sentence": f"{a} not {b}", "label": int(a == "good")} for a, b in [("good", "bad"), ("bad", "good")] * 10]
    assert bag_of_words(write_task(tmp_path, {"train": rows, "test": rows}), tmp_path, None)[0]["accuracy"] == 0.5


def test_the_stage_writes_a_record_that_the_tables_accept(tmp_path):
    out = tmp_path / "baseline" / "toy-1"
    baseline(Job({"task": write_task(tmp_path, ROWS), "n_labels": None}, out, data=tmp_path))
    record = read_scores(out / "scores.json")
    assert (record.stage, record.checkpoint, record.run, record.n_samples) == ("baseline", None, "toy-1", 2)
    assert [(score.metric, score.value, score.chance) for score in record.scores] == [("acc", 1.0, 0.5)]
    assert [json.loads(line)["correct"] for line in (out / "samples.jsonl").read_text().splitlines()] == [True, True]


def test_labels_of_one_kind_only_are_refused(tmp_path):
    rows = {"train": [row for row in ROWS["train"] if row["label"]], "test": ROWS["test"]}
    with pytest.raises(UserError, match="10 training documents have one label"):
        bag_of_words(write_task(tmp_path, rows), tmp_path, None)
