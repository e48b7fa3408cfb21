"""The memory that a plan names against what processes took, and against what must be in it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cgpt.cost import memory
from cgpt.experiment import load
from cgpt.kernels.native import bfloat16
from cgpt.recipe import flops
from cgpt.spec import Model, Train

TESTS = Path(__file__).parent
SMALL = Model("small", n_layer=2, d_model=64, n_head=2, seq_len=128, vocab_size=512)
WIDE = Model("wide", n_layer=2, d_model=256, n_head=4, seq_len=256, vocab_size=8192)
LONG = Model("long", n_layer=2, d_model=128, n_head=4, seq_len=2048, vocab_size=512)
STEPS = Train(lr=1e-3, batch_size=8, steps=2)


@pytest.fixture(scope="module")
def models():
    return load.load_workflow(TESTS.parent).models


def peak_bytes(folder: Path, model: Model, train: Train, kernels: str, dtype: str = "float32") -> int:
    asked = json.dumps({"model": asdict(model), "train": asdict(train), "kernels": kernels, "dtype": dtype})
    done = subprocess.run([sys.executable, str(TESTS / "peak_of_a_run.py"), str(folder), asked], cwd=TESTS.parent,
                          capture_output=True, text=True, check=True)  # fmt: skip
    return int(done.stdout)


@pytest.mark.parametrize(("model", "train", "kernels"), [
    (SMALL, STEPS, "native"),
    (WIDE, replace(STEPS, micro_batch_size=2, checkpoint_every_steps=1), "native"),
    pytest.param(WIDE, STEPS, "native", marks=pytest.mark.slow),
    pytest.param(LONG, replace(STEPS, batch_size=2), "native", marks=pytest.mark.slow),
    pytest.param(replace(SMALL, seq_len=256), STEPS, "tinygrad", marks=pytest.mark.slow),
], ids=["small", "saving", "wide", "long", "tinygrad"])  # fmt: skip
def test_the_memory_of_a_plan_is_within_20_percent_of_what_the_run_takes(tmp_path, model, train, kernels):
    measured = peak_bytes(tmp_path, model, train, kernels)
    assert memory.pretraining_bytes(model, train, 1, kernels) == pytest.approx(measured, rel=0.2)


@pytest.mark.slow
@pytest.mark.skipif(bfloat16.instructions() is None, reason="this processor refuses bfloat16")
@pytest.mark.parametrize("model", [WIDE, replace(SMALL, d_model=256, vocab_size=50257)], ids=["wide", "vocabulary"])
def test_the_memory_of_a_plan_in_bfloat16_holds_packed_operands(tmp_path, model):
    measured = peak_bytes(tmp_path, model, STEPS, "native", "bfloat16")
    planned = [memory.pretraining_bytes(model, STEPS, 1, "native", dtype) for dtype in ("float32", "bfloat16")]
    assert planned[0] < planned[1] == pytest.approx(measured, rel=0.2)


# Peaks of whole pretraining runs of 3 steps, 1 thread, in megabytes: layers, width, heads, context, vocabulary, batch,
# micro-batch, whether it saves, and kernels.
MEASURED = [
    (1, 32, 2, 128, 512, 8, None, False, "native", 146.9), (4, 128, 4, 128, 4096, 32, None, False, "native", 319.2),
    (4, 256, 4, 256, 8192, 8, None, False, "native", 393.7), (4, 256, 4, 256, 8192, 8, None, True, "native", 561.0),
    (8, 512, 8, 512, 8192, 4, None, False, "native", 1189.2), (8, 512, 8, 512, 8192, 4, None, True, "native", 2168.1),
    (4, 256, 4, 256, 8192, 8, 2, False, "native", 298.9), (4, 256, 8, 1024, 512, 8, None, False, "native", 823.4),
    (2, 128, 4, 2048, 512, 8, None, False, "native", 507.9), (2, 256, 4, 256, 50257, 4, None, False, "native", 525.1),
    (2, 128, 4, 128, 512, 32, None, False, "tinygrad", 344.2),
    (4, 128, 4, 128, 4096, 32, None, False, "tinygrad", 632.5), (2, 128, 4, 512, 512, 8, 2, False, "tinygrad", 338.3),
    (2, 128, 4, 512, 512, 8, None, False, "tinygrad", 495.8), (2, 256, 4, 128, 8192, 8, None, False, "tinygrad", 569.4),
]  # fmt: skip


@pytest.mark.parametrize("run", MEASURED, ids=str)
def test_the_memory_of_runs_from_33_thousand_to_30_million_parameters_was_met(run):
    *shape, vocab, batch, micro, saves, kernels, megabytes = run
    model = Model("", *shape, vocab_size=vocab)
    train = replace(STEPS, batch_size=batch, micro_batch_size=micro, steps=3,
                    checkpoint_every_steps=1 if saves else 200)  # fmt: skip
    assert memory.pretraining_bytes(model, train, 1, kernels) == pytest.approx(megabytes * 1e6, rel=0.2)


def test_the_memory_estimate_holds_weights_gradients_and_both_moments(models):
    row = models["cerebras-gpt-13b"]
    one, two = (memory.pretraining_bytes(row, replace(STEPS, batch_size=n)) for n in (1, 2))
    assert 16 * flops.n_parameters(row) < one < two


def test_more_micro_batches_take_less_memory_and_a_run_that_saves_more(models):
    row = models["bench-34m"]
    whole = memory.pretraining_bytes(row, STEPS)
    assert memory.pretraining_bytes(row, replace(STEPS, micro_batch_size=1)) < whole
    assert memory.pretraining_bytes(row, replace(STEPS, steps=200)) - whole == 8 * 4 * flops.n_parameters(row)


def test_an_evaluation_takes_less_than_fine_tuning_and_grows_with_the_model(models):
    small, large = models["bench-2m"], models["cerebras-gpt-111m"]
    for row in (small, large):
        assert memory.evaluation_bytes(row) < memory.finetuning_bytes(row, 32)
    grown = memory.evaluation_bytes(large) - memory.evaluation_bytes(small)
    weights = 4 * (flops.n_parameters(large) - flops.n_parameters(small))
    assert weights < grown < 2 * weights  # they are never held twice


# Peaks, in megabytes, of 6 layers of 384 with 6 heads, context 256, vocabulary 512: fine-tuned on 150 short examples in
# batches of 16, the longest of 60 tokens, and scored on 1,000.
MID = Model("mid", n_layer=6, d_model=384, n_head=6, seq_len=256, vocab_size=512)


def test_the_memory_of_fine_tuning_and_evaluation_was_met():
    assert memory.finetuning_bytes(MID, 16, longest=64) == pytest.approx(577.4e6, rel=0.2)
    assert memory.evaluation_bytes(MID) == pytest.approx(277.8e6, rel=0.2)
    assert memory.finetuning_bytes(MID, 16, longest=1000) == memory.finetuning_bytes(MID, 16)
