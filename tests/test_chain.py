"""A small study over local files, run for real: what was made from other content is refused, by name."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from project import edit, write_project

from cgpt.__main__ import main
from cgpt.data import content
from cgpt.errors import UserError
from cgpt.experiment import load, plan
from cgpt.experiment.run import Plan, last_file
from cgpt.preview.sources import find_files
from cgpt.report.rows import collect, refuse_stale
from cgpt.spec import DataFile, Dataset, Hub
from cgpt.stages.fetch import fetch_dataset

QUICKSTART = "workflows/experiments/quickstart.yaml"
EXPERIMENT = """\
question: Is it the same text?
data: {corpus: [notes], vocab_size: 300, validation_fraction: 0.1}
models: [small]
train: {lr: 0.003, batch_size: 4, steps: 4}
tasks: [topic]
threads_per_run: 2
"""
WORDS = "sea land hill river cat dog house tree sees likes finds under over calm loud".split()
STAGES = ("fetch", "tokenize", "pretrain", "evaluate")


def text(seed: int) -> str:
    made = random.Random(seed)
    return "\n".join(" ".join(made.choices(WORDS, k=12)) for _ in range(400)) + "\n"


def make_plan(root: Path) -> Plan:
    workflow = load.load_workflow(root)
    return plan.make_plan(workflow.experiments["quickstart"], workflow)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A study whose runs are all done."""
    root = write_project(tmp_path_factory.mktemp("finished"))
    (root / QUICKSTART).write_text(EXPERIMENT)
    edit(
        root, "workflows/data.yaml", "{path: notes.txt}", "{path: notes.txt, documents: line}\n  topics: {path: topics}"
    )
    edit(root, "workflows/tasks/topic.yaml", "data: world", "data: topics")
    edit(root, "hardware_profiles/cpu.yaml", "device: CPU", "device: CPU\nkernels: native")
    (root / "notes.txt").write_text(text(0))
    (root / "topics").mkdir()
    for split, n in (("train", 12), ("test", 8)):
        rows = ({"text": WORDS[i % 9], "label": i % 2} for i in range(n))
        (root / f"topics/world_sentiment_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        redo(root, *STAGES)
    return root


def redo(root: Path, *stages: str) -> None:
    for run in make_plan(root).runs:
        if run.stage in stages:
            assert main([run.stage, run.id]) == 0, run.id


@pytest.fixture
def root(finished, tmp_path, monkeypatch) -> Path:
    copy = Path(shutil.copytree(finished, tmp_path / "study"))
    monkeypatch.chdir(copy)
    return copy


def refused(root: Path, capsys, *arguments: str) -> str:
    """The one line that a command ends in."""
    capsys.readouterr()
    assert main(list(arguments)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
    return lines[0]


def run_id(root: Path, stage: str) -> str:
    return make_plan(root).of(stage)[0].id


def record(root: Path, stage: str) -> dict:
    return json.loads(last_file(stage, run_id(root, stage)).read_text())


def test_each_record_names_the_hashes_of_what_it_was_made_from_and_of_what_it_wrote(root):
    shards, trained, scored = (record(root, stage) for stage in ("tokenize", "pretrain", "evaluate"))
    fetched = json.loads(Path("results/runs/data/notes/fetched.json").read_text())
    assert [file["sha256"] for file in fetched["files"]] == [content.sha256_of(root / "notes.txt")]
    assert list(shards["inputs"]) == ["fetch/notes"]
    folder = last_file("pretrain", run_id(root, "pretrain")).parent
    assert trained["inputs"] == {
        "tokenize/train.bin": shards["train"]["header_sha256"],
        "tokenize/validation.bin": shards["validation"]["header_sha256"],
        "tokenize/tokenizer.json": shards["tokenizer_sha256"],
    }
    assert trained["outputs"] == {name: content.sha256_of(folder / name) for name in (*content.CHECKPOINT, "loss.csv")}
    weights = {name: sha256 for name, sha256 in scored["inputs"].items() if name.startswith("pretrain/")}
    assert weights == {f"pretrain/{name}": trained["outputs"][name] for name in content.CHECKPOINT}
    assert set(scored["inputs"]) - set(weights) == {"fetch/topics"}


def test_a_study_that_nothing_has_changed_in_gives_its_tables(root):
    assert main(["tabulate", "quickstart"]) == 0 and main(["plot", "quickstart"]) == 0


@pytest.mark.parametrize("verb", ["tabulate", "plot"])
def test_a_table_or_figure_over_a_corpus_that_was_edited_is_refused_with_the_command_that_redoes_it(root, capsys, verb):
    (root / "notes.txt").write_text(text(1))
    line = refused(root, capsys, verb, "quickstart")
    assert line == (
        "results/runs/data/notes/fetched.json: 'notes.txt' changed since; run `snakemake --cores 2 "
        "results/quickstart/table.md --forcerun results/runs/data/notes/fetched.json`, which does again what follows"
    )


def test_a_run_whose_own_file_was_damaged_is_named_with_a_command_that_snakemake_does_not_take_for_done(root, capsys):
    scores = last_file("evaluate", run_id(root, "evaluate"))
    samples = scores.parent / "samples.jsonl"
    samples.write_bytes(samples.read_bytes().replace(b"sea", b"see", 1))
    assert refused(root, capsys, "tabulate", "quickstart") == (
        f"{scores}: samples.jsonl changed since; run `snakemake --cores 2 results/quickstart/table.md "
        f"--forcerun {scores}`, which does again what follows"
    )


def test_a_table_of_records_that_only_partly_follow_a_new_corpus_names_the_run_that_does_not(root, capsys):
    (root / "notes.txt").write_text(text(1))
    redo(root, "fetch")
    assert f"tokens/{run_id(root, 'tokenize')}/tokens.json: data set 'notes' changed since" in refused(
        root, capsys, "tabulate", "quickstart"
    )
    redo(root, "tokenize")
    line = refused(root, capsys, "tabulate", "quickstart")
    assert f"run.json: tokenize {run_id(root, 'tokenize')} changed since" in line
    redo(root, "pretrain")
    assert f"scores.json: pretrain {run_id(root, 'pretrain')} changed since" in refused(
        root, capsys, "tabulate", "quickstart"
    )
    redo(root, "evaluate")
    assert main(["tabulate", "quickstart"]) == 0


def test_a_stage_refuses_what_was_made_from_other_content_and_names_the_command(root, capsys):
    (root / "notes.txt").write_text(text(1))
    for stage in ("tokenize", "pretrain", "evaluate"):
        line = refused(root, capsys, stage, run_id(root, stage))
        assert line.endswith("'notes.txt' changed since; run `cgpt fetch notes` again first")
    redo(root, "fetch")
    line = refused(root, capsys, "pretrain", run_id(root, "pretrain"))
    assert line.endswith(f"run `cgpt tokenize {run_id(root, 'tokenize')}` again first")


def test_a_task_s_data_that_changed_make_its_scores_refused_and_no_training(root, capsys):
    rows = (root / "topics/world_sentiment_test.jsonl").read_text().splitlines()
    (root / "topics/world_sentiment_test.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    redo(root, "fetch")
    line = refused(root, capsys, "tabulate", "quickstart")
    assert f"evaluate/{run_id(root, 'evaluate')}/scores.json: data set 'topics' changed since" in line
    redo(root, "evaluate")
    assert main(["tabulate", "quickstart"]) == 0


def test_a_text_written_again_as_it_was_changes_nothing(root):
    (root / "notes.txt").write_text((root / "notes.txt").read_text())
    assert main(["tabulate", "quickstart"]) == 0


@pytest.mark.parametrize("name", content.CHECKPOINT)
def test_a_flipped_bit_in_a_checkpoint_is_found_by_every_reader(root, capsys, name):
    folder = last_file("pretrain", run_id(root, "pretrain")).parent
    changed = bytearray((folder / name).read_bytes())
    changed[-9] ^= 0x40
    (folder / name).write_bytes(changed)
    wanted = f"{folder / name}: is not what its run wrote (SHA-256 in run.json); run `cgpt pretrain "
    assert refused(root, capsys, "generate", "--checkpoint", str(folder), "--prompt", "sea").startswith(wanted)
    assert refused(root, capsys, "export-hf", str(folder), "--out", "new").startswith(wanted)
    capsys.readouterr()
    assert main(["evaluate", run_id(root, "evaluate")]) == 1
    error = capsys.readouterr().err
    assert (wanted if name == "model.safetensors" else f"{name} changed since; run `cgpt pretrain ") in error


def test_a_checkpoint_whose_record_was_changed_is_not_taken_for_one_without_hashes(root):
    folder = last_file("pretrain", run_id(root, "pretrain")).parent
    written = json.loads((folder / "run.json").read_text())
    for outputs in ({}, [], {**written["outputs"], "model.safetensors": "0" * 64}):
        (folder / "run.json").write_text(json.dumps(written | {"outputs": outputs}))
        with pytest.raises(UserError, match=r"run.json: was changed after it was written; .* --no-verify"):
            content.verified(folder)


def test_no_verify_opens_a_changed_checkpoint_and_one_without_a_record_is_not_checked(root):
    folder = last_file("pretrain", run_id(root, "pretrain")).parent
    changed = bytearray((folder / "model.safetensors").read_bytes())
    changed[-9] ^= 1
    (folder / "model.safetensors").write_bytes(changed)
    asked = ["generate", "--checkpoint", str(folder), "--prompt", "sea", "--max-new-tokens", "2"]
    assert main([*asked, "--no-verify"]) == 0
    assert main(["export-hf", str(folder), "--out", "new", "--no-verify"]) == 0
    (folder / "run.json").unlink()
    assert main(asked) == 0


@pytest.mark.parametrize(("stage", "name"), [("pretrain", "loss.csv"), ("evaluate", "samples.jsonl")])
def test_what_lies_beside_a_record_and_is_not_what_it_names_is_refused(root, capsys, stage, name):
    path = last_file(stage, run_id(root, stage)).with_name(name)
    path.write_text(path.read_text()[:-3])
    assert f"{name} changed since" in refused(root, capsys, "tabulate", "quickstart")


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [("pretrain", '"validation_loss": ', '"validation_loss": 1'), ("evaluate", '"value": 0.', '"value": 0.1')],
)
def test_a_digit_of_a_record_that_was_changed_is_refused(root, capsys, stage, old, new):
    path = last_file(stage, run_id(root, stage))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert refused(root, capsys, "tabulate", "quickstart") == (
        f"{path}: was changed after it was written (record_sha256); delete its folder, so that the run is done again"
    )


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"files": 3}', '{"files": [1]}'])
def test_a_damaged_record_above_a_run_is_one_line_before_anything_is_done(root, capsys, text):
    Path("results/runs/data/notes/fetched.json").write_text(text)
    assert "fetched.json" in refused(root, capsys, "tokenize", run_id(root, "tokenize"))
    redo(root, "fetch")
    path = last_file("tokenize", run_id(root, "tokenize"))
    path.write_text(text)
    assert "tokens.json" in refused(root, capsys, "pretrain", run_id(root, "pretrain"))


def test_fetched_data_that_were_changed_in_place_are_refused_where_they_are_read(root, capsys):
    corpus, rows = (
        Path("results/runs/data/notes/notes.txt"),
        Path("results/runs/data/topics/world_sentiment_test.jsonl"),
    )
    corpus.write_text(corpus.read_text().replace("sea", "see", 1))
    assert "notes.txt: is missing or not as it was fetched" in refused(
        root, capsys, "tokenize", run_id(root, "tokenize")
    )
    rows.write_text(rows.read_text().rpartition("{")[0])
    capsys.readouterr()
    assert main(["evaluate", run_id(root, "evaluate")]) == 1
    wanted = "test.jsonl: is not what was fetched (SHA-256); run `cgpt fetch topics`"
    assert wanted in capsys.readouterr().err
    rows.write_text(rows.read_text()[:-3])  # which is no JSON either, for which the task's own file is not to blame
    assert main(["evaluate", run_id(root, "evaluate")]) == 1
    assert wanted in capsys.readouterr().err


def test_a_missing_tokenizer_is_one_line(root, capsys):
    (last_file("tokenize", run_id(root, "tokenize")).parent / "tokenizer.json").unlink()
    assert "tokenizer.json: is missing; run its stage again" in refused(
        root, capsys, "pretrain", run_id(root, "pretrain")
    )


def test_shards_that_were_swapped_or_whose_header_says_other_counts_are_refused(root, capsys):
    folder = last_file("tokenize", run_id(root, "tokenize")).parent
    train, validation = (folder / f"{split}.bin" for split in ("train", "validation"))
    kept = train.read_bytes()
    n_bytes = record(root, "tokenize")["train"]["n_bytes"]
    train.write_bytes(kept.replace(f'"n_bytes": {n_bytes}'.encode(), f'"n_bytes": {n_bytes + 1}'.encode(), 1))
    assert "header_sha256: the header is not what was written" in refused(
        root, capsys, "pretrain", run_id(root, "pretrain")
    )
    train.write_bytes(validation.read_bytes())
    validation.write_bytes(kept)
    assert "is not the shard that tokens.json names" in refused(root, capsys, "pretrain", run_id(root, "pretrain"))


def test_laws_are_not_fitted_to_a_table_that_is_not_of_the_runs_that_are_there(root, monkeypatch):
    workflow = load.load_workflow(root)
    experiment, made = workflow.experiments["quickstart"], make_plan(root)
    assert main(["tabulate", "quickstart"]) == 0
    refuse_stale(experiment, made, Path("results"))
    table = Path("results/quickstart/runs.csv")
    loss = collect(experiment, made, Path("results")).runs[0]["validation_loss"]
    table.write_text(table.read_text().replace(str(loss), "1.5", 1))
    with pytest.raises(UserError, match=r"quickstart/runs.csv: .* earlier run than .*run.json; run `snakemake"):
        refuse_stale(experiment, made, Path("results"))


@pytest.mark.parametrize("data_files", [
    "rows-*.jsonl", ["rows-1.jsonl", "rows-2.jsonl"], {"test": "rows-?.jsonl"},
    [{"split": "test", "path": ["rows-1.jsonl", "rows-2.jsonl"]}], {"test": ["rows-1.jsonl.gz", "rows-2.jsonl.gz"]},
])  # fmt: skip
def test_data_files_of_every_form_are_inputs_by_their_content(tmp_path, data_files):
    for n in (1, 2):
        (tmp_path / f"topics/rows-{n}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / f"topics/rows-{n}.jsonl").write_text(f'{{"text": "{n}"}}\n')
    task = {"data": "topics", "dataset_path": "json", "dataset_kwargs": {"data_files": data_files}}
    before = content.of_task_data(task, tmp_path)
    (tmp_path / "topics/rows-2.jsonl").write_text('{"text": "3"}\n')
    assert before.keys() == {"fetch/topics"} and content.of_task_data(task, tmp_path) != before


def test_fetched_files_are_those_of_an_entry_only_as_it_stands_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a text\n")
    listed = DataFile("a.txt", content.sha256_of(Path("a.txt")), split="train")
    dataset, folder = Dataset("notes", files=(listed,)), last_file("fetch", "notes").parent
    monkeypatch.setenv("CGPT_DATA_MIRROR", str(tmp_path))
    fetch_dataset(dataset, folder)
    monkeypatch.delenv("CGPT_DATA_MIRROR")
    assert find_files(dataset) == {"a.txt": folder / "a.txt"}
    for changed in ({"split": "test"}, {"sha256": "0" * 64}):
        assert find_files(replace(dataset, files=(replace(listed, **changed),))) is None
    hub = Hub("someone/texts", "0" * 40, splits=("train",))
    assert find_files(Dataset("notes", hub=hub)) is None
