"""Previews of tasks and corpora that `plan` prints before anything is spent."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import tiny
from project import DATA_FILES, edit, write_project

from cgpt.__main__ import main
from cgpt.experiment import load, plan
from cgpt.experiment.run import Plan, Run
from cgpt.preview import kept_checks
from cgpt.tasks import lm_eval_tasks
from cgpt.tasks.documents import pick_subset, render_documents
from cgpt.tasks.examples import read_examples

TOPIC, QUICKSTART = "workflows/tasks/topic.yaml", "workflows/experiments/quickstart.yaml"
LABELS = 60
STUDY_FILES = "{data_files: {train: own/train.jsonl, validation: own/validation.jsonl, test: own/test.jsonl}}"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The small project, whose task reads files of the study's own folder."""
    write_project(tmp_path)
    edit(tmp_path, TOPIC, f"data: world\ndataset_path: json\ndataset_kwargs: {DATA_FILES}",
         f"dataset_path: json\ndataset_kwargs: {STUDY_FILES}")  # fmt: skip
    (tmp_path / "own").mkdir()
    for split, n in (("train", LABELS), ("validation", 10), ("test", 30)):
        write_rows(tmp_path / f"own/{split}.jsonl", [{"text": f"{split} {i}", "label": i % 2} for i in range(n)])
    (tmp_path / "notes.txt").write_text("".join(f"A note of {i} words about {i * i} things.\n" for i in range(2000)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CGPT_DATA_MIRROR", raising=False)
    return tmp_path


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def planned(root: Path) -> Plan:
    workflow = load.load_workflow(root)
    return plan.make_plan(workflow.experiments["quickstart"], workflow)


def printed(capsys) -> str:
    """Text that `plan` prints."""
    assert main(["plan", "quickstart"]) == 0
    return capsys.readouterr().out


def refused(capsys) -> list[str]:
    """The lines with which `plan` stops."""
    assert main(["plan", "quickstart"]) == 1
    answer = capsys.readouterr()
    assert answer.out == "" and "Traceback" not in answer.err
    return answer.err.splitlines()


def test_a_plan_shows_a_prompt_of_each_task_with_its_right_answer(root, capsys):
    assert "task topic: 30 documents, each of which can be rendered and scored; the first is\n  | test 0\n" in (
        text := printed(capsys)
    )
    assert "  and its answer 'sea'\n" in text
    assert main(["plan", "quickstart", "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert (task["task"], task["prompt"], task["answer"], task["n_documents"]) == ("topic", "test 0", "sea", 30)


def test_the_prompts_looked_at_are_those_that_evaluation_sends_shots_included(root):
    edit(root, TOPIC, "test_split: test", "test_split: test\nnum_fewshot: 3\nsample: 20")
    task = load.load_workflow(root).tasks["topic"]
    asked, _ = render_documents(task, root)
    lm_task = lm_eval_tasks.build(task, root)
    lm_task.build_all_requests(samples=pick_subset(30, 20))
    assert [pair for document in asked for pair in document] == [request.args for request in lm_task.instances]
    assert asked[0][0][0].count("train ") == 3


@pytest.mark.parametrize("split, document", [("train", 59), ("validation", 7), ("test", 29)])
def test_a_wrong_label_anywhere_in_the_data_stops_the_plan(root, capsys, split, document):
    path = root / f"own/{split}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[document]["label"] = "hill"
    write_rows(path, rows)
    assert refused(capsys) == [
        f"{TOPIC}: split '{split}', document {document}: doc_to_target: label 'hill' is not among the choices "
        "['sea', 'land']; give an index from 0 to 1 or one of the texts"
    ]


@pytest.mark.parametrize("old, new, problem", [
    ('doc_to_text: "{{text}}"', 'doc_to_text: "{{txt}}"', "doc_to_text: the data have no field 'txt'; did you mean"),
    ('doc_to_text: "{{text}}"', 'doc_to_text: "{{text"', "doc_to_text: is not a Jinja template"),
    ("test_split: test", "test_split: test\nmetric_list: [{metric: accc}]", "no metric 'accc'; did you mean 'acc'?"),
    ("test_split: test", "test_split: test\nmetric_list: [{metric: f1, aggregation: mean}]", "f1 cannot be aggregated"),
    ("test_split: test", "test_split: test\nnum_fewshot: 61", "61 shots cannot be drawn from the 60 documents"),
    ("own/test.jsonl", "own/tset.jsonl", "has no file 'own/tset.jsonl', and `data` names no data set; did you mean"),
    ("test_split: test", "test_split: tests", "has no split 'tests'; did you mean 'test'?"),
    ("epochs: 2", "epochs: 2, n_labels: [61]", "61 labels are asked for, split 'train' has 60; write 60 or fewer"),
    ("validation_split: validation\n", "", "validation_split: is missing, fine-tuning needs it"),
])  # fmt: skip
def test_what_would_fail_at_evaluate_or_finetune_fails_at_plan(root, capsys, old, new, problem):
    edit(root, TOPIC, old, new)
    (line,) = refused(capsys)
    assert line.startswith(TOPIC) and problem in line


@pytest.mark.parametrize("split, text, document", [("train", " ", 3), ("validation", "", 3)])
def test_an_empty_prompt_to_train_on_is_refused_and_one_to_score_is_not(root, capsys, split, text, document):
    edit(root, TOPIC, "{{text}}", "{{text | trim}}")
    write_rows(root / "own/test.jsonl", [{"text": "", "label": 0}, {"text": "a", "label": 1}])
    assert "task topic: 2 documents" in printed(capsys)
    rows = [{"text": text if i == document else f"{i}", "label": i % 2} for i in range(10)]
    write_rows(root / f"own/{split}.jsonl", rows)
    assert refused(capsys) == [
        f"{TOPIC}: split '{split}', document {document}: doc_to_text: gives an empty prompt, which fine-tuning cannot "
        "train on; write text around the field, or leave the document out"
    ]


def test_as_many_shots_as_there_are_training_documents_can_be_drawn(root, capsys):
    edit(root, TOPIC, "test_split: test", f"test_split: test\nnum_fewshot: {LABELS}")
    assert f"task topic, {LABELS}-shot: 30 documents" in printed(capsys)


def test_a_workflow_checks_the_tasks_of_the_runs_that_it_starts(root, capsys):
    edit(root, TOPIC, 'doc_to_text: "{{text}}"', 'doc_to_text: "{{txt}}"')
    (run,) = [run for run in planned(root).of("evaluate") if run.spec["checkpoint_stage"] == "pretrain"]
    assert main(["check", run.id]) == 1
    assert "the data have no field 'txt'" in capsys.readouterr().err
    (tokenize,) = planned(root).of("tokenize")
    assert main(["check", tokenize.id]) == 0


def test_what_is_wrong_with_a_task_is_said_when_its_data_have_come_which_are_kept(root, capsys):
    edit(root, TOPIC, "dataset_path: json", "data: world\ndataset_path: json")
    edit(root, TOPIC, STUDY_FILES, DATA_FILES)
    edit(root, TOPIC, 'doc_to_text: "{{text}}"', 'doc_to_text: "{{txt}}"')
    assert main(["fetch", "world"]) == 0
    assert "the data have no field 'txt'; did you mean 'text'?" in capsys.readouterr().err
    assert (root / "results/runs/data/world/fetched.json").is_file()


def test_what_was_found_right_is_not_checked_again_until_its_content_changes(root, capsys, monkeypatch):
    first = printed(capsys)
    with monkeypatch.context() as patch:
        for module in ("documents", "examples"):
            patch.setattr(f"cgpt.tasks.{module}.build", lambda *_: pytest.fail("rendered again"))
        assert printed(capsys) == first
        (root / "own/test.jsonl").write_bytes((root / "own/test.jsonl").read_bytes())
        assert printed(capsys) == first
    write_rows(root / "own/test.jsonl", [{"text": "another", "label": 1}])
    assert "task topic: 1 documents" in printed(capsys)
    write_rows(root / "own/test.jsonl", [{"text": "another", "label": 2}])
    assert "label 2 is not among the choices" in refused(capsys)[0]


def test_prompts_longer_than_a_model_are_counted_in_tokens_or_estimated_without_a_tokenizer(root, capsys):
    rows = [{"text": " ".join(f"w{i}" for i in range(3, 3 + n)), "label": 0} for n in (5, 15, 16, 17, 40)]
    write_rows(root / "own/test.jsonl", rows)
    edit(root, TOPIC, "[sea, land]", "[w1, w2]")
    assert "1 of 5 prompts may be longer than small, and lose their start" in printed(capsys)  # 150 bytes > 4 x 17
    (tokenize,) = planned(root).of("tokenize")
    tiny.write_tokenizer(root / "results/runs/tokens" / tokenize.id / "tokenizer.json")
    assert "2 of 5 prompts are longer than small, and lose their start" in printed(
        capsys
    )  # 17 tokens fit with the answer


def test_data_that_are_not_at_hand_leave_a_task_unchecked_but_for_its_form_and_the_names_of_its_files(root, capsys):
    far = "files: [{path: far/train.jsonl}, {path: far/validation.jsonl}, {path: far/test.jsonl.gz}]"
    edit(root, "workflows/data.yaml", "path: notes.txt", far)
    edit(root, TOPIC, "dataset_path: json", "data: notes\ndataset_path: json")
    edit(root, TOPIC, STUDY_FILES, STUDY_FILES.replace("own/", ""))
    assert "task topic: not checked: its data are not here yet; `cgpt fetch notes` brings them" in printed(capsys)
    edit(root, TOPIC, "test: test.jsonl", "test: tset.jsonl")
    assert "data set 'notes' has no file 'tset.jsonl'; did you mean 'test.jsonl'?" in refused(capsys)[0]
    edit(root, TOPIC, "test: tset.jsonl", "test: test.jsonl")
    edit(root, TOPIC, 'doc_to_text: "{{text}}"', 'doc_to_text: "{{text"')
    assert "is not a Jinja template" in refused(capsys)[0]


def test_data_in_the_mirror_are_checked_packed_or_not(root, capsys, monkeypatch):
    far = "files: [{path: far/train.jsonl}, {path: far/validation.jsonl}, {path: far/test.jsonl.gz}]"
    edit(root, "workflows/data.yaml", "path: notes.txt", far)
    edit(root, TOPIC, "dataset_path: json", "data: notes\ndataset_path: json")
    edit(root, TOPIC, STUDY_FILES, STUDY_FILES.replace("own/", ""))
    (root / "mirror/far").mkdir(parents=True)
    for split in ("train", "validation"):
        (root / f"own/{split}.jsonl").rename(root / f"mirror/far/{split}.jsonl")
    (root / "mirror/far/test.jsonl.gz").write_bytes(gzip.compress((root / "own/test.jsonl").read_bytes()))
    monkeypatch.setenv("CGPT_DATA_MIRROR", str(root / "mirror"))
    assert "task topic: 30 documents, each of which can be rendered and scored" in printed(capsys)


def test_the_builtin_data_are_made_and_checked(root, capsys):
    write_project(root)
    assert "task topic: 1,000 documents, each of which can be rendered and scored" in printed(capsys)
    edit(root, TOPIC, "doc_to_target: label", "doc_to_target: text")
    assert "split 'train', document 0: doc_to_target: label " in refused(capsys)[0]


def test_a_vocabulary_or_a_sequence_that_a_small_corpus_cannot_fill_stops_the_plan(root, capsys):
    edit(root, QUICKSTART, "{corpus: [world], vocab_size: 512}", "{corpus: [notes], vocab_size: 100000}")
    edit(root, "workflows/data.yaml", "path: notes.txt", "path: notes.txt, documents: line")
    (line,) = refused(capsys)
    assert line.startswith(f"{QUICKSTART}: data.vocab_size: 100000 is more than this corpus gives; write ")
    edit(root, QUICKSTART, "vocab_size: 100000", "vocab_size: 512")
    assert "9 runs" in printed(capsys)
    edit(root, "workflows/models.yaml", "n_head: 2, seq_len: 16", "n_head: 2, seq_len: 1000000")
    train, validation = refused(capsys)
    assert train.startswith("workflows/models.yaml: small.seq_len: 1000000 does not fit the ")
    assert " train tokens of this corpus; write " in train and " validation tokens " in validation


def test_what_is_wrong_in_a_text_names_its_entry_and_the_users_file_not_a_copy_of_it(root, capsys):
    edit(root, QUICKSTART, "{corpus: [world], vocab_size: 512}", "{corpus: [notes], vocab_size: 512}")
    edit(root, "workflows/data.yaml", "path: notes.txt", 'path: my notes, documents: "jsonl:txt"')
    (root / "my notes").mkdir()
    write_rows(root / "my notes/first.jsonl", [{"txt": f"A note of {i} words."} for i in range(9)])
    write_rows(root / "my notes/second.jsonl", [{"text": f"A note of {i} words."} for i in range(9)])
    wrong = "workflows/data.yaml: notes: my notes/second.jsonl: line 1: "
    assert refused(capsys) == [f"{wrong}has no text field 'txt'; did you mean 'text'?"]
    (root / "my notes/second.jsonl").write_text("{\n")
    assert refused(capsys)[0].startswith(f"{wrong}is not JSON (")


def test_a_folder_that_cannot_be_written_costs_the_memory_of_a_check_alone(root, capsys, monkeypatch):
    monkeypatch.setattr(kept_checks, "CHECKS", root / "notes.txt" / "checks")  # no folder can be made below a file
    assert "task topic: 30 documents" in printed(capsys)


def evaluations(root: Path) -> dict[str, Run]:
    return {run.spec["checkpoint_stage"]: run for run in planned(root).of("evaluate")}


def test_a_fine_tuned_model_is_scored_without_shots_unless_its_block_names_some(root):
    before = {run.id for run in planned(root).of("finetune")}
    edit(root, TOPIC, "test_split: test", "test_split: test\nnum_fewshot: 3")
    runs = evaluations(root)
    assert runs["pretrain"].spec["task"]["num_fewshot"] == 3 and runs["finetune"].spec["task"]["num_fewshot"] == 0
    tuned = {run.id for run in planned(root).of("finetune")}
    edit(root, TOPIC, "epochs: 2", "epochs: 2, num_fewshot: 2")
    assert evaluations(root)["finetune"].spec["task"]["num_fewshot"] == 2
    assert {run.id for run in planned(root).of("finetune")} == tuned and len(before) == len(tuned) == 2


def test_an_edited_file_of_the_studys_own_folder_makes_other_runs_of_its_task_alone(root):
    before = {run.id for run in planned(root).runs}
    text = (root / "own/test.jsonl").read_text()
    (root / "own/test.jsonl").write_text(text.replace("test 29", "test 30"))
    changed = [run for run in planned(root).runs if run.id not in before]
    assert {run.stage for run in changed} == {"finetune", "baseline", "evaluate"}
    (root / "own/test.jsonl").write_text(text)
    assert {run.id for run in planned(root).runs} == before


def test_a_file_that_changes_after_its_run_was_planned_is_refused_at_reading(root):
    task = load.load_workflow(root).tasks["topic"]
    assert len(read_examples(task, root / "elsewhere", "test")) == 30
    write_rows(root / "own/test.jsonl", [{"text": "x", "label": 0}])
    with pytest.raises(lm_eval_tasks.UserError, match=r"own/test.jsonl: has changed since this run was planned"):
        read_examples(task, root / "elsewhere", "test")


def test_what_is_trained_on_whole_and_scored_by_a_limit_is_said_to_be_trained_on(root, capsys):
    edit(root, QUICKSTART, "models:", "limit: 5\nmodels:")
    text = printed(capsys)
    assert (
        f"task topic: {LABELS + 10} labelled documents, each of which can be rendered and trained on; the first is"
        in text
    )
    assert "task topic: 5 documents, each of which can be rendered and scored; the first is" in text
    assert text.count("  and its answer 'sea'\n") == 2
