"""What a task file says of metrics, filters and repeats: used, or refused before a model is asked."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from test_fewshot import MODEL, TOKENIZER
from test_preview import TOPIC, printed, refused, root  # noqa: F401  a small project with files of its own
from test_tasks import ROWS, write_task

from cgpt.errors import UserError
from cgpt.inference.lm_eval_model import Adapter
from cgpt.stages.evaluate import score_task
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.documents import check_documents
from cgpt.tasks.examples import read_examples

pytestmark = pytest.mark.usefixtures("bigram_decoder")
WRITES = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "{{ ['no', 'yes'][label] }}"}
AS_TEXT = "doc_to_target: \"{{ ['sea', 'land'][label] }}\"\n"


def rewrite(
    root: Path,  # noqa: F811
    *lines: str,
    generate: bool = False,
) -> None:
    """Add lines to the project's task, which writes its answers where `generate` says so."""
    text = (root / TOPIC).read_text()
    if generate:
        for old, new in (("multiple_choice", "generate_until"), ("doc_to_target: label\n", AS_TEXT),
                         ("doc_to_choice: [sea, land]\n", "")):  # fmt: skip
            assert old in text
            text = text.replace(old, new)
    (root / TOPIC).write_text(text + "\n".join(lines) + "\n")


def test_a_metric_that_is_a_program_is_refused_and_not_run_by_plan(root, capsys):  # noqa: F811
    (root / "evil").mkdir()
    (root / "evil/evil.py").write_text("open('ran', 'w')\n")
    rewrite(root, "metric_list: [{metric: ./evil, hf_evaluate: true}]", generate=True)
    (line,) = refused(capsys)
    assert "metric_list.0.hf_evaluate: runs the program './evil'" in line
    assert not (root / "ran").exists()


def test_text_in_place_of_process_results_does_not_switch_the_check_of_metrics_off(root, capsys):  # noqa: F811
    rewrite(root, "process_results: x", "metric_list: [{metric: ./evil}]")
    (line,) = refused(capsys)
    assert "process_results: is called, so it must be Python" in line


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("metric_list: [{metric: acc}, {metric: acc, higher_is_better: false}]", "1.metric: 'acc' is listed twice"),
        ("metric_list: [{metric: acc, higher_is_better: 'no'}]", "0.higher_is_better: must be true or false"),
        ("metric_list: [{metric: acc, ignore_case: true}]", "0.ignore_case: has no effect with output_type multiple"),
        ("metric_list: [acc]", "metric_list: has an entry without `metric`; write `- metric: acc` for each"),
        ("metric_list: [{metric: 3}]", "metric_list.0.metric: must be a name, not 3"),
        ("filter_list: [{name: a, filter: [{function: take_first}]}, {name: a, filter: [{function: lowercase}]}]",
         "filter_list.1.name: must be text of its own, not 'a'"),
        ("filter_list: [{name: a, filter: [{function: take_first}], foo: 1}]", "filter_list.0.foo: unknown key"),
        ("filter_list: [{name: a}]", "filter_list.0.filter: is missing or holds no step"),
        ("filter_list: [{name: a, filter: [take_first]}]", "filter_list.0.filter: has an entry without `function`"),
        ("filter_list: [take_first]", "filter_list: has an entry without `name`"),
        ("repeats: 0", "repeats: must be a whole number of answers above 0, not 0"),
        ("repeats: 3", "repeats: has no effect with output_type multiple_choice"),
        ("doc_to_image: [text]", "doc_to_image: needs a model that sees"),
        ("doc_to_audio: text", "doc_to_audio: needs a model that hears"),
        ("unsafe_code: true", "unsafe_code: the task runs what a model writes as a program"),
    ],
)  # fmt: skip
def test_what_would_be_ignored_or_fail_after_the_model_was_asked_is_refused_by_plan(root, capsys, lines, message):  # noqa: F811
    rewrite(root, lines)
    printed = [line for line in refused(capsys) if message in line]
    assert len(printed) == 1 and printed[0].startswith(f"{TOPIC}:")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{function: regex, regex_pattern: '('}", "cannot be filtered so (error: missing )"),
        ("{function: regex, regex_pattern: '(a+)+$'}", "cannot be filtered so (TemplateTooLarge"),
        ("{function: regex, pattern: a}", "got an unexpected keyword argument 'pattern'"),
        ("{function: regex, regex_pattern: '(a)', group_select: 3}", "IndexError"),
        ("{function: take_first_k, k: 2}", "Need at least 2 responses"),
        ("{function: map, mapping_dict: {a: b}}", "'own' makes None of the answer 'sea'"),
        ("{function: multi_choice_regex, regex_pattern: '(a)'}", "KeyError: 'choices'"),
        ("{function: custom, filter_fn: text}", "'str' object is not callable"),
        ("{function: rgx}", "there is no filter 'rgx'; did you mean 'regex'?"),
    ],
)
def test_a_filter_that_cannot_work_is_known_before_a_model_is_asked(root, capsys, step, message):  # noqa: F811
    steps = f"[{step}]" if "custom" in step else f"[{step}, {{function: take_first}}]"
    rewrite(root, f"filter_list: [{{name: own, filter: {steps}}}]", generate=True)
    (line,) = refused(capsys)
    assert f"{TOPIC}: filter_list: " in line and message in line


def test_filters_that_work_are_those_of_lm_eval(root, capsys):  # noqa: F811
    rewrite(root, "filter_list:", "- {name: first, filter: [{function: regex, regex_pattern: '(s)'}, "
            "{function: take_first}]}", "repeats: 2", generate=True)  # fmt: skip
    assert "each of which can be rendered and scored" in printed(capsys)


def of_known_texts(answers, docs):
    """A filter that fails on everything but what plan tries out."""
    return [[("no", "yes", "", "a" * 256 + "!").index(text) and text for text in row] for row in answers]


def test_an_answer_that_no_filter_can_take_ends_an_evaluation_with_one_line(tmp_path):
    steps = [{"function": "custom", "filter_fn": of_known_texts}, {"function": "take_first"}]
    task = write_task(
        tmp_path,
        ROWS,
        **WRITES,
        filter_list=[{"name": "own", "filter": steps}],
        metric_list=[{"metric": "exact_match"}],
        process_results=lambda doc, results: {"exact_match": 1},
    )
    lm_task = lm_eval_tasks.build(task, tmp_path)
    check_documents(task, lm_task, [0])
    with pytest.raises(UserError, match="filter_list: .* cannot be filtered so .ValueError: tuple.index"):
        score_task(task, lm_task, Adapter(MODEL, TOKENIZER))


@pytest.mark.parametrize("key", ["doc_to_choice", "doc_to_target"])
@pytest.mark.parametrize("template", ["{{ [1] * 3000000 }}", "{{ '[' ~ '-' * 200000 ~ '1]' }}"])
def test_a_list_without_end_that_a_template_gives_is_stopped_with_one_line(tmp_path, key, template):
    task = write_task(tmp_path, ROWS, **{key: template})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        check_documents(task, lm_eval_tasks.build(task, tmp_path), [0])
    assert len(caught.value.problems) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # KiB


GROUP = "group: both\ntask: [topic, {member}]\n{key}\n"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("metric_list: [acc]", "metric_list: has an entry without `metric`"),
        ("metric_list: [{metric: ./evil, hf_evaluate: true}]", "metric_list.0.hf_evaluate: runs the program './evil'"),
        ("test_split: 5", "test_split: must be text, not 5"),
        ("dataset_kwargs: 5", "dataset_kwargs: must be a mapping, not 5"),
        ("doc_to_text: [x]", "doc_to_text: must be text or a number"),
        ("finetune: {epocs: 1}", "finetune.epocs: unknown key; did you mean 'epochs'?"),
        ("finetune: {epochs: 0}", "finetune.epochs: "),
    ],
)
def test_the_keys_that_a_group_gives_its_members_are_checked_as_a_task_s_own(root, capsys, key, message):  # noqa: F811
    group = Path("workflows/tasks/both.yaml")
    (root / "workflows/experiments/quickstart.yaml").write_text(
        (root / "workflows/experiments/quickstart.yaml").read_text().replace("tasks: [topic]", "tasks: [both]")
    )
    for text in (GROUP.format(member="topic", key=key),
                 GROUP.format(member=f"{{task: topic, {key}}}", key="description: ''")):  # fmt: skip
        group.write_text(text)
        (line,) = refused(capsys)
        assert line.startswith(f"{group}:") and message in line


def test_the_name_of_a_stock_task_is_text(root, capsys):  # noqa: F811
    (root / TOPIC).write_text("stock: true\ntask: 5\n")
    (line,) = refused(capsys)
    assert "task: must be text, not 5" in line


ROLLING = """\
task: topic
dataset_path: json
dataset_kwargs: {{data_files: {{test: own/test.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
{}
"""
EXPERIMENT = Path("workflows/experiments/quickstart.yaml")


@pytest.mark.parametrize("line", ["num_fewshot: 2", "description: Read this.", "gen_prefix: So"])
def test_what_would_stand_before_a_text_that_is_scored_whole_is_refused(root, capsys, line):  # noqa: F811
    EXPERIMENT.write_text(EXPERIMENT.read_text().replace("finetune: {start: [pretrained, scratch]}\n", ""))
    (root / TOPIC).write_text(ROLLING.format(line))
    (problem,) = refused(capsys)
    assert f"{line.partition(':')[0]}: has no effect with output_type loglikelihood_rolling" in problem


def test_the_shots_of_an_experiment_are_not_said_of_a_text_that_is_scored_whole(root, capsys):  # noqa: F811
    text = EXPERIMENT.read_text().replace("finetune: {start: [pretrained, scratch]}\n", "")
    EXPERIMENT.write_text(text + "num_fewshot: 2\n")
    (root / TOPIC).write_text(ROLLING.format(""))
    assert "task topic: 30 documents" in printed(capsys)


def test_several_right_choices_by_their_texts_are_scored_as_by_their_indices(tmp_path):
    rows = [{"sentence": f"film {n}", "ids": ids, "names": [["no", "yes", "both"][i] for i in ids]}
            for n, ids in enumerate([[0], [1, 2], [2], [0, 1], [1]])]  # fmt: skip
    scored = []
    for key in ("ids", "names"):
        task = write_task(
            tmp_path, {"train": rows, "test": rows}, doc_to_target=key, doc_to_choice=["no", "yes", "both"]
        )
        lm_task = lm_eval_tasks.build(task, tmp_path)
        scored.append(score_task(task, lm_task, Adapter(MODEL, TOKENIZER)))
    by_index, by_name = scored
    assert by_name[0] == by_index[0] and {score.metric for score in by_index[0]} > {"acc"}
    assert [sample["correct"] for sample in by_name[1]] == [sample["correct"] for sample in by_index[1]]


def test_a_field_that_jinja_has_a_name_for_may_be_in_the_data_and_is_never_taken_for_its_own(tmp_path):
    rows = [{"sentence": "a film", "label": 1, "self": "me", "args": 1, "loop": 2, "range": 3}] * 3
    task = write_task(tmp_path, {"train": rows, "test": rows}, doc_to_text="{{sentence}} {{args}} {{loop}} {{range}}")
    assert read_examples(task, tmp_path, "test")[0].prompt == "a film 1 2 3"
    with pytest.raises(UserError, match="doc_to_text: 'self' is Jinja's own name, not the field; rename the field"):
        lm_eval_tasks.build(task | {"doc_to_text": "{{sentence}} {{self}}"}, tmp_path)
