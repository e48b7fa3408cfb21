"""Task files that use other files: `include:` and `!function`, against lm-evaluation-harness's own reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from test_fewshot import harness_prompts, our_prompts
from test_load import QUICKSTART, edit, problems, root  # noqa: F401  the fixture of a small project
from test_tasks import ROWS, write_task

from cgpt.errors import UserError
from cgpt.experiment import load, plan, show_plan
from cgpt.experiment.planned_time import time_plan
from cgpt.files.layers import Layer
from cgpt.tasks import definition, lm_eval_tasks

TASKS = Path("workflows/tasks")
CODE = """\
def shout(dataset):
    return dataset.map(lambda row: {"sentence": row["sentence"].upper() + "!"})


def ask(doc):
    return "Film: " + doc["sentence"] + "\\n"


def samples():
    return [{"sentence": "A SAMPLE", "label": 1}, {"sentence": "ANOTHER", "label": 0}]


def grade(doc, results):
    best = max(range(len(results)), key=lambda n: results[n][0])
    return {"acc": float(best == doc["label"])}


def fail(doc):
    return doc["nothing"]


class NoPrompt(Exception):
    pass


def give_up(doc):
    raise NoPrompt("nothing to ask")
"""


def dump(value) -> str:
    """YAML with lm-evaluation-harness's tag where a value is a Function."""

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))
    return yaml.dump(value, Dumper=Dumper)


class Function(str):
    """The name of a function."""


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A study's folder with a task that names Python beside it and includes another file; the current folder."""
    monkeypatch.chdir(tmp_path)
    ours = write_task(tmp_path, ROWS)
    (tmp_path / TASKS / "parts").mkdir(parents=True)
    (tmp_path / TASKS / "parts/base.yaml").write_text(dump({**ours, "process_docs": Function("code.shout")}))
    (tmp_path / TASKS / "parts/code.py").write_text(CODE)
    (tmp_path / TASKS / "code.py").write_text(CODE)
    ours = {"include": "parts/base.yaml", "task": "toy", "doc_to_text": Function("code.ask"), "num_fewshot": 1,
           "fewshot_config": {"samples": Function("code.samples")}, "training_split": None}  # fmt: skip
    (tmp_path / TASKS / "toy.yaml").write_text(dump(ours))
    return tmp_path


def read(study: Path) -> dict:
    file = definition.read_task(study / TASKS / "toy.yaml", Layer(study))
    assert file.problems == []
    return file.value


def test_included_files_and_functions_give_the_prompts_of_lm_eval(study):
    from lm_eval.tasks._yaml_loader import load_yaml

    task = read(study)
    json.dumps(task)  # it stands in a spec
    prompts = our_prompts(task, study)
    assert prompts == harness_prompts(load_yaml(study / TASKS / "toy.yaml"), study / "toy")
    assert "Film: A GOOD FILM!\n" in prompts[0][0][0] and "A SAMPLE" in "".join(request[0][0] for request in prompts)


def test_shots_that_python_of_their_own_processes_are_those_of_lm_eval(study):
    from lm_eval.tasks._yaml_loader import load_yaml

    text = dump({**write_task(study, ROWS), "num_fewshot": 3,
                 "fewshot_config": {"split": "train", "process_docs": Function("code.shout")}})  # fmt: skip
    (study / TASKS / "toy.yaml").write_text(text)
    prompts = our_prompts(read(study), study)
    assert prompts == harness_prompts(load_yaml(study / TASKS / "toy.yaml"), study / "toy")
    assert prompts[0][0][0].count("!\nSentiment:") == 3 and prompts[0][0][0].endswith("a good film\nSentiment:")


def test_what_a_tasks_python_says_is_part_of_what_the_task_is(study):
    before = read(study)
    path = study / TASKS / "parts/code.py"
    path.write_text(CODE + "# another comment\n")
    after = read(study)
    assert before["process_docs"]["sha256"] != after["process_docs"]["sha256"]
    assert before["doc_to_text"] == after["doc_to_text"]  # of the other file
    with pytest.raises(UserError, match="!function code.shout: workflows/tasks/parts/code.py has changed since"):
        lm_eval_tasks.build(before, study)
    assert lm_eval_tasks.build(after, study)


def test_reading_a_task_runs_none_of_its_python(study):
    (study / TASKS / "code.py").write_text("raise SystemExit\n" + CODE)
    with pytest.raises(SystemExit):
        lm_eval_tasks.build(read(study), study)


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("doc_to_text", "code.axk", "workflows/tasks/code.py has no 'axk'; did you mean 'ask'?"),
        (
            "doc_to_text",
            "cod.ask",
            "'cod.ask': there is no workflows/tasks/cod.py beside the file, and no module 'cod'",
        ),
        ("doc_to_text", "ask", "'ask' is no function; write `!function <module>.<function>`"),
        ("doc_to_text", "../code.ask", "'../code.ask' is no function"),
        ("doc_to_text", "wrong.ask", "workflows/tasks/wrong.py is not Python"),
    ],
)
def test_a_function_that_is_not_there_is_named_with_its_line(study, key, name, message):
    (study / TASKS / "wrong.py").write_text("def ask(:\n")
    text = (
        (study / TASKS / "toy.yaml").read_text().replace(f"{key}: !function 'code.ask'", f"{key}: !function '{name}'")
    )
    (study / TASKS / "toy.yaml").write_text(text)
    file = definition.read_task(study / TASKS / "toy.yaml", Layer(study))
    line = next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(key))
    assert len(file.problems) == 1 and file.problems[0].startswith(f"workflows/tasks/toy.yaml:{line}: {key}: ")
    assert message in file.problems[0]


def test_python_of_a_task_that_fails_is_one_line_with_the_document(study):
    task = read(study) | {"num_fewshot": 0}
    for name in ("code.fail", "code.give_up"):
        broken = task | {"doc_to_text": task["doc_to_text"] | {"!function": name}}
        with pytest.raises(UserError, match="workflows/tasks/toy.yaml: split 'test', document 0: .*nothing"):
            our_prompts(broken, study)
    broken = task | {"process_results": task["doc_to_text"] | {"!function": "code.ask"}}
    with pytest.raises(UserError, match="split 'test', document 0: process_results fails"):
        our_prompts(broken, study)
    (study / TASKS / "code.py").write_text("import nothing_of_that_name\n" + CODE)
    with pytest.raises(UserError, match="code.ask: cannot be imported .ModuleNotFoundError"):
        lm_eval_tasks.build(read(study), study)


def test_keys_of_the_file_win_over_those_it_includes_and_later_ones_over_earlier(study):
    (study / TASKS / "a.yaml").write_text("task: a\nnum_fewshot: 1\nlimit: 3\ndescription: a\n")
    (study / TASKS / "b.yaml").write_text("include: a.yaml\nnum_fewshot: 2\ndescription: b\n")
    (study / TASKS / "toy.yaml").write_text("include: [b.yaml, a.yaml]\ntask: toy\nnum_fewshot: 3\n")
    assert read(study) == {"task": "toy", "num_fewshot": 3, "limit": 3, "description": "a"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.yaml", "toy.yaml:1: include: there is no file 'none.yaml'"),
        ("toy.yaml", "toy.yaml:1: include: 'toy.yaml' includes this file again"),
        ("circle.yaml", "circle.yaml:1: include: 'toy.yaml' includes this file again"),
        ("../../../../etc/hostname", "leads out of the study's folder"),
        ("broken.yaml", "workflows/tasks/broken.yaml:2: is not valid YAML"),
        ("[3]", "toy.yaml:1: include.0: must be the name of a file, not 3"),
        ("yes", "YAML reads yes as true"),
    ],
)
def test_a_file_that_cannot_be_included_is_one_line(study, name, message):
    (study / TASKS / "circle.yaml").write_text("include: toy.yaml\n")
    (study / TASKS / "broken.yaml").write_text("task: [topic\n")
    (study / TASKS / "toy.yaml").write_text(f"include: {name}\ntask: toy\n")
    result = definition.read_task(study / TASKS / "toy.yaml", Layer(study)).problems
    assert len(result) == 1 and message in result[0] and "\n" not in result[0]


def test_a_file_to_be_included_is_no_task_and_its_keys_are_checked_like_the_tasks_own(root):  # noqa: F811
    (root / TASKS / "_part.yaml").write_text(
        (root / TASKS / "topic.yaml").read_text().replace("label\n", "label\nlimt: 3\n")
    )
    (root / TASKS / "topic.yaml").write_text("include: _part.yaml\ntask: topic\n")
    result = problems(root)
    assert len(result) == 1 and "limt: unknown key; did you mean 'limit'?" in result[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: 0", "limit: must be a number of documents, or a share of them below 1, not 0"),
        ("limit: 2.5", "limit: must be a number of documents, or a share of them below 1, not 2.5"),
        ("limit: true", "limit: must be a number of documents"),
        ("sample: 0.5", "sample: must be a whole number of documents, not 0.5"),
        ("sample: 5\nlimit: 5", "sample: stands beside `limit`"),
        ("num_fewshot: -1", "num_fewshot: must not be negative, not -1"),
        ("generation_kwargs: {max_gen_toks: 3}", "generation_kwargs: has no effect with output_type multiple_choice"),
        (
            "generation_kwargs: {num_beam: 3}",
            "generation_kwargs.num_beam: is nothing that answers are written with here",
        ),
        ("generation_kwargs: {top_k: 3}", "generation_kwargs.top_k: has no effect on the most likely answer"),
        ("process_docs: utils.clean", "process_docs: is called, so it must be Python; write `!function"),
        ("custom_dataset: !function json.loads", "custom_dataset: makes the data that `data` names"),
    ],
)
def test_how_a_task_is_scored_is_checked_when_files_are_read(root, text, message):  # noqa: F811
    path = root / TASKS / "topic.yaml"
    path.write_text(path.read_text() + text + "\n")
    assert any(message in line for line in problems(root)), problems(root)


def test_functions_of_every_key_of_lm_eval_are_read_and_need_no_data_set_where_they_make_the_data(root):  # noqa: F811
    (root / TASKS / "code.py").write_text(CODE + "def rows(**_): ...\n")
    (root / TASKS / "own.yaml").write_text(
        "task: own\ncustom_dataset: !function code.rows\noutput_type: multiple_choice\ntest_split: test\n"
        "doc_to_text: !function code.ask\ndoc_to_target: !function code.ask\ndoc_to_choice: !function code.ask\n"
        "process_results: !function code.grade\nmetric_list: [{metric: acc, aggregation: !function code.ask}]\n"
    )
    task = load.load_workflow(root).tasks["own"]
    assert {key for key, value in task.items() if isinstance(value, dict)} == {
        "custom_dataset", "doc_to_text", "doc_to_target", "doc_to_choice", "process_results"}  # fmt: skip
    assert task["doc_to_text"]["folder"] == "workflows/tasks" and len(task["doc_to_text"]["sha256"]) == 64


@pytest.mark.parametrize("text", ["limit: 0", "limit: 1.5", "num_fewshot: -1", "num_fewshot: two", "limit: [1]"])
def test_num_fewshot_and_limit_of_an_experiment_are_checked(root, text):  # noqa: F811
    edit(root, QUICKSTART, "tasks: [topic]", f"tasks: [topic]\n{text}")
    assert any(f": {text.partition(':')[0]}: must be " in line for line in problems(root))


def test_a_task_that_could_be_fine_tuned_in_an_experiment_that_does_not_is_named_in_the_plan(root):  # noqa: F811
    workflow = load.load_workflow(root)
    experiment = workflow.experiments["quickstart"]
    made = plan.make_plan(experiment, workflow)
    assert (
        made.of("finetune")
        and not made.not_tuned
        and "not fine-tuned" not in show_plan.as_text(experiment, time_plan(made))
    )
    path = root / QUICKSTART
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "finetune" not in line))
    workflow = load.load_workflow(root)
    experiment = workflow.experiments["quickstart"]
    made = plan.make_plan(experiment, workflow)
    assert not made.of("finetune") and made.not_tuned == ("topic",)
    assert "not fine-tuned, as the experiment has no `finetune:` block: topic; write" in show_plan.as_text(
        experiment, time_plan(made)
    )
