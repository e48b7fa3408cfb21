"""Products in bfloat16 on the processor: what they are, by each of its instructions, and where they are refused."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from numpy_gpt import softmax
from process import run
from test_gpu import BATCHES, ROUNDING, by_numpy, rounded
from test_kernels import NATIVE, PLAIN, TRAIN, assert_close, evaluate, integers, normal
from test_model import LR, SMALL
from tinygrad import Tensor

from cgpt.commands import doctor
from cgpt.errors import UserError
from cgpt.experiment import load, plan
from cgpt.hardware import Hardware
from cgpt.kernels import backend
from cgpt.kernels.native import bfloat16, call
from cgpt.model.gpt import GPT
from cgpt.model.loglikelihood import score
from cgpt.training.trainer import AdamW, Trainer

ROOT = Path(__file__).parent.parent
HARDWARE = Hardware("mine", "", device="CPU", dtype="bfloat16", kernels="native")
NAMES = [name or "rounding" for name in bfloat16.INSTRUCTIONS]


@pytest.fixture(params=range(len(NAMES)), ids=NAMES)
def by(request: pytest.FixtureRequest) -> Iterator[int]:
    """Each way to multiply that this processor and the level in use have, one after the other."""
    if request.param > call.library().take_bfloat16(1):
        pytest.skip(f"there is no {NAMES[request.param]} here")
    in_use = ctypes.c_int.in_dll(call.library(), "bfloat16_by")
    in_use.value = request.param
    yield request.param
    bfloat16.instructions.cache_clear()
    bfloat16.instructions()


def model(dtype: str, kind: str = "native") -> GPT:
    return GPT(SMALL, tiny.rough_parameters(SMALL), tiny.operations(kind), "CPU", dtype)


def trained(dtype: str, kind: str = "native") -> np.ndarray:
    """Loss and gradient norm of each of ten steps."""
    trainer = Trainer(model(dtype, kind), AdamW())
    return np.array([trainer.step([batch], lr) for batch, lr in zip(BATCHES, LR)])


def exact(*arrays: np.ndarray) -> list[np.ndarray]:
    """Rounded to bfloat16, as numbers whose products NumPy can sum without an error that counts."""
    return [rounded(array.astype(np.float32)).astype(np.float64) for array in arrays]


@pytest.mark.parametrize(("rows", "n_in", "n_out"), [(1, 1, 1), (7, 3, 5), (33, 70, 130), (301, 600, 257)])
def test_products_and_their_gradients_are_those_of_numpy_on_rounded_operands(by, rows, n_in, n_out):
    x, w, b = normal(1, max(rows, 2), n_in), normal(n_in, n_out), normal(n_out)
    ours = evaluate(lambda *t: NATIVE.linear(*t, dtype="bfloat16"), [x, w, b])
    dy = normal(1, max(rows, 2), n_out, seed=9)
    (x16, w16, dy16), dy = exact(x[0], w, dy[0]), dy.astype(np.float64)
    wanted = [x16 @ w16 + b, dy16 @ w16.T, x16.T @ dy16, dy[0].sum(0)]
    assert_close([ours[0][0], ours[1][0], *ours[2:]], wanted, tolerance=2e-6)
    assert not np.allclose(ours[0][0], x[0].astype(np.float64) @ w + b, rtol=0, atol=2e-6 * np.abs(wanted[0]).max())


def test_an_activation_follows_the_product_and_its_slope_comes_before_the_gradients(by):
    x, w, b = normal(2, 40, 96), normal(96, 130), normal(130)
    ours, twins = (
        evaluate(lambda *t, ops=ops: ops.linear(*t, activation="gelu", dtype="bfloat16"), [x, w, b])
        for ops in (NATIVE, PLAIN)
    )
    assert_close(ours, twins, tolerance=4 * ROUNDING)  # the twin rounds what it keeps in memory too
    assert np.abs(ours[0] - twins[0]).max() > 0


def test_the_heads_loss_and_gradients_over_several_chunks_are_those_of_numpy_on_rounded_operands(by):
    x, w, targets = normal(1, 2600, 40), normal(50, 40), integers(50, 1, 2600, low=-1)
    tensors = [Tensor(value, device="CPU") for value in (x, w, targets)]
    loss = NATIVE.cross_entropy_head(*tensors, dtype="bfloat16")
    dx, dw = loss.gradient(*tensors[:2])
    (x16, w16), wanted = exact(x[0], w), targets[0] >= 0
    prob = softmax(x16 @ w16.T)
    (dlogits,) = exact((prob - np.eye(50)[targets[0]]) * wanted[:, None] / wanted.sum())
    assert loss.item() == pytest.approx(-np.log(prob[wanted, targets[0][wanted]]).mean(), rel=1e-6)
    # The slope of a logit that lies between two numbers of bfloat16 may go to the other one.
    assert_close([dx.numpy()[0], dw.numpy()], [dlogits @ w16, dlogits.T @ x16], tolerance=ROUNDING / 4)


def test_log_probabilities_and_logits_are_those_of_numpy_on_rounded_operands(by):
    x, w, targets = normal(3, 150, 40), normal(300, 40), integers(300, 3, 150, 2, low=-1)
    tensors = [Tensor(value, device="CPU") for value in (x, w, targets)]
    logprobs, greedy = (t.numpy() for t in NATIVE.token_logprobs(*tensors, dtype="bfloat16"))
    x16, w16 = exact(x, w)
    logits = x16 @ w16.T
    assert_close([NATIVE.head_logits(*tensors[:2], dtype="bfloat16").numpy()], [logits], tolerance=1e-6)
    wanted = np.take_along_axis(np.log(softmax(logits)), np.maximum(targets, 0), -1)
    np.testing.assert_allclose(logprobs, np.where(targets < 0, 0, wanted), atol=2e-5)
    np.testing.assert_array_equal(greedy, (targets >= 0) & (targets == logits.argmax(-1)[..., None]))


def test_a_nan_and_an_infinity_reach_the_loss_through_bfloat16(by):
    for bad in (np.nan, -np.nan, np.inf):
        x = normal(1, 40, 64)
        x[0, 2, 3] = bad
        x = NATIVE.linear(*(Tensor(value, device="CPU") for value in (x, normal(64, 64), normal(64))), dtype="bfloat16")
        others = [Tensor(value, device="CPU") for value in (normal(9, 64), integers(9, 1, 40))]
        assert not np.isfinite(NATIVE.cross_entropy_head(x, *others, dtype="bfloat16").item())


def test_a_sequence_has_the_same_score_alone_and_in_a_batch_in_bfloat16(by):
    scored = model("bfloat16")
    sequences = list(integers(SMALL.vocab_size or 0, 40, 10))
    together = score(scored, sequences, [1] * 40)
    for i in (0, 7, 39):
        np.testing.assert_array_equal(score(scored, [sequences[i]], [1])[0][0], together[i][0])


def test_training_in_bfloat16_gives_the_same_bits_with_one_thread_and_with_two():
    program = TRAIN.replace('ops, "CPU")', 'ops, "CPU", "bfloat16")')
    assert program != TRAIN
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen([sys.executable, "-c", program, n], env=environment, stdout=subprocess.PIPE, text=True)
        for n in "12"
    ]
    one, two = (process.communicate(timeout=100)[0] for process in runs)
    assert [process.returncode for process in runs] == [0, 0]
    assert one == two


def test_ten_losses_in_bfloat16_are_those_of_float32_as_far_as_its_rounding_goes(by):
    error = np.abs(trained("bfloat16") / by_numpy()[0] - 1)
    assert 1e-5 < error[:, 0].max() < 4 * ROUNDING  # more than float32's
    assert error[:, 1].max() < 16 * ROUNDING  # gradient norms: every product three times, and nothing is averaged


def test_ten_losses_in_bfloat16_are_those_of_tinygrads_kernels(by):
    np.testing.assert_allclose(trained("bfloat16")[:, 0], trained("bfloat16", "tinygrad")[:, 0], rtol=2 * ROUNDING)


def test_weights_and_moments_under_bfloat16_stay_float32(by):
    trainer = Trainer(model("bfloat16"), AdamW())
    before = trainer.model.numpy()
    trainer.step([BATCHES[0]], 1e-6)
    after = trainer.model.numpy()
    matrices = [name for name, value in before.items() if value.ndim == 2]
    assert any((rounded(after[name]) == rounded(before[name])).mean() > 0.95 for name in matrices)
    assert all((after[name] != before[name]).mean() > 0.4 for name in matrices)  # positions without a batch stay
    assert {value.dtype for name, value in trainer.state().items() if name != "n_updates"} == {np.dtype(np.float32)}


def test_a_model_in_bfloat16_shares_no_recording_with_one_in_float32():
    tokens = integers(SMALL.vocab_size or 0, 3, 9)
    logprobs = [score(model(dtype), list(tokens), [1] * 3) for dtype in ("float32", "bfloat16", "float32")]
    assert any((ours != theirs).any() for (ours, _), (theirs, _) in zip(logprobs[0], logprobs[1]))
    assert all((ours == theirs).all() for (ours, _), (theirs, _) in zip(logprobs[0], logprobs[2]))


# ---- where it is refused, and what it is not told apart from ----


def test_a_processor_on_which_bfloat16_is_slower_refuses_it_in_one_line_and_says_what_to_write(monkeypatch):
    monkeypatch.setattr(bfloat16, "instructions", lambda: None)
    expected = ("hardware_profiles/mine.yaml: dtype: bfloat16 is slower here than float32, as {} has no fast "
                "instructions for it (AMX, or AVX512-BF16 on AMD); write float32, or name another profile under "
                "`hardware:`")  # fmt: skip
    for level, what in (("", "this processor"), ("x86-64-v2", "CGPT_CPU=x86-64-v2")):
        monkeypatch.setenv("CGPT_CPU", level)
        with pytest.raises(UserError) as caught:
            backend.open_devices(HARDWARE)
        assert list(caught.value.problems) == [expected.format(what)]
        assert doctor.why_not(HARDWARE) == expected.format(what)
    backend.open_devices(replace(HARDWARE, dtype="float32"))
    backend.open_devices(replace(HARDWARE, kernels="tinygrad"))


def test_a_level_without_its_instructions_refuses_bfloat16_and_still_knows_what_it_means():
    if not doctor.host.runnable_levels():
        pytest.skip("this processor has no level of x86-64")
    program = """
import sys
from cgpt.kernels.native import bfloat16
print(bfloat16.instructions())
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_bfloat16.py", "-k", "numpy or float32_as_far"]))
"""
    done = run(program, CGPT_CPU="x86-64-v2")
    assert done.stdout.startswith("None\n") and done.returncode == 0, done.stdout


def test_avx512s_instructions_are_taken_on_amds_processors_alone(monkeypatch):
    asked = []

    class Library:
        def take_bfloat16(self, worth: int) -> int:
            asked.append(worth)
            return worth

    monkeypatch.setattr(bfloat16, "library", Library)
    for vendor, wanted in (("AuthenticAMD", "AVX512-BF16"), ("GenuineIntel", None)):
        monkeypatch.setattr(bfloat16.host, "cpu_info", lambda vendor=vendor: {"vendor_id": vendor})
        assert bfloat16.instructions.__wrapped__() == wanted
    assert asked == [1, 0]


def test_a_record_names_the_instructions_and_a_run_in_bfloat16_has_its_own_identity(monkeypatch):
    monkeypatch.setattr(bfloat16, "instructions", lambda: "AMX")
    assert (backend.describe_kernels(HARDWARE) or "").endswith(", bfloat16 by AMX")
    single = replace(HARDWARE, dtype="float32")
    assert "bfloat16" not in (backend.describe_kernels(single) or "")
    assert plan.hardware_identity(HARDWARE) != plan.hardware_identity(single)


def test_the_profile_in_bfloat16_is_the_processors_and_claims_no_rate_of_float32():
    profiles = load.load_workflow(ROOT).hardware
    shipped = profiles["cpu-bf16"]
    assert (shipped.device, shipped.kernels, shipped.dtype) == ("CPU", "native", "bfloat16")
    assert profiles["cpu"].sustained_flops_per_s and shipped.sustained_flops_per_s is shipped.sustained_on is None
