"""A small study with a published model: a folder as transformers has it, a task, experiments that name both."""

from __future__ import annotations

import json
import random
from pathlib import Path

import tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cgpt import checkpoint
from cgpt.spec import Model

WORDS = "sea land hill river cat dog house tree sees likes finds under over calm loud".split()
CONFIG = Model("theirs", n_layer=1, d_model=16, n_head=2, seq_len=48, vocab_size=300, activation="gelu_new")
MODELS = """\
models:
  small: {n_layer: 1, d_model: 16, n_head: 2, seq_len: 48}
  alike: {n_layer: 1, d_model: 16, n_head: 2, seq_len: 48, activation: gelu_new}
  theirs: {checkpoint: {path: hf}}
"""
TASK = """\
task: mood
dataset_path: json
dataset_kwargs: {data_files: {train: mood/train.jsonl, validation: mood/validation.jsonl, test: mood/test.jsonl}}
training_split: train
validation_split: validation
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}} is"
doc_to_choice: [calm, loud]
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
finetune: {epochs: 1, batch_size: 4}
"""
ALONE = """\
question: What do they know?
models: [theirs]
tasks: [mood]
num_fewshot: [0, 2]
threads_per_run: 2
"""
BOTH = """\
question: Are theirs better?
data: {corpus: [notes], vocab_size: 300}
models: [small, theirs]
train: {lr: 0.003, batch_size: 4, steps: 3}
hardware: [cpu, h100]
weights_from: cpu
tasks: [mood]
num_fewshot: [0, 2]
finetune: {start: [pretrained]}
threads_per_run: 2
"""


def byte_level_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE as GPT-2 has it, whose first token ends texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet,
                                  show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_texts(root: Path) -> list[str]:
    """The study's text and the task's documents, the same every time; returns the text's lines."""
    made = random.Random(0)
    lines = [" ".join(made.choices(WORDS, k=12)) for _ in range(300)]
    (root / "notes.txt").write_text("\n".join(lines) + "\n")
    (root / "mood").mkdir()
    for split in ("train", "validation", "test"):
        rows = ({"text": " ".join(made.choices(WORDS, k=3)), "label": i % 2} for i in range(12))
        (root / f"mood/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return lines


def write_hf(folder: Path, lines: list[str], seed: int = 0) -> Path:
    """A checkpoint as transformers opens it, of random weights."""
    model = tiny.model(tiny.rough_parameters(CONFIG, seed), CONFIG)
    checkpoint.export_hf(model, byte_level_tokenizer(lines, CONFIG.vocab_size or 0), folder)
    return folder


def write_study(root: Path) -> Path:
    """The study, its checkpoint in the folder hf."""
    files = {
        "workflows/models.yaml": MODELS, "workflows/tasks/mood.yaml": TASK,
        "workflows/data.yaml": "datasets:\n  notes: {path: notes.txt, documents: line}\n",
        "workflows/experiments/alone.yaml": ALONE, "workflows/experiments/both.yaml": BOTH,
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    write_hf(root / "hf", write_texts(root))
    return root
