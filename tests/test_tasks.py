"""Tasks: data files to lm-evaluation-harness tasks and fine-tuning examples."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
import yaml
from jinja2.sandbox import SandboxedEnvironment

from cgpt.errors import UserError
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.examples import read_examples

REPOSITORY = Path(__file__).resolve().parent.parent
REAL = ("sst2", "ag_news", "trec", "boolq", "sciq", "arc_easy", "lambada_openai", "hellaswag", "piqa")
MIRROR = Path(os.environ.get("CGPT_DATA_MIRROR", REPOSITORY.parent / "shared" / "data"))
needs_mirror = pytest.mark.skipif(
    not (MIRROR / "sst2").is_dir(), reason="needs the real data sets: set CGPT_DATA_MIRROR"
)


def write_task(root: Path, rows: dict[str, list[dict]], **changes) -> dict:
    """A two-choice task named toy over JSON lines."""
    folder = root / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    for split, documents in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    return {
        "task": "toy",
        "data": "toy",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: f"{split}.jsonl" for split in rows}},
        "output_type": "multiple_choice",
        "training_split": "train",
        "test_split": "test",
        "doc_to_text": "{{sentence}}\nSentiment:",
        "doc_to_target": "label",
        "doc_to_choice": ["bad", "good"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    } | changes


ROWS = {
    "train": [{"sentence": f"film {n} is {'good' if n % 2 else 'bad'}", "label": n % 2} for n in range(20)],
    "test": [{"sentence": "a good film", "label": 1}, {"sentence": "a bad film", "label": 0}],
}


def problem(task: dict, root: Path, split: str = "test") -> str:
    with pytest.raises(UserError) as caught:
        read_examples(task, root, split)
    assert all("\n" not in line for line in caught.value.problems)
    return str(caught.value)


def test_an_example_is_the_prompt_and_the_answer_that_evaluation_scores(tmp_path):
    examples = read_examples(write_task(tmp_path, ROWS), tmp_path, "test")
    assert examples[0] == ("a good film\nSentiment:", " good", (" bad", " good"), 1)
    assert examples[1].target == " bad"


def test_a_smaller_limit_is_a_part_of_a_larger_one_and_always_the_same(tmp_path):
    task = write_task(tmp_path, ROWS)
    few, more = (read_examples(task, tmp_path, "train", limit) for limit in (5, 12))
    assert len(few) == 5 and set(few) < set(more)
    assert few == read_examples(task, tmp_path, "train", 5)


def test_slices_of_a_file_are_splits(tmp_path):
    task = write_task(tmp_path, ROWS)
    assert [e.label for e in read_examples(task, tmp_path, "train[18:]")] == [0, 1]
    assert len(read_examples(task, tmp_path, "train[:90%]")) == 18


def test_csv_keeps_empty_cells_and_the_word_null_as_text(tmp_path):
    task = write_task(tmp_path, ROWS, dataset_path="csv")
    task["dataset_kwargs"] = {"sep": "\t", "quoting": 3, "data_files": {"test": "test.tsv"}}
    (tmp_path / "toy" / "test.tsv").write_text('sentence\tlabel\nnull\t1\n\t0\nsay "hi\t1\n')
    assert [e.prompt.split("\n")[0] for e in read_examples(task, tmp_path, "test")] == ["null", "", 'say "hi']
    assert [e.label for e in read_examples(task, tmp_path, "test")] == [1, 0, 1]


@pytest.mark.parametrize("label", [2, -1, "fair", "1.5", None])
@pytest.mark.parametrize("document", [0, 1])
def test_a_label_that_is_not_among_the_choices_is_named_with_its_document(tmp_path, label, document):
    rows = [{"sentence": "so so", "label": 0 if not isinstance(label, str) else "bad"} for _ in range(2)]
    rows[document]["label"] = label
    said = problem(write_task(tmp_path, {"test": rows}), tmp_path)
    assert said.startswith(
        f"workflows/tasks/toy.yaml: split 'test', document {document}: doc_to_target: label {label!r} is not"
    )
    assert "['bad', 'good']" in said


def test_a_template_that_names_a_missing_field_says_so_with_the_nearest_name(tmp_path):
    task = write_task(tmp_path, ROWS, doc_to_text="{{sentense}}:", doc_to_target="lable")
    assert problem(task, tmp_path).split("\n") == [
        "workflows/tasks/toy.yaml: doc_to_text: the data have no field 'sentense'; did you mean 'sentence'?",
        "workflows/tasks/toy.yaml: doc_to_target: the data have no field 'lable'; did you mean 'label'?",
    ]


def test_a_document_without_a_field_that_others_have_is_named(tmp_path):
    rows = {"test": [*ROWS["test"], {"sentence": "no label"}]}
    assert "split 'test', document 2 has no field 'label'" in problem(write_task(tmp_path, rows), tmp_path)


def test_a_missing_split_or_file_and_empty_data_are_one_line_each(tmp_path):
    task = write_task(tmp_path, {**ROWS, "nothing": []})
    assert "has no split 'tests'; did you mean 'test'?" in problem(task, tmp_path, "tests")
    assert "split 'nothing' holds no documents" in problem(task, tmp_path, "nothing")
    task["dataset_kwargs"] = {"data_files": {"test": "tset.jsonl"}}
    assert "data set 'toy' has no file 'tset.jsonl'; did you mean 'test.jsonl'?" in problem(task, tmp_path)


def test_a_broken_line_of_json_is_named(tmp_path):
    task = write_task(tmp_path, ROWS)
    (tmp_path / "toy" / "test.jsonl").write_text('{"sentence": "fine", "label": 1}\n{"sentence": \n')
    assert "workflows/tasks/toy.yaml: test.jsonl: line 2:" in problem(task, tmp_path)


def test_unknown_metrics_broken_templates_and_unknown_keys_are_one_line_each(tmp_path):
    assert "no metric 'accc'; did you mean 'acc'?" in problem(
        write_task(tmp_path, ROWS, metric_list=[{"metric": "accc"}]), tmp_path
    )
    assert "doc_to_text: is not a Jinja template" in problem(
        write_task(tmp_path, ROWS, doc_to_text="{{sentence"), tmp_path
    )
    assert "doc_to_txt" in problem(write_task(tmp_path, ROWS, doc_to_txt="x"), tmp_path)


def test_a_stock_task_can_be_given_local_data(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "valid.jsonl").write_text(
        '{"goal": "open a jar", "sol1": "twist", "sol2": "wait", "label": 0}\n'
    )
    task = {"task": "piqa", "stock": True, "data": "toy", "dataset_path": "json"}
    task["dataset_kwargs"] = {"data_files": {"validation": "valid.jsonl"}}
    (example,) = read_examples(task, tmp_path, "validation")
    assert example == ("Question: open a jar\nAnswer:", " twist", (" twist", " wait"), 0)


def test_an_unknown_stock_task_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="lm-evaluation-harness has no task 'piqaa'; did you mean 'piqa'"):
        lm_eval_tasks.build({"task": "piqaa", "stock": True, "data": "toy"}, tmp_path)


def test_a_stock_task_whose_data_set_cannot_be_reached_says_what_to_do(tmp_path, monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"its data set 'baber/piqa' cannot be had .* connect to the network, or give"):
        lm_eval_tasks.build({"task": "piqa", "stock": True}, tmp_path)


def test_a_field_that_changes_its_type_is_read_and_a_wrong_label_among_its_values_named(tmp_path):
    rows = [{"sentence": "so", "label": 0}, {"sentence": 7, "label": "good"}, {"sentence": "so", "label": ["x"]}]
    task = write_task(tmp_path, {"test": rows, "fine": rows[:2]}, doc_to_text="sentence")
    assert [(e.prompt, e.label) for e in read_examples(task, tmp_path, "fine")] == [("so", 0), ("7", 1)]
    assert "document 2: doc_to_target: label 'x' is not among the choices" in problem(task, tmp_path)


@pytest.fixture(scope="module")
def real_data(tmp_path_factory) -> Path:
    """The first lines of every real file, unpacked as the fetch stage leaves them."""
    root = tmp_path_factory.mktemp("data")
    for name in REAL:
        (root / name).mkdir()
        for path in (MIRROR / name).iterdir():
            opener = gzip.open if path.suffix == ".gz" else open
            with opener(path, "rt", encoding="utf-8") as file:
                lines = [line for _, line in zip(range(60), file)]
            (root / name / path.name.removesuffix(".gz")).write_text("".join(lines), encoding="utf-8")
    return root


def load(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / "workflows" / "tasks" / f"{name}.yaml").read_text())


@needs_mirror
@pytest.mark.parametrize("name", REAL)
def test_every_real_task_renders_every_document_with_its_label(real_data, name):
    task = load(name)
    examples = read_examples(task, real_data, lm_eval_tasks.evaluation_split(task))
    assert len(examples) > 50 and all(example.prompt and example.target.strip() for example in examples)
    if task["output_type"] == "multiple_choice":
        assert all(example.choices[example.label] == example.target for example in examples)
        assert not any("[title]" in text for example in examples for text in (example.prompt, *example.choices))


@needs_mirror
@pytest.mark.parametrize("name", ["boolq", "sciq", "arc_easy", "lambada_openai", "piqa"])
def test_prompts_and_metrics_are_those_of_the_stock_task(real_data, name):
    ours = load(name)
    kept = {key: ours[key] for key in ("task", "data", "dataset_path", "dataset_kwargs")}
    split = lm_eval_tasks.evaluation_split(ours)
    assert read_examples(kept | {"stock": True}, real_data, split) == read_examples(ours, real_data, split)
    stock = lm_eval_tasks.build(kept | {"stock": True}, real_data, split)
    mine = lm_eval_tasks.build(ours, real_data, split)
    assert (mine.VERSION, list(mine.aggregation())) == (stock.VERSION, list(stock.aggregation()))


def test_hellaswag_on_the_official_columns_gives_the_stock_prompts(tmp_path):
    row = {
        "ind": 1, "activity_label": "Roof shingle removal", "ctx_a": "A man is sitting on a roof.", "ctx_b": "he",
        "ctx": "A man is sitting on a roof. he", "label": 3,
        "endings": ["is [step] up.", "sits [title] Rest  now", "c.", "d."],
    }  # fmt: skip
    wikihow = row | {"ctx_a": "[header] How to rest [title] Sit down. [step] Take a chair.", "ctx_b": ""}
    wikihow["ctx"] = wikihow["ctx_a"]
    (tmp_path / "hellaswag").mkdir()
    (tmp_path / "hellaswag" / "validation.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(wikihow) + "\n")
    ours = load("hellaswag")
    stock = {
        "task": "hellaswag",
        "stock": True,
        **{key: ours[key] for key in ("data", "dataset_path", "dataset_kwargs")},
    }
    expected = read_examples(stock, tmp_path, "validation")
    assert expected[0].prompt == "Roof shingle removal: A man is sitting on a roof. He"
    assert read_examples(ours, tmp_path, "validation") == expected


def test_ten_thousand_documents_compile_each_template_once(tmp_path, monkeypatch):
    compiled = []
    compile_template = SandboxedEnvironment.compile

    def counted(env, source, *args, **kwargs):
        compiled.append(source)
        return compile_template(env, source, *args, **kwargs)

    monkeypatch.setattr(SandboxedEnvironment, "compile", counted)
    rows = {"train": ROWS["train"] * 500, "test": ROWS["test"]}
    task = write_task(tmp_path, rows, doc_to_text="{{sentence}} of ten thousand")
    assert len(read_examples(task, tmp_path, "train")) == 10_000
    assert 0 < len(compiled) <= 10  # lm-evaluation-harness alone compiles 40,000 here, which takes over 20 s
