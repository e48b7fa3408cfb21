"""A small project of YAML files for the tests of loader, plan and workflow."""

from __future__ import annotations

from pathlib import Path

MODELS = """\
models:
  small: {n_layer: 1, d_model: 32, n_head: 2, seq_len: 16}
  large: {n_layer: 2, d_model: 64, n_head: 4, seq_len: 16}
"""
DATA = """\
datasets:
  world: {builtin: world, documents: 'jsonl:text'}
  notes: {path: notes.txt}
"""
HARDWARE = """\
description: a processor
device: CPU
resources: {threads: 2}
"""
FILES = ", ".join(f"{split}: world_sentiment_{split}.jsonl" for split in ("train", "validation", "test"))
DATA_FILES = f"{{data_files: {{{FILES}}}}}"
TASK = """\
task: topic
data: world
dataset_path: json
dataset_kwargs: DATA_FILES
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{text}}"
doc_to_target: label
doc_to_choice: [sea, land]
finetune: {epochs: 2}
validation_split: validation
""".replace("DATA_FILES", DATA_FILES)
EXPERIMENT = """\
question: Is larger better?
data: {corpus: [world], vocab_size: 512}
models: [small]
train: {lr: 0.003, batch_size: 4, steps: 10}
finetune: {start: [pretrained, scratch]}
tasks: [topic]
threads_per_run: 1
"""


def write_project(root: Path) -> Path:
    """Write the small project below `root` and return it."""
    texts = {
        "workflows/models.yaml": MODELS,
        "workflows/data.yaml": DATA,
        "workflows/tasks/topic.yaml": TASK,
        "workflows/experiments/quickstart.yaml": EXPERIMENT,
        "hardware_profiles/cpu.yaml": HARDWARE,
        "notes.txt": "A note.\n",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def edit(root: Path, name: str, old: str, new: str) -> None:
    """Replace `old`, which must be there, in one file of the project."""
    text = (root / name).read_text()
    assert old in text, f"{old!r} is not in {name}"
    (root / name).write_text(text.replace(old, new))
