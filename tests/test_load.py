"""The loader reads each good file once and refuses bad ones with a line that says what to write."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from project import DATA_FILES, edit, write_project

from cgpt.errors import UserError
from cgpt.experiment import load
from cgpt.experiment.plan import make_plan
from cgpt.spec import Hub
from cgpt.tasks.keys import LM_EVAL_KEYS

MODELS, DATA = "workflows/models.yaml", "workflows/data.yaml"
QUICKSTART, TOPIC = "workflows/experiments/quickstart.yaml", "workflows/tasks/topic.yaml"
CPU = "hardware_profiles/cpu.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def problems(root: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        load.load_workflow(root)
    return list(caught.value.problems)


def test_shipped_files_are_each_parsed_once(monkeypatch):
    parsed, compose = [], yaml.compose

    def counted(text, **kwargs):
        parsed.append(text)
        return compose(text, **kwargs)

    monkeypatch.setattr(yaml, "compose", counted)
    workflow = load.load_workflow(Path(__file__).parent.parent)
    assert parsed and len(parsed) == len(set(parsed))
    assert {"quickstart", "smoke", "real"} <= set(workflow.experiments)


def test_a_good_project_gives_typed_values_and_defaults(root):
    workflow = load.load_workflow(root)
    assert workflow.experiments["quickstart"].data.corpus == ("world",)
    assert workflow.experiments["quickstart"].train.lr == 0.003
    assert workflow.models["small"].activation == "gelu"
    assert workflow.hardware["cpu"].resources.threads == 2
    assert workflow.tasks["topic"]["finetune"] == {"epochs": 2}


def test_the_task_keys_are_those_of_lm_eval():
    from lm_eval.api.task import TaskConfig

    assert {f.name for f in fields(TaskConfig)} == LM_EVAL_KEYS


BAD = [
    (QUICKSTART, "models: [small]", "modles: [small]",
     ["3: modles: unknown key; did you mean 'models'?", " models: is missing; write `models: <list>`"]),
    (QUICKSTART, "models: [small]", "models: [smal]", ["3: models.0: there is no model 'smal'; did you mean 'small'?"]),
    (QUICKSTART, "models: [small]", "models: small",
     ["3: models: must be a list, not 'small'; write a list, `[a, b]`"]),
    (QUICKSTART, "models: [small]", "models: []", ["3: models: is empty; name at least one"]),
    (QUICKSTART, "models: [small]", "models: [small, small]",
     ["3: models: names small twice; remove one of the two"]),
    (QUICKSTART, "models: [small]", "models:",
     ["3: models: must be a list, not empty; write a list, `[a, b]`"]),
    (QUICKSTART, "models: [small]", "models: [small]\nmodels: [large]",
     ["3: models: is given twice, in lines 3 and 4; remove one of the two"]),
    (QUICKSTART, "lr: 0.003", "lr: 3e-3",
     ["4: train.lr: YAML reads 3e-3 as text, not as a number; write 0.003 or 3.0e-3"]),
    (QUICKSTART, "steps: 10", "tokens: 1.25e17",
     ["4: train.tokens: YAML reads 1.25e17 as text, not as a number; write 125000000000000000"]),
    (QUICKSTART, "steps: 10", "tokens_per_parameter: 1.25e17",
     ["4: train.tokens_per_parameter: YAML reads 1.25e17 as text, not as a number; write 1.25e+17"]),
    (QUICKSTART, "steps: 10", "steps: 10.0", ["4: train.steps: must be a whole number, not 10.0; write 10"]),
    (QUICKSTART, "steps: 10", "steps: ten",
     ["4: train.steps: must be a whole number, not 'ten'; write a whole number"]),
    (QUICKSTART, "steps: 10", "steps: true",
     ["4: train.steps: must be a whole number, not true; write a whole number"]),
    (QUICKSTART, "steps: 10", "steps: 1:30",
     ["4: train.steps: YAML reads 1:30 as another number; write it in quotes, or as a plain decimal number"]),
    (QUICKSTART, "steps: 10", "steps: 10, tokens: 640",
     ["4: train.steps: `steps` and `tokens` are lengths beside each other; write exactly one of `steps`, `tokens`, "
      "`tokens_per_parameter`, `flops`"]),
    (QUICKSTART, ", steps: 10", "",
     ["4: train: leaves no length; write exactly one of `steps`, `tokens`, `tokens_per_parameter`, `flops`"]),
    (QUICKSTART, "steps: 10", "steps: 10, micro_batch_size: 3",
     ["4: train.micro_batch_size: micro_batch_size 3 does not divide batch_size 4; write e.g. 2"]),
    (QUICKSTART, "steps: 10", "steps: 10, schedule: cosin",
     ["4: train.schedule: 'cosin' is not a choice; did you mean 'cosine'?"]),
    (QUICKSTART, "models: [small]", "models: [small]\nper_model: {small: {train: {tokens: 640}}}",
     ["4: per_model.small.train.tokens: `steps` and `tokens` are lengths beside each other; write exactly one of "
      "`steps`, `tokens`, `tokens_per_parameter`, `flops`"]),
    (QUICKSTART, "models: [small]", "models: [small]\nvary: {train.tokens: [640]}",
     ["4: vary.train.tokens: `steps` and `tokens` are lengths beside each other; write exactly one of `steps`, "
      "`tokens`, `tokens_per_parameter`, `flops`"]),
    (QUICKSTART, "steps: 10", "steps: 10, decay_fraction: 0.1",
     ["4: train.decay_fraction: has no effect on schedule linear; write `schedule: wsd`, or leave it out"]),
    (QUICKSTART, "models: [small]", "models: [small]\nvary: {train.schedule: [linear, cosine], "
     "train.decay_fraction: [0.1]}", ["4: vary.train.decay_fraction: has no effect on schedule linear; write "
     "`schedule: wsd`, or leave it out"]),
    (QUICKSTART, "models: [small]", "models: [small, large]\nper_model: {small: {train: {schedule: wsd}}, large: "
     "{train: {decay_fraction: 0.1}}}", ["4: per_model.large.train.decay_fraction: has no effect on schedule "
     "linear; write `schedule: wsd`, or leave it out"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nfit: [compute, compute]",
     ["7: fit: names compute twice; remove one of the two"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {train.lr: [0.1, 0.2]}\nfit: [learning_rate]",
     ["8: fit.0: learning_rate needs 3 rates or more, and there are 2; write e.g. "
      "`vary: {train.lr: [0.004, 0.008, 0.016]}`"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nfit: [isoflop]",
     ["7: fit.0: isoflop needs 4 sizes or more at each `train.flops`, and there is 1; name more `models`"]),
    (QUICKSTART, "lr: 0.003", "lr: -1", ["4: train.lr: must be greater than 0, not -1.0; write a positive number"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [no]",
     ['6: tasks.0: YAML reads no as false; write "no" in quotes for the word, or false']),
    (QUICKSTART, "tasks: [topic]", "tasks: [topik]", ["6: tasks.0: there is no task 'topik'; did you mean 'topic'?"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [mmlu]",
     ["6: tasks.0: there is no task 'mmlu'; known: topic; for a task of lm-evaluation-harness write a file with "
      "`task: mmlu` and `stock: true`"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nhardware: [wafer]",
     ["7: hardware.0: there is no hardware profile 'wafer'; known: cpu"]),
    (QUICKSTART, "corpus: [world]", "corpus: [wrld]",
     ["2: data.corpus.0: there is no data set 'wrld'; did you mean 'world'?"]),
    (QUICKSTART, "vocab_size: 512", "vocab_size: 200",
     ["2: data.vocab_size: must be at least 257 (256 bytes and the end of text), not 200; write 257 or more"]),
    (QUICKSTART, "vocab_size: 512", "vocab_size: 512, tokenizer: gpt2",
     ["2: data.vocab_size: tokenizer gpt2 has a fixed vocabulary, not 512; write `vocab_size: 50257`"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {train.rl: [1]}",
     ["7: vary.train.rl: there is no such key to vary; did you mean 'train.lr'?"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {train.lr: [fast]}",
     ["7: vary.train.lr.0: must be a number, not 'fast'; write a number"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nseeds: [-2, 0, -1]",
     ["7: seeds.0: must be at least 0, not -2; write 0 or more",
      "7: seeds.2: must be at least 0, not -1; write 0 or more"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nseeds: [0, 1, 0]",
     ["7: seeds: names 0 twice; remove one of the two"]),
    (MODELS, "d_model: 32, n_head: 2", "d_model: 32, n_head: 3",
     ["2: models.small.d_model: d_model 32 is not divisible by n_head 3; write e.g. 30 or 33"]),
    (MODELS, "seq_len: 16}\n  large", "seq_len: 16, vocab_size: 99}\n  large",
     ["models.0: 'small' has vocab_size 99, but data.vocab_size is 512; make them equal, or leave the model's out"]),
    (MODELS, "n_layer: 1", "n_layer: 0",
     ["2: models.small.n_layer: must be greater than 0, not 0; write a positive number"]),
    (DATA, "path: notes.txt", "path: note.txt",
     ["3: datasets.notes.path: there is no note.txt; write a path from the study's folder"]),
    (DATA, "builtin: world", "builtin: world, path: notes.txt",
     ["2: datasets.world: has `builtin` and `path`; write exactly one of `builtin`, `path`, `files`, `hub`"]),
    (DATA, "path: notes.txt", "hub: {dataset: name, revision: main, splits: []}",
     ["3: datasets.notes.hub.dataset: 'name' is no name of the hub; write `<owner>/<name>`",
      "3: datasets.notes.hub.revision: 'main' is no commit; write 40 hexadecimal digits",
      "3: datasets.notes.hub.splits: is empty; name at least one"]),
    (TOPIC, "data: world\ndataset_path: json\n", "dataset_path: owner/name\n",
     ["3: dataset_kwargs.revision: is missing or no commit, which pins a data set of the hub; write 40 hexadecimal "
      "digits"]),
    (DATA, "path: notes.txt", "files: [{path: a.txt, url: 'https://example.org/a.txt'}]",
     ["3: datasets.notes.files.0.sha256: is missing, and a download needs it; write the file's SHA-256"]),
    (CPU, "threads: 2", "thread: 2", ["3: resources.thread: unknown key; did you mean 'threads'?"]),
    (TOPIC, "task: topic", "task: mood", ["1: task: 'mood' is not the file's name; write topic, or rename the file"]),
    (TOPIC, "data: world", "data: word", ["2: data: there is no data set 'word'; did you mean 'world'?"]),
    (TOPIC, "output_type", "outputtype",
     ["5: outputtype: unknown key; did you mean 'output_type'?",
      " output_type: is missing; write it, or `stock: true` to name a task that lm-eval brings"]),
    (TOPIC, "doc_to_choice: [sea, land]", "doc_to_choice: [no, 'yes']",
     ['10: doc_to_choice.0: YAML reads no as false; write "no" in quotes for the word, or false']),
    (TOPIC, "output_type: multiple_choice", "output_type: multiple_choice\nnum_fewshot: two\nmetric_list: [acc]\n"
     "description: 3", ["6: num_fewshot: must be a whole number, not 'two'; write one",
                        "7: metric_list: has an entry without `metric`; write `- metric: acc` for each",
                        "8: description: must be text, not 3; write one"]),
    (TOPIC, "doc_to_target: label", "doc_to_target: {a: 1}",
     ["9: doc_to_target: must be text, a number or a list, not {'a': 1}; write one"]),
    (TOPIC, DATA_FILES, "[train.jsonl]", ["4: dataset_kwargs: must be a mapping, not ['train.jsonl']; write one"]),
    (TOPIC, "epochs: 2", "epochs: 2, num_fewshot: -1",
     ["11: finetune.num_fewshot: must be at least 0, not -1; write 0 or more"]),
    (TOPIC, "data: world\n", "",
     [f": dataset_kwargs.data_files.{split}: the study's folder has no file 'world_sentiment_{split}.jsonl', and "
      "`data` names no data set; known: hardware_profiles, notes.txt, workflows" for split in ("train", "test")]),
    (TOPIC, "epochs: 2", "epoch: 2", ["11: finetune.epoch: unknown key; did you mean 'epochs'?"]),
    (TOPIC, "training_split: train\n", "",
     [" training_split: is missing, and fine-tuning needs it; name the split, e.g. `train`"]),
    (TOPIC, 'doc_to_text: "{{text}}"', "doc_to_text: !function prompts.text",
     ["8: doc_to_text: 'prompts.text': there is no workflows/tasks/prompts.py beside the file, and no module "
      "'prompts'; write one of them"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [!function prompts.text]",
     ["6: tasks.0: YAML reads prompts.text as a value with the tag !function; write plain text, in quotes"]),
    (QUICKSTART, "steps: 10", "steps: 10, warmup_fraction: 0.2, warmup_tokens: 64",
     ["4: train.warmup_fraction: has no effect beside `warmup_tokens`; leave one of the two out"]),
    (QUICKSTART, "steps: 10}", "steps: 10, warmup_tokens: 64}\nvary: {train.warmup_fraction: [0.1, 0.2]}",
     ["5: vary.train.warmup_fraction: has no effect beside `warmup_tokens`; leave one of the two out"]),
    (QUICKSTART, "steps: 10}", "steps: 10, warmup_fraction: 0.1}\nper_model: {small: {train: {warmup_tokens: 64}}}",
     ["4: train.warmup_fraction: has no effect beside `warmup_tokens`; leave one of the two out"]),
    (MODELS, "n_layer: 1", "n_layer: 1, mup_base_width: 64",
     ["3: models.0: mup_base_width of 'small' has no effect on parametrization sp; write `parametrization: mup`, or "
      "leave it out"]),
    (TOPIC, "finetune: {epochs: 2}\n", "",
     ["5: finetune: is of no use: no task of this experiment has a `finetune:` block; write one in a task's file, or "
      "leave this out"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {train.checkpoint_every_steps: [5, 10]}",
     ["7: vary.train.checkpoint_every_steps: changes no result; write `checkpoint_every_steps` in `train:` instead"]),
    (CPU, "device: CPU", "device: DISK:/etc/passwd",
     ["2: device: 'DISK:/etc/passwd' is no device of tinygrad; write e.g. CPU, CUDA or CUDA:1"]),
    (QUICKSTART, "threads_per_run: 1", "threads_per_run: 5000",
     ["7: threads_per_run: must be at most 1,024, not 5000; write a smaller number"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nweights_from: cpu",
     ["7: weights_from: says who trains for profiles that are modeled or round weights, and `hardware` names none; "
      "leave it out"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {data.corpus: [[wrold]]}",
     ["7: vary.data.corpus.0.0: there is no data set 'wrold'; did you mean 'world'?"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {train.lr: [0.1, 1.0e-1]}",
     ["7: vary.train.lr: names 0.1 twice; remove one of the two"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {train.lr: [a, b]}",
     ["7: vary.train.lr.0: must be a number, not 'a'; write a number",
      "7: vary.train.lr.1: must be a number, not 'b'; write a number"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nseeds: [4294967296]",
     ["7: seeds.0: must be at most 4,294,967,295, not 4294967296; write a smaller number"]),
    (QUICKSTART, "batch_size: 4", "batch_size: 100000000, micro_batch_size: 3",
     ["4: train.batch_size: must be at most 1,000,000, not 100000000; write a smaller number"]),
    (QUICKSTART, "tasks: [topic]", "tasks: [topic]\nvary: {train.lr: [" + ", ".join(f"{i}.0" for i in range(1, 500))
     + "], train.beta1: [" + ", ".join(f"0.{i}" for i in range(100, 400)) + "]}",
     ["7: vary: asks for 149,700 runs; name fewer values, models or seeds, at most 100,000"]),
    (QUICKSTART, "start: [pretrained, scratch]", "start: []",
     ["5: finetune.start: is empty; write pretrained, scratch or both"]),
    (QUICKSTART, "steps: 10", "steps: 1e400",
     ["4: train.steps: YAML reads 1e400 as text, not as a number; write a smaller one"]),
    (QUICKSTART, "lr: 0.003", "lr: .inf", ["4: train.lr: .inf is no finite number; write one, or the word in quotes"]),
    (QUICKSTART, "lr: 0.003", "lr: !!binary aGk=",
     ["4: train.lr: YAML reads aGk= as a value with the tag tag:yaml.org,2002:binary; write plain text, in quotes"]),
    (QUICKSTART, "steps: 10", "steps: 1" + 30 * "0",
     ["4: train.steps: 1000000000000000000000000000000 is greater than a 64-bit number can be; write a smaller one"]),
    (QUICKSTART, "question: Is larger better?", "question: 2026-01-01",
     ["1: question: YAML reads 2026-01-01 as a date; write plain text, in quotes"]),
    (CPU, "description: a processor", "description: 2026-01-01",
     ["1: description: YAML reads 2026-01-01 as a date; write plain text, in quotes"]),
    (CPU, "device: CPU", "device: CUDA\nkernels: native",
     ["3: kernels: native ones run on the processor, not on CUDA; write `kernels: tinygrad`"]),
    (QUICKSTART, "models: [small]", "models: !!python/object/apply:os.system [id]",
     ["3: models: has the tag tag:yaml.org,2002:python/object/apply:os.system, which is not used here; write plain "
      "values, without a tag"]),
    (QUICKSTART, "question: Is larger better?", 'question: "a\\0b"',
     ["1: question: holds a control character; write text without one"]),
    (TOPIC, f"dataset_kwargs: {DATA_FILES}", "dataset_kwargs: 5",
     ["4: dataset_kwargs: must be a mapping, not 5; write one"]),
    (DATA, "path: notes.txt", "path: notes.txt, seed: 3",
     ["3: datasets.notes.seed: is of a `builtin` data set, and this one is none; leave it out"]),
    (DATA, "builtin: world", "builtin: wrold",
     ["2: datasets.world.builtin: 'wrold' is not a choice; did you mean 'world'?"]),
    (DATA, "path: notes.txt", "path: .",
     ["3: datasets.notes.path: . holds this study itself; write a folder that holds texts alone"]),
    (DATA, "path: notes.txt", "path: ..",
     ["3: datasets.notes.path: .. holds this study itself; write a folder that holds texts alone"]),
    (DATA, "path: notes.txt", "path: /dev/zero",
     ["3: datasets.notes.path: /dev/zero is neither a file nor a folder; write the path of one"]),
    (DATA, "path: notes.txt", f"hub: {{dataset: owner/name, revision: '{'0' * 40}', splits: ['../../../x']}}",
     ["3: datasets.notes.hub.splits.0: '../../../x' cannot be a split's name; write it as the hub does, e.g. "
      "validation"]),
    (DATA, "path: notes.txt", "files: [{path: ../a.txt}]",
     ["3: datasets.notes.files.0.path: '../a.txt' leads out of its folder; write a relative path such as "
      "texts/train.txt"]),
    (MODELS, "  large:", "  Small:", ["3: models.Small: is the name of 'small' but for its case; write another"]),
    (MODELS, "  large:", f"  {'x' * 65}:", ["x: cannot be a name; use at most 64 letters, digits, '.', '_' and '-', a "
     "letter or digit first"]),
    (MODELS, "  large:", "  ../large:", ["3: models.../large: cannot be a name; use at most 64 letters, digits, '.', "
     "'_' and '-', a letter or digit first"]),
    (TOPIC, "task: topic", "task: [topic", ["2: is not valid YAML (did not find expected ',' or ']'); "
     "check indentation, colons, quotes"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "expected"), BAD, ids=[f"{Path(b[0]).stem}-{b[2][:30]}" for b in BAD])
def test_bad_input_is_refused_with_file_key_and_what_to_write(root, name, old, new, expected):
    edit(root, name, old, new)
    lines = problems(root)
    for text in expected:
        assert any(line.endswith(text) for line in lines), lines
    assert all(line.startswith(("workflows/", "hardware_profiles/")) for line in lines)


def test_all_problems_of_all_files_come_at_once(root):
    edit(root, MODELS, "n_head: 4", "n_heads: 4")
    edit(root, CPU, "device: CPU\n", "")
    edit(root, TOPIC, "label", "1e3")
    edit(root, QUICKSTART, "lr: 0.003", "lr: 3e-3")
    edit(root, QUICKSTART, "[small]", "[smal]")
    (root / "workflows/experiments/broken.yaml").write_bytes(b"\xff\xfe")
    (root / "workflows/experiments/empty.yaml").write_text("")
    (root / "workflows/experiments/runs.yaml").write_text("question: why\n")
    named = {line.split(":")[0] for line in problems(root)}
    assert named == {MODELS, CPU, QUICKSTART, *(f"workflows/experiments/{n}.yaml" for n in ("broken", "empty", "runs"))}
    assert len([line for line in problems(root) if line.startswith(QUICKSTART)]) == 2


def test_a_reserved_name_is_refused_for_an_experiment(root):
    (root / QUICKSTART).rename(root / "workflows/experiments/reference.yaml")
    assert problems(root) == [
        "workflows/experiments/reference.yaml:1: 'reference' is kept for a folder of results/; "
        "give the file another name"
    ]


def test_an_alias_that_contains_itself_is_refused(root):
    (root / "workflows/tasks/loop.yaml").write_text("task: loop\nmetadata: &a [*a]\n")
    assert problems(root) == [
        "workflows/tasks/loop.yaml:2: metadata.0: the alias contains itself; write the value out"
    ]  # fmt: skip


def test_a_stock_task_needs_only_its_name(root):
    (root / "workflows/tasks/lambada.yaml").write_text("task: lambada_openai\nstock: true\n")
    assert load.load_workflow(root).tasks["lambada"] == {"task": "lambada_openai", "stock": True}


def test_a_data_set_of_the_hub_is_named_by_data_or_by_a_task_itself(root):
    commit = "0123456789abcdef" * 2 + "01234567"
    edit(root, "workflows/data.yaml", "path: notes.txt", f"hub: {{dataset: owner/name, revision: {commit!r}}}")
    edit(root, "workflows/tasks/topic.yaml", "data: world\ndataset_path: json\n", "dataset_path: owner/name\n")
    edit(root, "workflows/tasks/topic.yaml", DATA_FILES, f"{{revision: {commit!r}}}")
    workflow = load.load_workflow(root)
    assert workflow.datasets["notes"].hub == Hub("owner/name", commit, splits=("train",))
    (run,) = [run for run in make_plan(workflow.experiments["quickstart"], workflow).of("evaluate")
              if run.spec["checkpoint_stage"] == "pretrain"]  # fmt: skip
    assert run.spec["task"]["dataset_kwargs"]["revision"] == commit and run.spec["dataset"] is None


def test_a_folder_without_a_project_is_named(tmp_path):
    assert problems(tmp_path) == [
        "workflows: there is no such folder here; run from the study's folder, or make one with `cgpt init <folder>`"
    ]
