"""Names of lm-evaluation-harness's tasks, groups and tags, against its own index and factory."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import yaml
from test_load import problems, root  # noqa: F401  the fixture of a small project

from cgpt.errors import UserError
from cgpt.experiment import load, plan
from cgpt.spec import Data, Experiment, Train
from cgpt.tasks import groups as taskgroups
from cgpt.tasks import stock
from cgpt.tasks.documents import select_documents

NAMES = ["mmlu", "ai2_arc", "mmlu_stem", "blimp", "glue", "arithmetic", "pythia", "mmlu_anatomy", "hellaswag",
         "anli", "mathqa", "super-glue-lm-eval-v1", "wmdp", "cmmlu", "truthfulqa_mc1"]  # fmt: skip


def expand(files: dict[str, dict], *names: str, **keys) -> tuple[dict[str, dict], dict[str, taskgroups.TaskGroup]]:
    experiment = Experiment("mine", "?", ("gpt",), Data(("world",)), Train(0.1, 1, steps=1), tasks=names, **keys)
    leaves, groups = taskgroups.expand(experiment, files)
    return {leaf.name: leaf.task for leaf in leaves}, {group.name: group for group in groups}


@functools.cache
def manager():
    """lm-evaluation-harness's own, whose tasks are only their configuration, as no data are here."""
    from lm_eval.tasks import TaskManager

    made = TaskManager()

    def build(entry, overrides):
        return SimpleNamespace(task_name=(overrides or {}).get("task", entry.name), overrides=overrides or {})

    made._factory._build_task = build
    return made


def leaves_of(item) -> list:
    """The tasks below a group or tag that lm-evaluation-harness made."""
    children = item if isinstance(item, list) else getattr(item, "_children", {}).values()
    return [item] if hasattr(item, "overrides") else [leaf for child in children for leaf in leaves_of(child)]


@pytest.mark.slow  # it reads lm-evaluation-harness's 13,000 files twice
def test_every_name_of_lm_eval_is_found_in_its_own_index():
    names = manager().task_index
    assert set(stock.index()) == set(names) and len(names) > 14_000
    for name, entry in stock.index().items():
        assert entry.kind == names[name].kind.name, name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stock_name_stands_for_the_tasks_that_lm_eval_builds_for_it(name):
    if name not in manager().task_index:
        pytest.skip(f"this version of lm-eval has no {name}")
    expected = {leaf.task_name: leaf.overrides for leaf in leaves_of(manager()._load_spec(name))}
    result, _ = expand({"mine": {"task": name, "stock": True}}, "mine")
    of_group = result if len(result) > 1 else {name: result["mine"]}
    assert set(of_group) == set(expected)
    for leaf, task in of_group.items():
        keys = {key: value for key, value in task.items() if key not in ("task", "stock")}
        assert keys == {key: value for key, value in expected[leaf].items() if key not in ("task", "tag")}


def test_the_keys_of_a_stock_file_hold_for_every_task_of_its_group():
    result, groups = expand({"m": {"task": "mmlu", "stock": True, "num_fewshot": 5, "sample": 9}}, "m", limit=3)
    assert len(result) == 57
    assert result["mmlu_anatomy"] == {"task": "mmlu_anatomy", "stock": True, "num_fewshot": 5, "sample": 9}
    assert set(groups) == {"mmlu", "mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"}
    assert groups["mmlu"].members == tuple(result) and groups["mmlu"].version == 2


def test_a_group_of_the_study_names_its_own_files_first_and_then_those_of_lm_eval():
    files = {
        "mine": {"group": "mine", "num_fewshot": 2, "metadata": {"version": 3},
                 "aggregate_metric_list": [{"metric": "acc"}],
                 "task": [{"task": "topic"}, {"task": "mmlu_anatomy", "num_fewshot": 4}, {"task": "inner"}]},
        "inner": {"group": "inner", "task": [{"task": "sciq"}]},
        "topic": {"task": "topic", "data": "world", "limit": 5},
        "sciq": {"task": "sciq", "data": "sciq"},
    }  # fmt: skip
    result, groups = expand(files, "mine")
    assert result == {
        "topic": {"task": "topic", "data": "world", "limit": 5, "num_fewshot": 2},
        "mmlu_anatomy": {"task": "mmlu_anatomy", "stock": True, "num_fewshot": 4},
        "sciq": {"task": "sciq", "data": "sciq", "num_fewshot": 2},
    }
    assert groups == {"mine": taskgroups.TaskGroup("mine", 3, ("topic", "mmlu_anatomy", "sciq"), ({"metric": "acc"},))}


@pytest.mark.parametrize(
    ("files", "wanted_text"),
    [
        ({"x": {"task": "mmlu_anatomi", "stock": True}},
         "tasks/x.yaml: task: lm-evaluation-harness has no task 'mmlu_anatomi'; did you mean 'mmlu_anatomy'?"),
        ({"x": {"task": "zzzzzzzzzzzz", "stock": True}}, "has no task 'zzzzzzzzzzzz'; `lm-eval ls tasks` lists them"),
        ({"x": {"task": "squadv2", "stock": True}}, "'squadv2' is a Python class of lm-evaluation-harness, not YAML"),
        ({"x": {"group": "x", "task": [{"task": "topik"}]}, "topic": {"task": "topic"}},
         "tasks/x.yaml: task: there is no task 'topik', neither in workflows/tasks nor in lm-evaluation-harness"),
        ({"x": {"group": "x", "task": [{"task": "y"}]}, "y": {"group": "y", "task": [{"task": "x"}]}},
         "workflows/tasks/x.yaml: task: contains itself, by x and y; remove one"),
        ({"x": {"group": "x", "task": [{"task": "t"}, {"task": "t", "num_fewshot": 3}]}, "t": {"task": "t"}},
         "workflows/experiments/mine.yaml: tasks: x: 't' is there already, with other keys; take one of the two"),
    ],
)  # fmt: skip
def test_a_name_that_nobody_knows_is_named_when_the_experiment_is_planned(files, wanted_text):
    with pytest.raises(UserError) as caught:
        expand(files, "x")
    assert wanted_text in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_num_fewshot_and_limit_of_an_experiment_win_over_those_of_its_tasks():
    experiment = Experiment("mine", "?", ("gpt",), num_fewshot=(3, 0), limit=0.5)
    task = {"task": "t", "sample": 10, "num_fewshot": 0}
    three, none = taskgroups.scored(task, experiment)
    assert three == none | {"num_fewshot": 3} == {"task": "t", "limit": 0.5, "num_fewshot": 3}
    assert select_documents(three, 5) == [0, 1, 2]
    assert taskgroups.scored(task | {"output_type": "loglikelihood_rolling"}, experiment) == [
        none | {"output_type": "loglikelihood_rolling"}
    ]


def score_row(task: str, n: int, value: float, stderr: float | None, **changes) -> dict:
    """A row of scores.csv."""
    return dict(
        experiment="mine", model="gpt", n_parameters=9, data="world", setting="", seed=0, hardware="cpu",
        timing="measured", stage="pretrain", condition="zero-shot", n_labels=None, task=task, task_version=1, n_shot=0,
        metric="acc", filter="none", primary=True, value=value, stderr=stderr, higher_is_better=True, chance=0.25,
        n_samples=n, documents="all", n_prompts_cut=1, evaluate_run=task, finetune_run=None, pretrain_run="p",
    ) | changes  # fmt: skip


MEMBERS = [("a", 100, 0.3, 0.02), ("b", 700, 0.5, 0.01), ("c", 50, 0.9, 0.04)]


@pytest.mark.parametrize("weight_by_size", [True, False])
@pytest.mark.parametrize("filter_list", [None, "none", ["none", "strict"]])
def test_the_score_of_a_group_is_the_one_that_lm_eval_prints(weight_by_size, filter_list):
    from lm_eval.api.group import Group
    from lm_eval.api.task import ConfigurableTask

    metric = {"metric": "acc", "weight_by_size": weight_by_size, "filter_list": filter_list}
    theirs = Group.from_config({"group": "g", "aggregate_metric_list": [metric]})
    results = {}
    for name, n, value, stderr in MEMBERS:
        member = object.__new__(ConfigurableTask)
        member._config = SimpleNamespace(task=name)
        theirs.add(member)
        results[name] = {"acc,none": value, "acc_stderr,none": stderr, "sample_len": n}
    expected = theirs.aggregate(results)
    group = taskgroups.TaskGroup("g", 2, ("a", "b", "c"), (metric,))
    (row,) = taskgroups.group_rows([group], [score_row(*member) for member in MEMBERS])
    assert row["value"] == pytest.approx(expected["acc,none"], rel=1e-15)
    assert row["stderr"] == pytest.approx(expected["acc_stderr,none"], rel=1e-15)
    assert (row["task"], row["task_version"], row["n_samples"], row["chance"]) == ("g", 2, 850, 0.25)
    assert (row["primary"], row["evaluate_run"], row["documents"], row["n_prompts_cut"]) == (True, None, "all", 3)


def test_a_group_has_a_score_for_each_model_and_condition_that_has_all_of_its_members():
    rows = [score_row(*member, model=model) for member in MEMBERS for model in ("x", "y")]
    rows += [score_row(*MEMBERS[0], stage="finetune", condition="fine-tuned")]
    rows += [score_row(*MEMBERS[0], model="x", metric="acc_norm"), score_row("d", 9, 0.1, None)]
    rows[1] |= {"condition": "few-shot", "n_shot": 5, "stderr": None}
    group = taskgroups.TaskGroup("g", None, ("a", "b", "c"), ({"metric": "acc"},))
    result = taskgroups.group_rows([group], rows)
    assert [(row["model"], row["condition"], row["n_shot"]) for row in result] == [
        ("x", "zero-shot", 0), ("y", "few-shot", 5)]  # fmt: skip
    assert result[1]["stderr"] is None


def test_a_group_whose_members_are_scored_with_several_numbers_of_shots_has_a_score_for_each():
    numbers = ((0, "zero-shot"), (2, "few-shot"), (5, "few-shot"))
    rows = [score_row(*member, n_shot=n, condition=condition) for member in MEMBERS for n, condition in numbers]
    group = taskgroups.TaskGroup("g", None, ("a", "b", "c"), ({"metric": "acc"},))
    result = taskgroups.group_rows([group], rows)
    assert [(row["condition"], row["n_shot"]) for row in result] == [("zero-shot", 0), ("few-shot", 2), ("few-shot", 5)]
    assert len({row["value"] for row in result}) == 1


def test_tasks_of_a_group_are_planned_as_runs_of_their_own_and_experiments_without_one_read_no_index(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(stock, "index", lambda: pytest.fail("the index was read"))
    workflow = load.load_workflow(root)
    before = plan.make_plan(workflow.experiments["quickstart"], workflow)
    (root / "workflows/tasks/pair.yaml").write_text("task: [topic]\naggregate_metric_list: {metric: acc}\n")
    path = root / "workflows/experiments/quickstart.yaml"
    text = path.read_text()
    path.write_text(text.replace("tasks: [topic]", "tasks: [pair]"))
    workflow = load.load_workflow(root)
    after = plan.make_plan(workflow.experiments["quickstart"], workflow)
    assert after.runs == before.runs
    assert after.groups == (taskgroups.TaskGroup("pair", None, ("topic",), ({"metric": "acc"},)),)
    path.write_text(text + "num_fewshot: 2\nlimit: 0.1\n")
    workflow = load.load_workflow(root)
    limited = plan.make_plan(workflow.experiments["quickstart"], workflow)
    assert {run.spec["task"]["limit"] for run in limited.of("evaluate")} == {0.1}
    assert {run.id for run in limited.of("evaluate")}.isdisjoint(run.id for run in before.of("evaluate"))
    assert [run.id for run in limited.of("finetune")] == [run.id for run in before.of("finetune")]


@pytest.mark.parametrize(
    ("text", "wanted_text"),
    [
        ("group: other\ntask: [topic]\n", "tasks/mine.yaml:1: group: 'other' is not the file's name; write mine"),
        ("group: mine\n", "task: must be a list of tasks; write e.g. [first, second]"),
        ("task: [topic, 3]\n", "task.1: is no task; write its name"),
        ("task: [topic]\ntaks: x\n", "taks: unknown key; did you mean 'task'?"),
        ("task: [{task: topic, num_shots: 3}]\n", "task.0.num_shots: unknown key; did you mean 'num_fewshot'?"),
        ("task: [topic]\naggregate_metric_list: [{metric: acc, weight: true}]\n",
         "aggregate_metric_list.0.weight: unknown key; did you mean 'weight_by_size'?"),
        ("task: [topic]\naggregate_metric_list: [acc]\n", "aggregate_metric_list.0: has no `metric`"),
        ("task: [topic]\nlimit: -1\n", "limit: must be a number of documents, or a share of them below 1, not -1"),
        ("task: [{task: topic, limit: -1, num_fewshot: -1}]\n", "yaml:1: task.0.limit: must be a number of documents"),
        ("task:\n  - {task: topic}\n  - {task: topic, sample: 0}\n", "yaml:3: task.1.sample: must be a whole"),
        ("task: [topic]\ndata: wrold\n", "data: there is no data set 'wrold'; did you mean 'world'?"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_group_is_one_line_with_its_place(root, text, wanted_text):  # noqa: F811
    (root / "workflows/tasks/mine.yaml").write_text(text)
    assert any(wanted_text in line for line in problems(root)), problems(root)


def test_the_index_is_read_again_where_the_cache_is_damaged_or_of_another_state(monkeypatch, tmp_path):
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path))
    reads = []
    names = {"known": stock.Entry("GROUP", None, yaml.safe_load("{group: known, task: [a]}"), [])}
    monkeypatch.setattr(stock, "_read_folder", lambda: reads.append(1) or names)
    for content in (None, b"", b"[1]", b'{"known": 1}', b"\xff"):
        stock.index.cache_clear()
        if content is not None:
            stock._index_file().write_bytes(content)
        assert stock.index() == names
    assert len(reads) == 5
    stock.index.cache_clear()
    assert stock.index() == names and len(reads) == 5
    with pytest.raises(UserError, match="has no task 'unknown'"):
        stock.entry("unknown", "x")
    assert len(reads) == 6
    stock.index.cache_clear()


def test_an_index_that_cannot_be_kept_is_used(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(stock, "_index_file", lambda: tmp_path / "file" / "index.json")  # none can be made below a file
    monkeypatch.setattr(stock, "_read_folder", lambda: {"known": stock.Entry("TASK", "a.yaml", None, [])})
    stock.index.cache_clear()
    assert list(stock.index()) == ["known"]
    stock.index.cache_clear()


def study_group(metric: dict, **keys) -> tuple:
    """Expand a group of two tasks of the study, of which one says its metrics and filters."""
    files = {
        "both": {"group": "both", "task": [{"task": "one"}, {"task": "two"}], "aggregate_metric_list": [metric]},
        "one": {"task": "one", "output_type": "multiple_choice"},
        "two": {"task": "two", "output_type": "generate_until", "metric_list": [{"metric": "f1"}]} | keys,
    }
    return expand(files, "both")


@pytest.mark.parametrize("name", ["acc", "acc_norm", "f1", "bits_per_byte_of_answer"])
def test_a_group_may_average_what_a_member_has(name):
    assert study_group({"metric": name})[1]["both"].metrics == ({"metric": name},)
    strict = {"filter_list": [{"name": "strict", "filter": [{"function": "take_first"}]}]}
    assert study_group({"metric": name, "filter_list": ["strict"]}, **strict)[1]["both"].metrics


@pytest.mark.parametrize("metric, message", [
    ({"metric": "ac"}, "no member has the metric 'ac'; did you mean 'acc'?"),
    ({"metric": "exact_match"}, "no member has the metric 'exact_match'"),
    ({"metric": "acc", "filter_list": ["strict"]}, "filter_list: no member has the filter 'strict'; known: none"),
])  # fmt: skip
def test_a_group_that_averages_what_no_member_has_is_refused(metric, message):
    with pytest.raises(UserError) as caught:
        study_group(metric)
    assert str(caught.value).startswith("workflows/tasks/both.yaml: aggregate_metric_list") and message in str(
        caught.value
    )


def test_the_metrics_of_a_task_that_lists_none_are_lm_evals():
    import lm_eval.api.metrics  # noqa: F401  fills the registry
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    assert {kind: tuple(names) for kind, names in DEFAULT_METRIC_REGISTRY.items()} == taskgroups.DEFAULT_METRICS
