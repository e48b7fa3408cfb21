# ruff: noqa: F811  a fixture is a parameter too
"""What an experiment says against itself is refused on its resolved settings, so that `vary` and `per_model` cannot
escape it: one line with the key that a person wrote."""

from __future__ import annotations

import pytest
from project import edit
from test_load import DATA, QUICKSTART, problems, root  # noqa: F401  the fixture of a small project

from cgpt.experiment import contradictions, load
from cgpt.experiment.plan import make_plan
from cgpt.scaling import isoflop, learning_rate

AT_A_POINT = [
    ("{data.vocab_size: [100]}", "7: vary.data.vocab_size.0: must be at least 257 (256 bytes and the end of text)"),
    ("{data.validation_fraction: [0.0]}", "7: vary.data.validation_fraction.0: must be greater than 0 (validation "
     "loss needs text), not 0.0"),
    ("{data.corpus: [[]]}", "7: vary.data.corpus.0: is empty; name at least one"),
    ("{data.corpus: [[world, world]]}", "7: vary.data.corpus.0: names world twice"),
    ("{data.tokenizer: [gpt2]}", "7: vary.data.tokenizer: tokenizer gpt2 has a fixed vocabulary, not 512; write"),
    ("{data.vocab_size: [257, 10000001]}", "7: vary.data.vocab_size.1: must be at most 10,000,000"),
    ("{model.n_head: [2, 5]}", "7: vary.model.n_head: d_model 32 is not divisible by n_head 5"),
    ("{model.n_head: [0]}", "7: vary.model.n_head.0: must be greater than 0"),
    ("{model.vocab_size: [99]}", "7: vary.model.vocab_size: 'small' has vocab_size 99, but data.vocab_size is 512"),
    ("{model.parametrization: [mp]}", "7: vary.model.parametrization.0: 'mp' is not a choice; did you mean 'mup'?"),
    ("{model.parametrization: [sp], model.mup_output_alpha: [1.0, 2.0]}", "7: vary.model.mup_output_alpha: mup_output"),
    ("{train.micro_batch_size: [3]}", "7: vary.train.micro_batch_size: micro_batch_size 3 does not divide batch_size"),
    ("{train.micro_batch_size: [null, 4]}", "7: vary: at train.micro_batch_size=None and at train.micro_batch_size=4 "
     "the runs of small are the same"),
    ("{train.warmup_tokens: [64, 640]}", "7: vary.train.warmup_tokens: a warm-up of 640 tokens is not below the 640"),
    ("{train.steps: [null]}", "7: vary.train.steps: leaves no length"),
    ("{train.lr: [0.0]}", "7: vary.train.lr.0: must be greater than 0"),
    ("{train.warmup_fraction: [1.0]}", "7: vary.train.warmup_fraction.0: must be from 0 up to 1, not 1.0"),
    ("{train.schedule: [linear, wsd], train.decay_fraction: [0.1, 0.2]}", "has no effect on schedule linear"),
    ("{model.parametrization: [sp, mup], model.mup_base_width: [16.0, 32.0]}", "has no effect on parametrization sp"),
    ("{train.warmup_tokens: [null, 64], train.warmup_fraction: [0.1, 0.2]}", "has no effect beside `warmup_tokens`"),
    ("{finetune.start: [[]]}", "7: vary.finetune.start.0: is empty; write pretrained, scratch or both"),
    ("{finetune.n_labels: [[8, 8]]}", "7: vary.finetune.n_labels.0: names 8 twice"),
    ("{finetune.batch_size: [0]}", "7: vary.finetune.batch_size.0: must be greater than 0"),
    ("{hardware: [[cpu]]}", "7: vary.hardware: there is no such key to vary"),
    ("{seeds: [[1]]}", "7: vary.seeds: there is no such key to vary"),
    ("{train.lr: 0.1}", "7: vary.train.lr: must be a list, not 0.1"),
    ("{train.lr: []}", "7: vary.train.lr: is empty; write a list such as [0.001, 0.002]"),
]  # fmt: skip


@pytest.mark.parametrize(("vary", "expected"), AT_A_POINT, ids=[each[0] for each in AT_A_POINT])
def test_what_is_refused_in_a_block_is_refused_at_a_point_of_vary(root, vary, expected):
    edit(root, QUICKSTART, "tasks: [topic]", f"tasks: [topic]\nvary: {vary}")
    (problem,) = problems(root)
    assert expected in problem


OF_ONE_MODEL = [
    ("{train: {lr: 2000.0}}", "4: per_model.small.train.lr: must be at most 1,000.0, not 2000.0"),
    ("{train: {lr: fast}}", "4: per_model.small.train.lr: must be a number, not 'fast'"),
    ("{train: {rate: 1}}", "4: per_model.small.train.rate: unknown key"),
    ("{train: {steps: null}}", "4: per_model.small.train.steps: leaves no length"),
    ("{train: {micro_batch_size: 3}}", "4: per_model.small.train.micro_batch_size: micro_batch_size 3 does not divide"),
    ("{train: {batch_size: 6, micro_batch_size: 4}}", "4: per_model.small.train.micro_batch_size: micro_batch_size 4"),
    ("{train: {warmup_tokens: 640}}", "4: per_model.small.train.warmup_tokens: a warm-up of 640 tokens is not below"),
    ("{train: {steps: 5, flops: 1.0e+9}}", "4: per_model.small.train.steps: `steps` and `flops` are lengths beside"),
    ("{train: {warmup_tokens: 64, warmup_fraction: 0.1}}", "4: per_model.small.train.warmup_fraction: has no effect"),
    ("{seeds: [4294967296]}", "4: per_model.small.seeds.0: must be at most 4,294,967,295, not 4294967296"),
    ("{seeds: [1, 1]}", "4: per_model.small.seeds: names 1 twice"),
    ("{seeds: []}", "4: per_model.small.seeds: is empty; name at least one"),
    ("3", "4: per_model.small: must be a mapping, not 3"),
]


@pytest.mark.parametrize(("keys", "expected"), OF_ONE_MODEL, ids=[each[0] for each in OF_ONE_MODEL])
def test_what_is_refused_in_a_block_is_refused_of_one_model(root, keys, expected):
    edit(root, QUICKSTART, "models: [small]", f"models: [small]\nper_model: {{small: {keys}}}")
    (problem,) = problems(root)
    assert expected in problem


def test_a_key_that_only_some_settings_use_is_taken_and_a_length_may_stand_in_vary_alone(root):
    edit(root, QUICKSTART, "models: [small]", "models: [small, large]\nvary: {train.steps: [10, 20]}\n"
         "per_model: {small: {train: {warmup_tokens: 64}}}")  # fmt: skip
    edit(root, QUICKSTART, ", steps: 10", ", warmup_fraction: 0.2")
    workflow = load.load_workflow(root)
    runs = make_plan(workflow.experiments["quickstart"], workflow).of("pretrain")
    assert sorted((run.spec["model"]["name"], run.spec["train"]["steps"]) for run in runs) == [
        ("large", 10), ("large", 20), ("small", 10), ("small", 20)]  # fmt: skip


def test_a_validation_fraction_that_no_data_set_needs_is_refused(root):
    files = "files: [{path: a.txt}, {path: b.txt, split: validation}]"
    edit(root, DATA, "path: notes.txt", files)
    edit(root, QUICKSTART, "corpus: [world]", "corpus: [notes], validation_fraction: 0.1")
    (problem,) = problems(root)
    assert problem.startswith(f"{QUICKSTART}:2: data.validation_fraction: is of no use: every data set of the corpus")
    edit(root, QUICKSTART, "corpus: [notes]", "corpus: [notes, world]")
    load.load_workflow(root)


def test_what_only_looks_like_a_contradiction_is_taken(root):
    edit(root, QUICKSTART, "models: [small]", "models: [small, large]\nper_model: {small: {train: {steps: 20}}, large: "
         "{train: {schedule: wsd}}}\nvary: {model.n_layer: [1, 2]}\nfit: [isoflop, compute]")  # fmt: skip
    edit(root, QUICKSTART, "steps: 10", "steps: 10, decay_fraction: 0.1")
    workflow = load.load_workflow(root)
    runs = make_plan(workflow.experiments["quickstart"], workflow).of("pretrain")
    assert {(run.spec["model"]["name"], run.spec["train"]["steps"]) for run in runs} == {("small", 20), ("large", 10)}


def test_a_law_is_refused_for_too_few_runs_exactly_where_its_fit_would_be():
    assert (contradictions.LEAST_RATES, contradictions.LEAST_SIZES) == (learning_rate.LEAST_RATES, isoflop.LEAST_SIZES)
