"""Evaluation through lm-evaluation-harness's real engine, with a bigram model in place of the GPT."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bigram
import numpy as np
import pytest
from test_tasks import ROWS, write_task

from cgpt.errors import UserError
from cgpt.inference.lm_eval_model import Adapter
from cgpt.jobs import Job
from cgpt.model.loglikelihood import score
from cgpt.records import SEAL, read_scores
from cgpt.stages.evaluate import chance_level, evaluate, score_task
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.documents import describe_selection, pick_subset

pytestmark = pytest.mark.usefixtures("bigram_decoder")
TOKENIZER = bigram.make_tokenizer()
MODEL = bigram.make_model(TOKENIZER.get_vocab_size())
END = TOKENIZER.token_to_id("<|endoftext|>")


def adapter(model=MODEL):
    return Adapter(model, TOKENIZER)


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=args) for args in arguments]


def run(task: dict, root: Path):
    scores, samples = score_task(task, lm_eval_tasks.build(task, root), adapter())
    return {score.metric: score for score in scores}, samples


def variable_choices(root: Path) -> dict:
    rows = [
        {"q": "who was here ?", "options": ["nobody", "a calm river"], "label": 0},
        {"q": "is it so ?", "options": ["yes", "no", "a loud city", "é"], "label": 3},
    ]
    return write_task(root, {"test": rows}, doc_to_text="{{q}}", doc_to_choice="options", training_split=None)


def test_loglikelihoods_and_accuracy_are_those_of_a_direct_computation(tmp_path):
    scores, samples = run(variable_choices(tmp_path), tmp_path)
    right = []
    for sample in samples:
        direct = [bigram.direct(MODEL, TOKENIZER, sample["prompt"], choice) for choice in sample["choices"]]
        assert sample["loglikelihoods"] == pytest.approx(direct, abs=1e-9)
        assert sample["prediction"] == int(np.argmax(direct))
        (label,) = sample["target"]
        right.append(sample["prediction"] == label)
    assert scores["acc"].value == pytest.approx(np.mean(right))
    assert [sample["correct"] for sample in samples] == right


# Question, choices, the correct one, and the bytes of its text with the space before it: é and 川 have two and three.
ANSWERS = [
    ("who was here ?", ["nobody", "a calm river"], 1, 13),
    ("is it so ?", ["yes", "no", "a loud city", "é"], 3, 3),
    ("the film ?", ["川 good", "bad", "é"], 0, 9),
    ("the city ?", ["loud", "calm"], 0, 5),
]


def assert_bits_per_byte(scores: dict, samples: list[dict], expected: list[float]) -> None:
    """The score is the mean of one value per document, with the standard error of a mean; each sample has its own."""
    assert [sample["metrics"]["bits_per_byte_of_answer"] for sample in samples] == pytest.approx(expected)
    score = scores["bits_per_byte_of_answer"]
    assert score.value == pytest.approx(np.mean(expected))
    assert score.stderr == pytest.approx(np.std(expected, ddof=1) / np.sqrt(len(expected)))
    assert (score.higher_is_better, score.chance) == (False, None)


@pytest.mark.parametrize("how", ["index", "text", "template"])
def test_bits_per_byte_of_the_correct_answer_are_those_of_a_direct_computation_however_the_target_is_given(
    tmp_path, how
):
    target = {"index": "label", "text": "answer", "template": "{{label}}"}[how]
    rows = [
        {"q": question, "options": choices, "label": label, "answer": choices[label]}
        for question, choices, label, _ in ANSWERS
    ]
    task = write_task(tmp_path, {"test": rows}, doc_to_text="{{q}}", doc_to_choice="options", doc_to_target=target,
                      training_split=None)  # fmt: skip
    expected = [
        -bigram.direct(MODEL, TOKENIZER, question, " " + choices[label]) / np.log(2) / n_bytes
        for question, choices, label, n_bytes in ANSWERS
    ]
    assert_bits_per_byte(*run(task, tmp_path), expected)


def test_where_the_contexts_differ_the_bits_are_those_of_the_ending_after_the_correct_one(tmp_path):
    rows = [
        {"before": ["the film is good", "a calm river"], "ending": "is loud .", "label": 1},
        {"before": ["the film is bad", "yes"], "ending": "was here", "label": 0},
    ]
    task = write_task(tmp_path, {"test": rows}, training_split=None, doc_to_text="label", doc_to_choice="before",
                      doc_to_target="ending")  # fmt: skip
    scores, samples = run(task, tmp_path)
    assert [sample["prompt"] for sample in samples] == [row["before"] for row in rows]
    expected = [
        -bigram.direct(MODEL, TOKENIZER, row["before"][row["label"]], " " + row["ending"]) / np.log(2) / n_bytes
        for row, n_bytes in zip(rows, (10, 9))
    ]
    assert_bits_per_byte(scores, samples, expected)


def test_of_several_correct_answers_the_first_gives_the_bits_and_a_document_without_one_gives_none(tmp_path):
    rows = [
        {"q": "who was here ?", "options": ["nobody", "yes", "a calm river"], "labels": [2, 0]},
        {"q": "is it so ?", "options": ["yes", "no"], "labels": [1]},
        {"q": "the film ?", "options": ["good", "bad"], "labels": []},
    ]
    task = write_task(tmp_path, {"test": rows}, doc_to_text="{{q}}", doc_to_choice="options", doc_to_target="labels",
                      training_split=None)  # fmt: skip
    scores, samples = run(task, tmp_path)
    pairs = [("who was here ?", " a calm river"), ("is it so ?", " no")]
    expected = [-bigram.direct(MODEL, TOKENIZER, *pair) / np.log(2) / len(pair[1]) for pair in pairs]
    assert "bits_per_byte_of_answer" not in samples[2]["metrics"]
    assert_bits_per_byte(scores, samples[:2], expected)


def test_chance_is_the_mean_of_one_over_the_number_of_choices(tmp_path):
    scores, samples = run(variable_choices(tmp_path), tmp_path)
    assert chance_level(samples) == scores["acc"].chance == (1 / 2 + 1 / 4) / 2
    assert scores["bits_per_byte_of_answer"].chance is None


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_scores_are_the_same_at_every_batch_size(tmp_path, monkeypatch, batch):
    task = write_task(tmp_path, {"train": ROWS["train"], "test": ROWS["train"]})
    expected = run(task, tmp_path)
    monkeypatch.setattr("cgpt.model.loglikelihood.TOKENS_PER_BATCH", 32 * batch)
    assert run(task, tmp_path) == expected


def test_sequences_are_scored_longest_first_and_answered_in_the_order_asked():
    model = bigram.make_model(TOKENIZER.get_vocab_size())
    pairs = [("the film", " is good"), (" . ".join(["a calm river and a loud city"] * 5), " yes"), ("no", " no")]
    answers = adapter(model).loglikelihood(requests(*pairs))
    assert [total for total, _ in answers] == pytest.approx([bigram.direct(model, TOKENIZER, *pair) for pair in pairs])
    assert model.lengths == [64, 32]


def test_an_empty_context_is_the_end_of_text_token():
    ((total, _),) = adapter().loglikelihood(requests(("", "yes")))
    ids = [END, *TOKENIZER.encode("yes").ids]
    assert total == pytest.approx(sum(MODEL.table[a, b] for a, b in itertools.pairwise(ids)))


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation():
    moved, plain = adapter().loglikelihood(requests(("the film ", "is good"), ("the film", " is good")))
    assert moved == plain


def test_a_context_longer_than_the_model_loses_its_start(monkeypatch):
    recorded = []

    def noted(model, sequences, first, on_scored):
        recorded.extend(zip(sequences, first))
        return score(model, sequences, first)

    monkeypatch.setattr("cgpt.inference.lm_eval_model.score", noted)
    context = "a calm river and a loud city . " * 40 + "yes"
    adapter().loglikelihood(requests((context, " no")))
    ((tokens, first),) = recorded
    whole = TOKENIZER.encode(context + " no").ids
    assert tokens.tolist() == whole[-65:] and first == 65 - (len(whole) - len(TOKENIZER.encode(context).ids))


def test_a_text_or_an_answer_longer_than_the_model_is_scored_token_by_token_exactly_once():
    text = "a calm river and a loud city . " * 40
    ids = [END, *TOKENIZER.encode(text).ids]
    assert len(ids) > 3 * 64
    expected = sum(MODEL.table[a, b] for a, b in itertools.pairwise(ids))
    assert adapter().loglikelihood_rolling(requests((text,))) == pytest.approx([expected])
    ((total, _),) = adapter().loglikelihood(requests(("yes", " " + text)))
    assert total == pytest.approx(bigram.direct(MODEL, TOKENIZER, "yes", " " + text))


def test_greedy_is_true_only_for_the_most_likely_continuation():
    ids = [int(MODEL.table[END].argmax())]
    while len(ids) < 4:
        ids.append(int(MODEL.table[ids[-1]].argmax()))
    texts = ("", "an answer")
    answers = adapter()._loglikelihood_tokens([(texts, [END], ids), (texts, [END], [ids[0] ^ 1, *ids[1:]])])
    assert [greedy for _, greedy in answers] == [True, False]


def test_generation_is_cut_before_the_stop_string():
    text = adapter().generate_until(requests(("the film", {"until": [], "max_gen_toks": 8})))[0]
    stop = text[2:4]
    for until in ([stop], stop, ["", stop]):
        answer = adapter().generate_until(requests(("the film", {"until": until, "max_gen_toks": 8})))[0]
        assert answer == text.split(stop)[0]


def test_an_answer_without_a_token_is_refused():
    with pytest.raises(UserError, match="has no token of its own"):
        adapter().loglikelihood(requests(("the film", "")))


def test_few_shot_examples_are_the_same_in_every_run_and_stand_in_the_prompt(tmp_path):
    task = write_task(tmp_path, ROWS, num_fewshot=2)
    first, second = run(task, tmp_path)[1], run(task, tmp_path)[1]
    assert first == second
    assert first[0]["prompt"].count("Sentiment:") == 3 and first[0]["prompt"].endswith("a good film\nSentiment:")


def test_a_sample_evaluates_a_fixed_random_subset_under_its_own_document_numbers(tmp_path):
    task = write_task(tmp_path, {"train": ROWS["train"], "test": ROWS["train"]}, sample=7)
    samples = run(task, tmp_path)[1]
    assert [sample["doc_id"] for sample in samples] == pick_subset(20, 7)
    assert all(sample["prompt"].startswith(f"film {sample['doc_id']} is") for sample in samples)


@pytest.mark.parametrize("limit", [7, 0.33, 0.999, 100])
def test_a_limit_evaluates_the_first_documents_as_lm_eval_counts_them(tmp_path, limit):
    from lm_eval.evaluator_utils import get_sample_size

    task = write_task(tmp_path, {"train": ROWS["train"], "test": ROWS["train"]}, limit=limit)
    samples = run(task, tmp_path)[1]
    n = min(20, get_sample_size(lm_eval_tasks.build(task, tmp_path), limit))
    assert [sample["doc_id"] for sample in samples] == list(range(n))
    assert describe_selection(task, 20) == ("all" if n == 20 else f"first {n} of 20")


def test_a_last_word_task_gives_perplexity_and_accuracy_without_a_chance_level(tmp_path):
    task = write_task(
        tmp_path, {"test": [{"text": "the film is good"}, {"text": "the film is bad"}]}, output_type="loglikelihood",
        training_split=None, doc_to_choice=None, doc_to_text="{{text.split(' ')[:-1]|join(' ')}}",
        doc_to_target="{{' '+text.split(' ')[-1]}}",
        metric_list=[
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    )  # fmt: skip
    scores, samples = run(task, tmp_path)
    expected = [bigram.direct(MODEL, TOKENIZER, "the film is", word) for word in (" good", " bad")]
    assert scores["perplexity"].value == pytest.approx(math.exp(-np.mean(expected)))
    assert scores["acc"].chance is None and scores["perplexity"].stderr > 0
    assert samples[0]["choices"] is None and samples[0]["loglikelihoods"] == pytest.approx(expected[:1])
    assert_bits_per_byte(scores, samples, [-expected[0] / np.log(2) / 5, -expected[1] / np.log(2) / 4])


def test_a_generation_task_is_scored_by_exact_match(tmp_path):
    task = write_task(
        tmp_path, {"test": [{"q": "the film", "a": "?"}]}, output_type="generate_until",
        training_split=None, doc_to_choice=None,
        doc_to_text="{{q}}", doc_to_target="a", generation_kwargs={"until": ["."], "max_gen_toks": 4},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )  # fmt: skip
    scores, samples = run(task, tmp_path)
    assert scores["exact_match"].value == 0 and scores["exact_match"].chance is None
    assert isinstance(samples[0]["prediction"], str) and samples[0]["correct"] is False
    assert list(scores) == ["exact_match"]


def test_a_text_that_is_no_answer_has_bits_per_byte_of_the_text_alone(tmp_path):
    task = write_task(
        tmp_path, {"test": [{"text": "the film is good"}, {"text": "a calm river"}]}, training_split=None,
        output_type="loglikelihood_rolling", doc_to_choice=None, doc_to_text="", doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    assert list(run(task, tmp_path)[0]) == ["bits_per_byte"]


def test_a_wrong_label_stops_the_evaluation_before_the_model_is_asked(tmp_path):
    rows = [*ROWS["test"], {"sentence": "so so", "label": 2}]
    with pytest.raises(UserError, match="split 'test', document 2: doc_to_target: label 2 is not among the choices"):
        run(write_task(tmp_path, {"train": ROWS["train"], "test": rows}), tmp_path)


def test_the_stage_writes_a_record_that_the_tables_accept_and_every_sample(tmp_path, monkeypatch):
    loaded = SimpleNamespace(load=lambda folder, hardware, threads: (MODEL, TOKENIZER))
    monkeypatch.setitem(sys.modules, "cgpt.checkpoint.folder", loaded)
    spec = {"task": write_task(tmp_path / "data", ROWS), "checkpoint_stage": "pretrain", "hardware": {"name": "cpu"}}
    out = tmp_path / "evaluate" / "toy-1"
    record = evaluate(Job(spec, out, {"pretrain": tmp_path / "gpt-1"}, tmp_path / "data"))
    read = read_scores(out / "scores.json")
    assert (read.run, read.checkpoint, read.n_samples, read.task_version) == ("toy-1", "gpt-1", 2, 1.0)
    assert read.prompt_example == "a good film\nSentiment:" and record["scores"][0]["metric"] == "acc"
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [line["choices"] for line in lines] == [[" bad", " good"]] * 2
    predictions = [line["prediction"] for line in lines]
    assert read.commonest_answer_share == max(predictions.count(0), predictions.count(1)) / 2
    assert read.commonest_answer in ("bad", "good")
    assert sorted(path.name for path in out.iterdir()) == ["samples.jsonl", "scores.json"]


def test_evaluation_touches_neither_the_network_nor_the_home_folder(tmp_path):
    task = write_task(tmp_path / "data", ROWS)
    code = f"""
import socket, sys
def refuse(*_): raise SystemExit("network")
socket.socket.connect = refuse
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]
from pathlib import Path
import bigram
from cgpt.stages import evaluate
from cgpt.tasks import lm_eval_tasks
lm_task = lm_eval_tasks.build({task!r}, Path({str(tmp_path / "data")!r}))
from cgpt.inference.lm_eval_model import Adapter
from cgpt.model.loglikelihood import score
tokenizer = bigram.make_tokenizer()
model = bigram.make_model(tokenizer.get_vocab_size())
evaluate.score_task({task!r}, lm_task, Adapter(model, tokenizer))
"""
    home = tmp_path / "home"
    home.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TQDM_"))}
    clean["HOME"] = str(home)
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == [] and done.stdout == ""


LONG = "a calm river and a loud city . " * 40


def test_prompts_that_lost_their_start_are_counted_and_shown_as_the_model_saw_them(tmp_path, monkeypatch, capsys):
    rows = [{"sentence": text, "label": 0} for text in ("the film", LONG + "no", "who was here ?", LONG + "yes")]
    task = write_task(tmp_path / "data", {"test": rows}, doc_to_text="sentence", training_split=None)
    record, samples, err = stage(task, tmp_path, monkeypatch, capsys)
    assert (record.n_prompts_cut, record.n_samples) == (2, 4)
    assert "evaluate: 2 of 4 prompts were longer than the model's 64 tokens and lost their start" in err
    longest = max(len(TOKENIZER.encode(f" {choice}").ids) for choice in ("bad", "good"))
    for sample, row in zip(samples, rows):
        n = len(TOKENIZER.encode(row["sentence"]).ids) + longest - (64 + 1)
        assert sample["n_tokens_cut"] == max(0, n)
        assert sample["prompt"] == TOKENIZER.decode(TOKENIZER.encode(row["sentence"]).ids[max(0, n) :])


def test_a_prompt_that_is_continued_is_counted_where_it_was_cut(tmp_path, monkeypatch, capsys):
    task = write_task(
        tmp_path / "data", {"test": [{"q": "the film", "a": "?"}, {"q": LONG, "a": "?"}]}, output_type="generate_until",
        training_split=None, doc_to_choice=None, doc_to_text="q", doc_to_target="a",
        generation_kwargs={"until": ["."], "max_gen_toks": 4}, metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    record, samples, _ = stage(task, tmp_path, monkeypatch, capsys)
    tokens = TOKENIZER.encode(LONG).ids
    assert record.n_prompts_cut == 1
    assert [sample["n_tokens_cut"] for sample in samples] == [0, len(tokens) - 60]
    assert samples[1]["prompt"] == TOKENIZER.decode(tokens[-60:])


def test_few_shot_prompts_that_lose_their_shots_are_counted(tmp_path, monkeypatch, capsys):
    rows = {"train": [{"sentence": LONG[:100], "label": 0}] * 9, "test": ROWS["test"]}
    task = write_task(tmp_path / "data", rows, num_fewshot=3)
    record, samples, _ = stage(task, tmp_path, monkeypatch, capsys)
    assert (record.n_shot, record.n_prompts_cut) == (3, 2)
    assert all(sample["prompt"].count("Sentiment:") < 4 for sample in samples)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_log_likelihood_that_is_not_finite_stops_the_evaluation_with_one_line(tmp_path, value):
    broken = bigram.Bigram(np.full_like(MODEL.table, value), MODEL.config.seq_len)
    task = write_task(tmp_path, ROWS)
    with pytest.raises(UserError, match=r"log-likelihoods are not finite \((nan|inf|-inf)\)"):
        score_task(task, lm_eval_tasks.build(task, tmp_path), adapter(broken))


@pytest.mark.parametrize("change, said", [
    ({"value": 7.0}, "scores: acc: 7.0 is not from 0 to 1"), ({"value": -0.1}, "scores: acc: -0.1 is not from 0 to 1"),
    ({"stderr": -1.0}, "scores: acc: stderr: -1.0 is negative"), ({"chance": 2.0}, "chance: 2.0 is not from 0 to 1"),
])  # fmt: skip
def test_a_score_that_no_evaluation_can_give_is_refused_at_reading(tmp_path, monkeypatch, capsys, change, said):
    stage(write_task(tmp_path / "data", ROWS), tmp_path, monkeypatch, capsys)
    path = tmp_path / "evaluate" / "toy-1" / "scores.json"
    record = {key: value for key, value in json.loads(path.read_text()).items() if key != SEAL}  # which shows a change
    record["scores"][0] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(UserError) as caught:
        read_scores(path)
    assert said in str(caught.value)


def stage(task: dict, root: Path, monkeypatch, capsys) -> tuple:
    """The whole stage with the bigram model: its record, its samples and what it said."""
    loaded = SimpleNamespace(load=lambda folder, hardware, threads: (MODEL, TOKENIZER))
    monkeypatch.setitem(sys.modules, "cgpt.checkpoint.folder", loaded)
    out = root / "evaluate" / "toy-1"
    spec = {"task": task, "checkpoint_stage": "pretrain", "hardware": {"name": "cpu"}}
    evaluate(Job(spec, out, {"pretrain": root / "gpt-1"}, root / "data"))
    lines = (out / "samples.jsonl").read_text().splitlines()
    return read_scores(out / "scores.json"), [json.loads(line) for line in lines], capsys.readouterr().err
