"""The engines of matrix products: both compute the same, the faster one is taken, and a run's record names it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor

from cgpt.errors import UserError
from cgpt.experiment import rule_values
from cgpt.experiment.run import Execution, Run
from cgpt.kernels import backend
from cgpt.kernels.native import call, engine

NATIVE = backend.prepare(backend.CPU, 2)


@pytest.fixture(params=engine.ENGINES)
def taken(request):
    """Later products are of this engine, until the test ends."""
    call.library().set_engine(engine.ENGINES.index(request.param))
    yield request.param
    call.library().set_engine(engine.ENGINES.index(engine.engine()))


@pytest.fixture
def unmeasured(monkeypatch, tmp_path):
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path))
    monkeypatch.delenv(engine.ENGINE, raising=False)
    engine.speed_up.cache_clear()
    yield tmp_path
    engine.speed_up.cache_clear()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def assert_close(ours: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


# Fewer than a panel has; panels, items and parts that are not full; two parts of rows and of columns; depths in steps.
@pytest.mark.parametrize(("rows", "n_in", "n_out"), [
    (1, 1, 1), (5, 3, 7), (13, 8, 33), (97, 256, 257), (100, 261, 40), (2200, 40, 33), (50, 30, 2100), (260, 520, 300),
])  # fmt: skip
def test_a_layer_and_its_gradients_equal_numpy_with_either_engine(taken, rows, n_in, n_out):
    x, w, b, dy = normal(1, rows, n_in), normal(n_in, n_out), normal(n_out), normal(1, rows, n_out, seed=1)
    tensors = [Tensor(value, device="CPU") for value in (x, w, b)]
    y = NATIVE.linear(*tensors, activation="relu")
    dx, dw = (y * Tensor(dy, device="CPU")).sum().gradient(*tensors[:2])
    x, w = x[0].astype(np.float64), w.astype(np.float64)
    before = x @ w + b
    slope = dy[0] * (before > 0)
    for ours, wanted in ((y, np.maximum(before, 0)), (dx, slope @ w.T), (dw, x.T @ slope)):
        assert_close(ours.numpy().reshape(wanted.shape), wanted)


def test_the_head_s_gradient_over_several_chunks_equals_numpy_with_either_engine(taken):
    rows, C, V = 600, 20, 90
    x, w, targets = normal(1, rows, C), normal(V, C), np.arange(rows, dtype=np.int32).reshape(1, rows) % V
    tensors = [Tensor(value, device="CPU") for value in (x, w)]
    loss = NATIVE.cross_entropy_head(*tensors, Tensor(targets, device="CPU"))
    dx, dw = loss.gradient(*tensors)
    logits = x[0].astype(np.float64) @ w.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(rows), targets[0]] -= 1
    for ours, wanted in ((dx, p @ w / rows), (dw, p.T @ x[0] / rows)):
        assert_close(ours.numpy().reshape(wanted.shape), wanted)


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch_with_either_engine(taken):
    x, w, b = normal(7, 37, 300), normal(300, 101), normal(101)
    one_batch = NATIVE.linear(*(Tensor(value, device="CPU") for value in (x, w, b)), independent=True).numpy()
    for i in range(7):
        alone = NATIVE.linear(*(Tensor(value, device="CPU") for value in (x[i : i + 1], w, b)), independent=True)
        np.testing.assert_array_equal(alone.numpy()[0], one_batch[i])


@pytest.mark.parametrize(("speed_up", "wanted"), [(1.04, "openblas"), (1.06, "packed")])
def test_our_own_engine_is_taken_where_it_is_five_per_cent_faster(monkeypatch, speed_up, wanted):
    monkeypatch.delenv(engine.ENGINE, raising=False)
    monkeypatch.setattr(engine, "speed_up", lambda: speed_up)
    assert engine.engine() == wanted


def test_engines_are_measured_once_and_anew_where_what_was_kept_is_damaged(monkeypatch, unmeasured):
    answers = iter([1.5, 0.5])
    monkeypatch.setattr(engine, "_measure", lambda: next(answers))
    assert engine.engine() == "packed"
    engine.speed_up.cache_clear()
    assert engine.engine() == "packed"
    [kept] = unmeasured.glob("engine-*.json")
    assert json.loads(kept.read_text()) == {"speed_up": 1.5}
    kept.write_text('{"speed_up": ')
    engine.speed_up.cache_clear()
    assert engine.engine() == "openblas"


def test_an_engine_that_does_not_exist_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv(engine.ENGINE, "mkl")
    with pytest.raises(UserError, match="^environment: CGPT_BLAS: there is no 'mkl'; write one of openblas, packed$"):
        engine.engine()


def test_a_run_s_record_names_our_own_engine_so_that_a_resume_refuses_another(monkeypatch):
    named = {}
    for name in engine.ENGINES:
        monkeypatch.setenv(engine.ENGINE, name)
        named[name] = backend.describe_kernels(backend.CPU)
    assert named["packed"] == named["openblas"] + ", packed products"


def test_a_speed_that_is_kept_is_read_without_the_lock_which_may_be_another_users(monkeypatch, unmeasured):
    monkeypatch.setattr(engine, "build_library", lambda: Path("kernels.so"))
    monkeypatch.setattr(engine, "_measure", lambda: 1.5)
    assert engine.speed_up() == 1.5
    engine.speed_up.cache_clear()
    monkeypatch.setattr(engine, "lock", None)
    assert engine.speed_up() == 1.5


def test_the_layer_that_is_measured_has_the_sizes_that_its_kernels_read():
    text = (Path(engine.__file__).parent / "c/layers.c").read_text()
    [sizes] = re.findall(r"typedef struct { int64_t (.*); } LinearDims;", text)
    assert list(engine.LAYER) == sizes.split(", ")


def test_a_clock_that_is_too_coarse_to_tell_leaves_openblas(monkeypatch):
    monkeypatch.setattr(engine.time, "thread_time", lambda: 0.0)
    try:
        assert engine._measure() < engine.MARGIN
    finally:
        call.library().set_engine(engine.ENGINES.index(engine.engine()))


def test_a_workflow_refuses_an_engine_that_does_not_exist_before_its_first_job(monkeypatch):
    run = Run("pretrain", "a", {}, {}, Execution(backend.CPU))
    rule_values.refuse_no_compiler([run])
    monkeypatch.setenv(engine.ENGINE, "mkl")
    with pytest.raises(UserError, match="^environment: CGPT_BLAS: there is no 'mkl'"):
        rule_values.refuse_no_compiler([run])
