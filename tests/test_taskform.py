"""What a task's documents may be: the prompts and answers of lm-evaluation-harness, or one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_evaluate import MODEL, TOKENIZER, adapter
from test_tasks import ROWS, problem, write_task

from cgpt.errors import UserError
from cgpt.stages.evaluate import score_task
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.examples import read_examples

pytestmark = pytest.mark.usefixtures("bigram_decoder")
MATHS = [{"question": f"what is {n} and {n}?", "answer": 2 * n} for n in range(9)]
GENERATION = {
    "output_type": "generate_until", "doc_to_choice": None, "doc_to_text": "{{question}}", "doc_to_target": "answer",
    "training_split": "train", "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
WORD = {
    "output_type": "loglikelihood", "doc_to_choice": None, "doc_to_text": "{{question}}", "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}],
}  # fmt: skip


def prompts(task: dict, root: Path) -> list:
    """What the engine would send to a model, as (arguments) per request, in its order."""
    lm_task = lm_eval_tasks.build(task, root)
    lm_task.build_all_requests()
    return [instance.args for instance in lm_task.instances]


def theirs(task: dict, root: Path) -> list:
    """The same by lm-evaluation-harness alone, its own task over the same rows."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    files = task["dataset_kwargs"]["data_files"]
    rows = {split: [json.loads(line) for line in (root / "toy" / name).read_text().splitlines()]
            for split, name in files.items()}  # fmt: skip
    config = {key: value for key, value in task.items() if key not in ("data", "dataset_kwargs")}
    data = {split: Dataset.from_list(documents) for split, documents in rows.items()}
    lm_task = ConfigurableTask(config=config | {"custom_dataset": lambda **_: data})
    lm_task.set_fewshot_seed(1234)
    lm_task.build_all_requests()
    return [instance.args for instance in lm_task.instances]


@pytest.mark.parametrize("kind", [GENERATION, WORD])
@pytest.mark.parametrize("n_shot", [0, 1, 2])
def test_a_number_for_an_answer_is_text_as_where_the_data_hold_the_text(tmp_path, kind, n_shot):
    texts = [row | {"answer": str(row["answer"])} for row in MATHS]
    as_text = write_task(tmp_path / "text", {"train": texts, "test": texts[:3]}, num_fewshot=n_shot, **kind)
    number = write_task(tmp_path / "int", {"train": MATHS, "test": MATHS[:3]}, num_fewshot=n_shot, **kind)
    expected = theirs(as_text | {"fewshot_split": "train"}, tmp_path / "text")
    assert prompts(as_text, tmp_path / "text") == prompts(number, tmp_path / "int") == expected
    assert [example.target.strip() for example in read_examples(number, tmp_path / "int", "test")] == [
        "0",
        "2",
        "4",
    ]


def test_of_several_right_choices_a_shot_shows_the_text_of_the_first(tmp_path):
    rows = [{"sentence": f"film {n}", "labels": [1, 0]} for n in range(5)]
    task = write_task(tmp_path, {"train": rows, "test": rows[:2]}, doc_to_target="labels", num_fewshot=1)
    assert all(args[0].split("\n\n")[0].endswith("Sentiment: good") for args in prompts(task, tmp_path))


@pytest.mark.parametrize("target", ["answer", "{{answer}}", "{{answer.strip()}}"])
def test_an_answer_that_looks_like_a_list_is_the_text(tmp_path, target):
    rows = [{"question": "which?", "answer": "[3, 5]"}, {"question": "which?", "answer": "[4]"}]
    task = write_task(tmp_path, {"train": rows, "test": rows}, **GENERATION | {"doc_to_target": target})
    assert [example.target for example in read_examples(task, tmp_path, "test")] == [" [3, 5]", " [4]"]
    lm_task = lm_eval_tasks.build(task, tmp_path)
    assert lm_task.multiple_target == 0
    doc = lm_task.eval_docs[0]
    assert lm_task.process_results(doc, ["[3, 5]"]) == {"exact_match": 1.0}
    assert lm_task.process_results(doc, ["3"]) == {"exact_match": 0.0}
    assert "which? [" in prompts(task | {"num_fewshot": 1}, tmp_path)[0][0]


def test_a_list_that_a_template_prints_is_several_answers_as_in_the_engine(tmp_path):
    rows = [{"question": "which?", "answers": ["three", "5"]}, {"question": "which?", "answers": ["four"]}]
    for target in ("answers", "{{answers}}", "{{[answers[0], 5]}}"):
        task = write_task(tmp_path, {"test": rows}, **GENERATION | {"doc_to_target": target})
        lm_task = lm_eval_tasks.build(task, tmp_path)
        assert lm_task.multiple_target == 2
        doc = lm_task.eval_docs[0]
        scores = [lm_task.process_results(doc, [made])["exact_match"] for made in ("three", "5", "no")]
        assert scores == [1.0, 1.0, 0.0]


def test_documents_are_scored_against_all_their_answers_also_where_the_first_has_none(tmp_path):
    rows = [{"q": "the film ?", "options": ["good", "bad"], "labels": labels} for labels in ([], [0, 1])]
    task = write_task(tmp_path, {"test": rows}, doc_to_text="{{q}}", doc_to_choice="options", doc_to_target="labels",
                      training_split=None)  # fmt: skip
    _, samples = score_task(task, lm_eval_tasks.build(task, tmp_path), adapter())
    assert [sample["metrics"]["acc"] for sample in samples] == [0.0, 1.0]


@pytest.mark.parametrize("text", ["42", "007", "²"])
def test_a_prompt_of_digits_is_a_prompt(tmp_path, text):
    rows = [{"sentence": "film", "label": 1}, {"sentence": text, "label": 0}]
    for documents in (rows, rows[::-1]):
        task = write_task(tmp_path, {"test": documents}, doc_to_text="{{sentence}}", training_split=None)
        assert {args[0] for args in prompts(task, tmp_path)} == {"film", text}
        assert {e.prompt for e in read_examples(task, tmp_path, "test")} == {"film", text}


@pytest.mark.parametrize("hint", ["{{ hint | default('') }}", "{% if hint is defined %}{{ hint }}{% endif %}"])
def test_a_field_that_a_template_can_do_without_may_be_missing(tmp_path, hint):
    rows = [{"sentence": "a", "label": 0}, {"sentence": "b", "label": 1, "hint": "H"}]
    task = write_task(tmp_path, {"test": rows, "none": rows[:1]}, doc_to_text="{{sentence}}" + hint + ":")
    assert [e.prompt for e in read_examples(task, tmp_path, "test")] == ["a:", "bH:"]
    assert [e.prompt for e in read_examples(task, tmp_path, "none")] == ["a:"]


def test_either_of_two_fields_may_hold_the_answer(tmp_path):
    rows = [{"question": "x", "answer": "one"}, {"question": "y", "target": 2}]
    either = GENERATION | {"doc_to_target": "{{ answer if answer is defined else target }}"}
    task = write_task(tmp_path, {"test": rows}, **either)
    assert [example.target for example in read_examples(task, tmp_path, "test")] == [" one", " 2"]
    task = write_task(tmp_path, {"test": [*rows, {"question": "z"}]}, **either)
    assert "split 'test', document 2 has no field 'target'" in problem(task, tmp_path)


def test_more_shots_than_documents_to_draw_them_from_are_refused(tmp_path):
    task = write_task(tmp_path, ROWS, num_fewshot=1000)
    with pytest.raises(UserError, match="num_fewshot: 1000 shots cannot be drawn from the 20 documents of split "
                                        "'train'; write at most 20"):  # fmt: skip
        lm_eval_tasks.build(task, tmp_path)
    assert len(prompts(task | {"num_fewshot": 20}, tmp_path)) == 4
    same = task | {"num_fewshot": 2, "fewshot_split": "test"}  # drawn from the test split, the document itself left out
    with pytest.raises(UserError, match="write at most 1"):
        lm_eval_tasks.build(same, tmp_path)


def test_a_shot_whose_label_is_not_among_the_choices_is_one_line(tmp_path):
    rows = [{"sentence": f"film {n}", "label": -1} for n in range(9)]
    task = write_task(tmp_path, {"train": rows, "test": ROWS["test"]}, num_fewshot=2)
    with pytest.raises(UserError, match=r"fewshot_split: the label -1 of the example 'film \d"):
        score_task(task, lm_eval_tasks.build(task, tmp_path), adapter())


def refused(task: dict, root: Path) -> str:
    """The one line that stops an evaluation before its model is asked."""
    lm_task = lm_eval_tasks.build(task, root)
    with pytest.raises(UserError) as caught:
        score_task(task, lm_task, SimpleNamespace())
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


@pytest.mark.parametrize("entry, said", [
    ({"metric": "f1", "aggregation": "mean"}, "f1 cannot be aggregated so (TypeError"),
    ({"metric": "mcc", "aggregation": "perplexity"}, "mcc cannot be aggregated so"),
    ({"metric": "acc", "aggregation": "maen"}, "acc cannot be aggregated so"),
    ({"metric": "perplexity"}, "output_type multiple_choice gives no perplexity"),
])  # fmt: skip
def test_a_metric_that_cannot_be_computed_is_refused_before_the_model_is_asked(tmp_path, entry, said):
    assert said in refused(write_task(tmp_path, ROWS, metric_list=[entry]), tmp_path)


@pytest.mark.filterwarnings("ignore:F-score is ill-defined", "ignore:A single label was found")
@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "exact_match", "f1", "mcc", "brier_score",
                                    "acc_mutual_info"])  # fmt: skip
def test_every_metric_of_choices_passes_with_its_own_aggregation(tmp_path, metric):
    task = write_task(tmp_path, ROWS, metric_list=[{"metric": metric}])
    scores, _ = score_task(task, lm_eval_tasks.build(task, tmp_path), adapter())
    assert metric in [score.metric for score in scores]


def test_a_metric_that_later_documents_cannot_have_is_refused(tmp_path):
    rows = [{"sentence": "a", "options": ["x", "y"], "label": 0}, {"sentence": "b", "options": list("xyz"), "label": 2}]
    task = write_task(tmp_path, {"test": rows}, doc_to_choice="options", metric_list=[{"metric": "brier_score"}],
                      training_split=None)  # fmt: skip
    assert "brier_score cannot be aggregated so" in refused(task, tmp_path)


@pytest.mark.parametrize("row, said", [
    ({"label": 1, "sentence": None}, "doc_to_text: is null"),
    ({"label": 1, "sentence": "x", "options": ["a", ""]}, "doc_to_choice: choice 1 is empty"),
    ({"label": 1, "sentence": "x", "options": []}, "doc_to_choice: [] is no list of texts"),
    ({"label": 2, "sentence": "x", "options": ["a", "b"]}, "doc_to_target: label 2 is not among the choices"),
])  # fmt: skip
@pytest.mark.parametrize("at", [0, 1])
def test_the_document_that_cannot_be_scored_is_named(tmp_path, row, said, at):
    rows = [{"label": 0, "sentence": "x", "options": ["a", "b"]}]
    rows.insert(at, {"options": ["a", "b"]} | row)
    task = write_task(tmp_path, {"test": rows}, doc_to_text="sentence", doc_to_choice="options", training_split=None)
    line = problem(task, tmp_path)
    assert f"split 'test', document {at}: {said}" in line


def test_a_template_that_fails_on_a_later_document_names_it(tmp_path):
    task = write_task(tmp_path, ROWS, doc_to_target="{{ ['film 0 is bad'].index(sentence) }}")
    assert "split 'train', document 1: doc_to_target: cannot be rendered (ValueError" in problem(
        task, tmp_path, "train"
    )


def test_choices_that_begin_alike_and_equal_choices_are_scored_each_by_itself(tmp_path):
    import bigram

    rows = [{"sentence": "the film", "options": ["good", "good film", "good", "bad"], "label": 1}]
    task = write_task(tmp_path, {"test": rows}, doc_to_text="sentence", doc_to_choice="options", training_split=None)
    _, (sample,) = score_task(task, lm_eval_tasks.build(task, tmp_path), adapter())
    direct = [bigram.direct(MODEL, TOKENIZER, "the film", choice) for choice in sample["choices"]]
    assert sample["loglikelihoods"] == pytest.approx(direct)
    assert sample["loglikelihoods"][0] == sample["loglikelihoods"][2]


def test_an_empty_prompt_is_scored_after_the_end_of_text(tmp_path):
    task = write_task(tmp_path, {"test": [{"label": 0, "sentence": ""}, {"label": 1, "sentence": " "}]},
                      doc_to_text="sentence", training_split=None)  # fmt: skip
    _, samples = score_task(task, lm_eval_tasks.build(task, tmp_path), adapter())
    end, (bad, good) = (
        TOKENIZER.token_to_id("<|endoftext|>"),
        ([*TOKENIZER.encode(f" {w}").ids] for w in ("bad", "good")),
    )
    assert samples[0]["loglikelihoods"] == pytest.approx(
        [sum(MODEL.table[a, b] for a, b in zip([end, *ids], ids)) for ids in (bad, good)]
    )
    spaces = [
        [*TOKENIZER.encode(f"  {word}").ids] for word in ("bad", "good")
    ]  # a space of the prompt goes to the answer
    assert samples[1]["loglikelihoods"] == pytest.approx(
        [sum(MODEL.table[a, b] for a, b in zip([end, *ids], ids)) for ids in spaces]
    )


def test_choices_that_are_numbers_are_text(tmp_path):
    rows = [{"sentence": "1 and 1", "options": [2, 3.5], "label": 0.0}]
    task = write_task(tmp_path, {"test": rows}, doc_to_text="sentence", doc_to_choice="options", training_split=None)
    assert [args[1] for args in prompts(task, tmp_path)] == [" 2", " 3.5"]
    assert read_examples(task, tmp_path, "test")[0].label == 0
    assert [args[1] for args in prompts(task | {"doc_to_choice": [7, 8]}, tmp_path)] == [" 7", " 8"]


@pytest.mark.parametrize("changes, said", [
    ({"description": "{{topc}}"}, "document 0: description: 'topc' is undefined"),
    ({"gen_prefix": "{{topc}}"}, "document 0: gen_prefix: 'topc' is undefined"),
    ({"doc_to_choice": None}, "doc_to_choice: is missing, and multiple_choice needs it"),
    ({"output_type": "multiple_choise"}, "lm-evaluation-harness refuses it: Got invalid output_type"),
    (WORD | {"doc_to_target": "{{['a', 'b']}}", "doc_to_text": "sentence"}, "doc_to_target: gives several texts"),
    (WORD | {"doc_to_target": "", "doc_to_text": "sentence"}, "doc_to_target: is empty"),
    ({"num_fewshot": 1, "fewshot_config": {"doc_to_text": "{{topc}}"}}, "with its shots: 'topc' is undefined"),
])  # fmt: skip
def test_every_template_is_rendered_before_the_model_is_asked(tmp_path, changes, said):
    task = write_task(tmp_path, ROWS, **changes)
    with pytest.raises(UserError) as caught:
        score_task(task, lm_eval_tasks.build(task, tmp_path), SimpleNamespace())
    assert said in str(caught.value) and "\n" not in str(caught.value)
