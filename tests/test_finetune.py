"""Small real fine-tuning runs on a task of two choices, against NumPy."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy_gpt
import pytest
import tiny
from safetensors.numpy import load_file

from cgpt import checkpoint as checkpoints
from cgpt import records
from cgpt.data.tokenizer import read_tokenizer
from cgpt.errors import UserError
from cgpt.model.gpt import init_parameters
from cgpt.spec import Finetune
from cgpt.stages import finetune as stage
from cgpt.tasks.examples import Example, read_examples

CHOICES = ("w1", "w2")
SEED = 4


def write_rows(folder: Path) -> None:
    """40 + 16 documents of 3 to 12 words; the label is the choice that occurs in the text."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, n in (("train", 40), ("validation", 16)):
        lines = []
        for i in range(n):
            words = [f"w{word}" for word in rng.integers(3, 49, rng.integers(2, 12))]
            words.insert(int(rng.integers(len(words) + 1)), CHOICES[i % 2])
            lines.append(json.dumps({"text": " ".join(words), "label": i % 2}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))


TASK = {
    "task": "toy",
    "data": "toy",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "validation": "validation.jsonl"}},
    "output_type": "multiple_choice",
    "training_split": "train",
    "validation_split": "validation",
    "doc_to_text": "{{text}} w0",
    "doc_to_target": "label",
    "doc_to_choice": list(CHOICES),
    "metric_list": [{"metric": "acc"}],
    "metadata": {"version": 1.0},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with the data, the tokens and a checkpoint."""
    root = tmp_path_factory.mktemp("finetune")
    write_rows(root / "data" / "toy")
    tiny.token_folder(root / "tokens")
    params = tiny.rough_parameters(tiny.ONE_LAYER, 7)
    checkpoints.save(root / "checkpoint", tiny.ONE_LAYER, params, root / "tokens" / "tokenizer.json")
    return root


def spec(task: dict | None = None, n_labels: int | None = None, **settings) -> dict:
    defaults = {"epochs": 2, "batch_size": 8, "lr": 0.01}
    return {
        "model": asdict(tiny.ONE_LAYER), "task": task or TASK, "start": "scratch", "n_labels": n_labels, "seed": SEED,
        "finetune": asdict(Finetune(**(defaults | settings))), "hardware": {"name": "cpu"}, "tokenize": "count-0",
    }  # fmt: skip


def run(root: Path, out: Path, checkpoint: Path | None = None, **changes) -> records.FinetuneRecord:
    upstream = {"pretrain": checkpoint} if checkpoint else {}
    stage.finetune(tiny.job(spec(**changes), out, root / "tokens", data=root / "data", upstream=upstream))
    return records.read_run(out / "run.json")


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "loss.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def documents(root: Path, split: str) -> list[list[int]]:
    """Token ids of text, w0 and the right answer, of every document; the tokenizer's word wN is token N."""
    read = [json.loads(line) for line in (root / "data" / "toy" / f"{split}.jsonl").read_text().splitlines()]
    return [[int(word[1:]) for word in f"{doc['text']} w0 {CHOICES[doc['label']]}".split()] for doc in read]


def answer_loss(params: dict, sequences: list[list[int]]) -> float:
    """Mean nats of the last token of each sequence, by NumPy, one at a time and without padding."""
    prob = [numpy_gpt.softmax(numpy_gpt.run(params, np.array([s[:-1]]), n_head=3)[0, -1])[s[-1]] for s in sequences]
    return float(-np.log(prob).mean())


def problems(root: Path, out: Path, **arguments) -> list[str]:
    with pytest.raises(UserError) as caught:
        run(root, out, **arguments)
    assert not (out / "run.json").exists()
    return list(caught.value.problems)


@pytest.mark.parametrize("start", ["scratch", "pretrained"])
def test_the_first_loss_is_that_of_the_answers_tokens_alone(start, root, tmp_path):
    checkpoint = root / "checkpoint" if start == "pretrained" else None
    run(root, tmp_path / "run", checkpoint, epochs=1)
    params = load_file(checkpoint / "model.safetensors") if checkpoint else init_parameters(tiny.ONE_LAYER, SEED)
    sequences = documents(root, "train")
    encoded = [stage.Encoded(np.array(s), len(s) - 1, (), None) for s in sequences]
    members, _ = stage.batches(encoded, 8, tiny.ONE_LAYER.seq_len, SEED, 1)[0]
    wanted = answer_loss(params, [sequences[i] for i in members])
    assert float(rows(tmp_path / "run")[0]["train_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_training_learns_the_task_and_the_record_is_of_the_weights_that_are_saved(root, tmp_path):
    record = run(root, tmp_path / "run", epochs=25, patience=25, lr=0.02)
    assert record.validation_accuracy >= 15 / 16
    params = load_file(tmp_path / "run" / "model.safetensors")
    assert record.validation_loss == pytest.approx(answer_loss(params, documents(root, "validation")), rel=1e-4)
    hits = [
        answer_loss(params, [document]) < answer_loss(params, [[*document[:-1], 3 - document[-1]]])
        for document in documents(root, "validation")
    ]
    assert record.validation_accuracy == np.mean(hits)
    assert (record.task, record.start, record.n_labels, record.n_train_examples) == ("toy", "scratch", None, 40)
    lines = rows(tmp_path / "run")
    assert record.steps == len(lines) and record.tokens == int(lines[-1]["tokens"])
    assert record.tokens == 25 * sum(len(s) - 1 for s in documents(root, "train"))
    assert sum(row["validation_loss"] != "" for row in lines) == 25


def test_two_runs_are_equal_bit_for_bit(root, tmp_path):
    weights = []
    for name in ("one", "two"):
        run(root, tmp_path / name)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_training_stops_when_validation_gets_no_better_for_as_long_as_patience(root, tmp_path):
    record = run(root, tmp_path / "run", root / "checkpoint", lr=0.0, epochs=9, patience=3)
    per_epoch = record.steps // 4
    assert [int(row["step"]) // per_epoch for row in rows(tmp_path / "run") if row["validation_loss"]] == [1, 2, 3, 4]
    assert record.best_epoch == 1
    saved, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", root / "checkpoint"))
    assert all(np.array_equal(saved[name], before[name]) for name in before)


def test_the_best_epochs_weights_are_what_is_saved(root, tmp_path, monkeypatch):
    accuracies, seen = iter([0.5, 0.9, 0.7, 0.6, 1.0]), []

    def validate(model, examples):
        seen.append({name: value.copy() for name, value in model.numpy().items()})
        return 1.0, next(accuracies)

    monkeypatch.setattr(stage, "validate", validate)
    record = run(root, tmp_path / "run", epochs=9, patience=2)
    assert (record.best_epoch, record.validation_accuracy, len(seen)) == (2, 0.9, 4)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(np.array_equal(saved[name], seen[1][name]) for name in saved)
    assert not all(np.array_equal(seen[1][name], seen[3][name]) for name in saved)


def test_n_labels_trains_on_that_many_examples(root, tmp_path, monkeypatch):
    asked = []
    for module in ("cgpt.tasks.examples", "cgpt.stages.finetune"):  # for the training and for the validation split
        monkeypatch.setattr(f"{module}.read_examples", lambda *a: asked.append(a[2:]) or read_examples(*a))
    record = run(root, tmp_path / "run", n_labels=5, max_validation=6, epochs=1)
    assert (record.n_labels, record.n_train_examples) == (5, 5)
    assert asked == [("train", 5), ("validation", 6)]


def test_an_epoch_sees_every_example_once_in_an_order_of_its_own():
    encoded = [stage.Encoded(np.zeros(n, np.int32), n - 1, (), None) for n in np.arange(100) % 70 + 2]
    epochs = [stage.batches(encoded, 8, 72, SEED, epoch) for epoch in (1, 2)]
    for made in epochs:
        assert sorted(i for members, _ in made for i in members) == list(range(100))
        for members, length in made:
            assert len(members) <= 8
            assert all(length - 32 < len(encoded[i].tokens) - 1 <= length for i in members)
    assert epochs[0] != epochs[1]
    assert epochs[0] == stage.batches(encoded, 8, 72, SEED, 1)


def test_a_task_without_choices_is_trained_and_has_no_accuracy(root, tmp_path):
    task = TASK | {"output_type": "generate_until", "doc_to_target": "w{{label + 1}}", "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]}  # fmt: skip
    del task["doc_to_choice"]
    record = run(root, tmp_path / "run", task=task)
    assert record.validation_accuracy is None
    params = load_file(tmp_path / "run" / "model.safetensors")
    assert record.validation_loss == pytest.approx(answer_loss(params, documents(root, "validation")), rel=1e-4)


def test_a_long_prompt_loses_its_start_and_keeps_its_answer(root):
    tokenizer = read_tokenizer(root / "tokens")
    example = Example(" ".join(f"w{n}" for n in range(3, 43)), " w1 w2", (), None)
    encoded = stage.encode(example, tiny.model(None, tiny.ONE_LAYER), tokenizer)
    assert encoded.tokens.tolist() == [*range(24, 43), 1, 2]
    assert encoded.first == 19


def test_a_checkpoint_of_another_model_is_refused(root, tmp_path):
    other = replace(tiny.ONE_LAYER, seq_len=16)
    checkpoints.save(tmp_path / "other", other, tiny.rough_parameters(other), root / "tokens" / "tokenizer.json")
    (problem,) = problems(root, tmp_path / "run", checkpoint=tmp_path / "other")
    assert problem == (
        f"{tmp_path / 'other' / 'config.json'}: seq_len: is 16, the run wants 20; "
        "delete its folder, so that its run is done again"
    )


def test_a_checkpoint_of_another_tokenizer_is_refused(root, tmp_path):
    other = Path(shutil.copytree(root / "checkpoint", tmp_path / "other"))
    tiny.write_tokenizer(other / "tokenizer.json", 49)
    assert problems(root, tmp_path / "run", checkpoint=other) == [
        f"{other / 'tokenizer.json'}: is not {root / 'tokens' / 'tokenizer.json'}, which made the run's tokens; "
        "delete its folder, so that its run is done again"
    ]


def test_a_missing_split_is_named(root, tmp_path):
    task = {key: value for key, value in TASK.items() if not key.endswith("_split")} | {"test_split": "validation"}
    assert problems(root, tmp_path / "run", task=task) == [
        "workflows/tasks/toy.yaml: training_split: is missing, fine-tuning needs it; name a split",
        "workflows/tasks/toy.yaml: validation_split: is missing, fine-tuning needs it; name a split",
    ]


def test_a_run_that_diverges_stops_with_one_line(root, tmp_path):
    (problem,) = problems(root, tmp_path / "run", lr=1e30)
    assert re.fullmatch(
        r"run: finetune\.lr: the run diverged in epoch 1 \(loss nan\); write a lower lr than 1e\+30", problem
    )
    left = records.read_diverged(tmp_path / "run" / "diverged.json")
    assert left is not None and left.stage == "finetune" and left.step == len(rows(tmp_path / "run")) + 1


def test_more_labels_than_there_are_documents_are_refused_before_anything_is_trained(root, tmp_path):
    assert problems(root, tmp_path / "run", n_labels=41) == [
        "workflows/tasks/toy.yaml: finetune.n_labels: 41 labels are asked for, split 'train' has 40; write 40 or fewer"
    ]
    assert not (tmp_path / "run" / "loss.csv").exists()


def test_an_answer_longer_than_the_model_is_refused(root):
    tokenizer, model = read_tokenizer(root / "tokens"), tiny.model(None, tiny.ONE_LAYER)
    longest = tiny.ONE_LAYER.seq_len
    fits = stage.encode(Example("w3 w4", " w1" * longest, (), None), model, tokenizer)
    assert (fits.first, len(fits.tokens), fits.n_tokens_cut) == (1, longest + 1, 1)
    with pytest.raises(UserError, match=f"has {longest + 1} tokens, of which the model reads 1 to {longest}"):
        stage.encode(Example("w3", " w1" * (longest + 1), (), None), model, tokenizer)


def test_prompts_that_lose_their_start_in_training_are_counted(root, tmp_path, capsys):
    run(root, tmp_path / "run", task=TASK | {"doc_to_text": "{{text}} {{text}} {{text}} w0"}, epochs=1)
    lengths = [3 * (len(document) - 2) + 2 for document in documents(root, "train")]
    n_cut = sum(length > tiny.ONE_LAYER.seq_len + 1 for length in lengths)
    assert f"finetune: {n_cut} of 40 training prompts were longer than the model's 20 tokens" in capsys.readouterr().err


def test_an_answer_that_is_a_number_is_trained_on_as_its_digits(root, tmp_path):
    task = TASK | {"output_type": "generate_until", "doc_to_target": "label", "metric_list": [
        {"metric": "exact_match"}]}  # fmt: skip
    del task["doc_to_choice"]
    assert read_examples(task, root / "data", "train")[1].target == " 1"
