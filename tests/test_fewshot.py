"""Prompts with shots, against lm-evaluation-harness reading the same files by itself."""

from __future__ import annotations

import gzip
import json
from copy import deepcopy
from pathlib import Path

import bigram
import pytest
from test_tasks import MIRROR, ROWS, needs_mirror, write_task

from cgpt.errors import UserError
from cgpt.inference.lm_eval_model import Adapter
from cgpt.stages.evaluate import score_task
from cgpt.tasks import lm_eval_tasks

N_DOCUMENTS = 60
SPLITS = {  # as the stock tasks name them; the data set's other files are there too
    "hellaswag": {"validation": "validation"},
    "boolq": {"train": "train", "validation": "validation"},
    "winogrande": {"train": "train", "validation": "validation"},
    "commonsense_qa": {"train": "train", "validation": "validation"},
    "piqa": {"train": "train", "validation": "validation"},
    "sciq": {"train": "validation", "validation": "validation", "test": "validation"},  # one file is at hand
}


def harness_prompts(task: dict, folder: Path, **limits) -> list[list[tuple]]:
    """Every request of a task, document by document, as `simple_evaluate` has lm-evaluation-harness make them.

    The data are read by the `datasets` library. Nothing of cgpt is used.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    config = {key: value for key, value in task.items() if key not in ("data", "limit", "sample", "stock")}
    config["dataset_kwargs"] = {"data_files": {split: str(folder / name) for split, name in
                                               task["dataset_kwargs"]["data_files"].items()}}  # fmt: skip
    manager = TaskManager(include_defaults=False)
    results = simple_evaluate(
        first_choice(), tasks=[deepcopy(config)], task_manager=manager, bootstrap_iters=0, **limits
    )
    return [[tuple(request) for request in sample["arguments"]] for sample in results["samples"][config["task"]]]


def first_choice():
    """A model of lm-evaluation-harness that takes no time."""
    from lm_eval.api.model import LM

    class FirstChoice(LM):
        def loglikelihood(self, requests):
            return [(-1.0, False)] * len(requests)

        def loglikelihood_rolling(self, requests):
            return [-1.0] * len(requests)

        def generate_until(self, requests):
            return ["x"] * len(requests)

    return FirstChoice()


def our_prompts(task: dict, data_root: Path) -> list[list[tuple]]:
    """Every request that the stage `evaluate` makes of a model."""
    asked: list[list[tuple]] = []
    lm_task = lm_eval_tasks.build(task, data_root)
    score_task(task, lm_task, Adapter(MODEL, TOKENIZER))
    for instance in lm_task.instances:
        if instance.idx == 0:
            asked.append([])
        asked[-1].append(tuple(instance.args))
    return asked


pytestmark = pytest.mark.usefixtures("bigram_decoder")
TOKENIZER = bigram.make_tokenizer()
MODEL = bigram.make_model(TOKENIZER.get_vocab_size())


@pytest.fixture(scope="module")
def real_data(tmp_path_factory) -> Path:
    """The first lines of the real files, and a home for the `datasets` library's cache."""
    root = tmp_path_factory.mktemp("data")
    for name, splits in SPLITS.items():
        (root / name).mkdir()
        for file in set(splits.values()):
            with gzip.open(MIRROR / name / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
                rows = [json.loads(line) for _, line in zip(range(N_DOCUMENTS), lines)]
            text = "".join(json.dumps(_official(name, row)) + "\n" for row in rows)
            (root / name / f"{file}.jsonl").write_text(text, encoding="utf-8")
    return root


def _official(name: str, row: dict) -> dict:
    """A row with the columns of the hub's data set that prompts use, alike in all files."""
    row = {key: value for key, value in row.items() if key != "question_concept"}
    if name == "hellaswag" and "ctx_a" not in row:
        before, _, after = row["ctx"].rpartition(". ")
        row = row | {"ctx_a": before + "." if before else after, "ctx_b": after if before else ""}
    return row


@needs_mirror
@pytest.mark.parametrize("n_shot", [0, 2, 5, 7])
@pytest.mark.parametrize("name", SPLITS)
def test_prompts_with_shots_are_those_of_lm_eval_on_the_same_files(real_data, name, n_shot):
    from lm_eval.tasks._yaml_loader import load_yaml

    from cgpt.tasks import stock

    path = stock._folder() / stock.entry(name, "").path
    files = {split: f"{file}.jsonl" for split, file in SPLITS[name].items()}
    given = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "num_fewshot": n_shot}
    given |= {} if "train" in files else {"training_split": None}
    expected = harness_prompts(load_yaml(path) | given | {"dataset_name": None}, real_data / name)
    assert len(expected) == N_DOCUMENTS
    task = {"task": name, "stock": True, "data": name, **given}
    assert our_prompts(task, real_data) == expected


QUESTIONS = [{"question": f"Question {n}", "answer": f"answer {n % 7}", "hint": f"hint {n}"} for n in range(12)]
SAMPLES = [{"question": f"SAMPLE {n}", "answer": f"sampled {n}", "hint": f"given {n}"} for n in range(4)]


def question_task(root: Path, **changes) -> dict:
    """A task of generated answers over three splits."""
    rows = {"train": QUESTIONS[:8], "dev": QUESTIONS[4:], "test": QUESTIONS}
    return write_task(
        root, rows, output_type="generate_until", doc_to_text="Q: {{question}}\nA:", doc_to_target="answer",
        doc_to_choice=None, generation_kwargs={"until": ["\n"], "max_gen_toks": 2}, num_fewshot=2,
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    ) | changes  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"fewshot_config": {"sampler": "first_n", "samples": SAMPLES}, "training_split": None},
        {"fewshot_config": {"sampler": "first_n", "samples": SAMPLES}},
        {"fewshot_config": {"samples": SAMPLES}, "training_split": None},
        {"fewshot_config": {"samples": SAMPLES[:3]}, "training_split": None, "test_split": None,
         "validation_split": "dev"},
        {"fewshot_config": {"sampler": "first_n", "samples": SAMPLES[:2]}, "training_split": None, "test_split": None,
         "validation_split": "dev"},
        {"fewshot_config": {"split": "dev"}},
        {"fewshot_config": {"split": "test"}},
        {"fewshot_config": {"sampler": "first_n", "split": "test"}},
        {"fewshot_config": {"sampler": "first_n"}, "fewshot_split": "dev"},
        {"fewshot_config": {"doc_to_text": "Hint: {{hint}}\nA:", "doc_to_target": "{{answer}}!"}},
        {"fewshot_config": {"target_delimiter": " -> ", "fewshot_delimiter": "\n---\n"}},
        {"fewshot_config": {"gen_prefix": "The answer is"}, "gen_prefix": "The answer is"},
        {"fewshot_split": "dev", "description": "Answer these.\n"},
        {"fewshot_split": "test"},
        {"test_split": None, "validation_split": "dev"},
        {"test_split": None, "validation_split": "dev", "training_split": None},
        {"training_split": None},
        {"validation_split": "dev", "training_split": None},
        {"description": "Of {{hint}}: ", "gen_prefix": "{{hint}}", "target_delimiter": "", "fewshot_delimiter": "\n"},
        {"num_fewshot": 0},
        {"num_fewshot": 0, "fewshot_config": {"sampler": "first_n", "samples": SAMPLES}},
    ],
)  # fmt: skip
def test_every_way_to_say_where_shots_come_from_gives_the_prompts_of_lm_eval(tmp_path, changes):
    task = question_task(tmp_path, **changes)
    assert our_prompts(task, tmp_path) == harness_prompts(task, tmp_path / "toy")


def test_choices_of_every_form_with_shots_give_the_prompts_of_lm_eval(tmp_path):
    for choices, target in ((["bad", "good"], "label"), ("{{['bad', 'good']}}", "{{label}}"),
                            ({"a": "bad", "b": "good"}, "label"),
                            (["bad", "good"], "{{['bad', 'good'][label]}}")):  # fmt: skip
        task = write_task(tmp_path, ROWS, doc_to_choice=choices, doc_to_target=target, num_fewshot=3)
        assert our_prompts(task, tmp_path) == harness_prompts(task, tmp_path / "toy")


def test_a_split_that_is_not_the_tasks_own_has_the_prompts_that_lm_eval_makes_when_told_so(tmp_path):
    task = question_task(tmp_path)
    lm_task = lm_eval_tasks.build(task, tmp_path, "dev")
    lm_task.build_all_requests()
    asked = [[tuple(instance.args)] for instance in lm_task.instances]
    assert asked == harness_prompts(task | {"test_split": "dev"}, tmp_path / "toy")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sampler": "first"}, "fewshot_config.sampler: there is no sampler 'first'; did you mean 'first_n'?"),
        ({"sample": []}, "fewshot_config.sample: is no key that has an effect; did you mean 'samples'?"),
        ({"fewshot_indices": [1]}, "fewshot_config.fewshot_indices: is no key that has an effect"),
        ({"samples": SAMPLES, "split": "dev"}, "fewshot_config.samples: a split for shots is named too"),
        ({"samples": "dev"}, "fewshot_config.samples: must be a list of documents"),
        ("first_n", "fewshot_config: must be a mapping"),
        ({"samples": SAMPLES[:1]}, "2 shots cannot be drawn from the 1 documents of fewshot_config.samples"),
        ({"split": "deb"}, "has no split 'deb'; did you mean 'dev'?"),
    ],
)
def test_a_few_shot_key_without_effect_is_refused_by_name(tmp_path, config, said):
    with pytest.raises(UserError) as caught:
        lm_eval_tasks.build(question_task(tmp_path, fewshot_config=config), tmp_path)
    assert said in str(caught.value)
