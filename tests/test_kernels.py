"""Needs a C compiler and OpenBLAS: each native operation against its twin in plain tinygrad, and against NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy_gpt import ACTIVATIONS, gelu, softmax
from tiny import operations
from tinygrad import Tensor

from cgpt.kernels.native import call

NATIVE, PLAIN = operations("native"), operations("tinygrad")
B, T, H, D, V = 2, 7, 3, 5, 11  # other shapes are tested on a whole GPT against NumPy in test_model.py


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def integers(high: int, *shape: int, low: int = 0) -> np.ndarray:
    return np.random.default_rng([7, *shape]).integers(low, high, shape).astype(np.int32)


def evaluate(function, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs of `function`, then the gradients of a random weighting of them in every floating-point input."""
    tensors = [Tensor(value, device="CPU") for value in inputs]
    outs = function(*tensors)
    outs = outs if isinstance(outs, tuple) else (outs,)
    weights = [Tensor(normal(*out.shape, seed=9), device="CPU") for out in outs]
    total = sum((out * weight).sum() for out, weight in zip(outs, weights))
    grads = total.gradient(*(t for t, value in zip(tensors, inputs) if value.dtype == np.float32))
    Tensor.realize(*outs, *grads)
    return [t.numpy() for t in (*outs, *grads)]


def assert_close(ours: list[np.ndarray], wanted: list[np.ndarray], tolerance: float = 2e-5) -> None:
    """Equal within `tolerance` of the largest entry of each array."""
    assert len(ours) == len(wanted)
    for one, other in zip(ours, wanted):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1e-3, np.abs(other).max()))


def assert_twins(function, inputs: list[np.ndarray]) -> None:
    assert_close(evaluate(lambda *t: function(NATIVE, *t), inputs), evaluate(lambda *t: function(PLAIN, *t), inputs))


def test_the_embedding_equals_its_twin_with_repeated_tokens_and_unused_positions():
    tokens, wte, wpe = integers(V, B, T), normal(V, H * D), normal(T + 3, H * D)
    for scale in (1.0, 0.3):
        ours, wanted = (ops.embedding(*map(Tensor, (tokens, wte, wpe)), scale).numpy() for ops in (NATIVE, PLAIN))
        np.testing.assert_array_equal(ours, wanted)
        for tied in (True, False):
            ours, wanted = (
                ops.embedding_grads(
                    *map(Tensor, (normal(B, T, H * D), tokens, wte, wpe)),
                    Tensor(normal(V, H * D, seed=1)) if tied else None,
                    scale,
                )
                for ops in (NATIVE, PLAIN)
            )
            assert_close(*([y.numpy() for y in grads] for grads in (ours, wanted)))


def test_layer_norm_equals_its_twin_with_and_without_a_residual_and_with_one_output_used():
    C = H * D + 1  # the norm of one number has no gradient
    x, f, w, b = normal(B, T, C), normal(B, T, C, seed=1), normal(C), normal(C, seed=1)
    assert_twins(lambda ops, x, f, w, b: ops.add_layer_norm(x, f, w, b, 1e-5), [x, f, w, b])
    assert_twins(lambda ops, x, f, w, b: ops.add_layer_norm(x, f, w, b, 1e-5)[1], [x, f, w, b])
    assert_twins(lambda ops, x, w, b: ops.add_layer_norm(x, None, w, b, 1e-5), [x, w, b])
    assert_twins(lambda ops, x, f, w, b: ops.add_layer_norm(x, f, w, b, 1e-3, scale=0.3), [x, f, w, b])


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("independent", [False, True])
def test_the_linear_layer_equals_its_twin(activation, independent):
    inputs = [normal(B, T, H * D), normal(H * D, V), normal(V)]
    assert_twins(lambda ops, *t: ops.linear(*t, activation=activation, independent=independent), inputs)


def test_attention_equals_its_twin():
    assert_twins(lambda ops, qkv: ops.attention(qkv, H, D**-0.5), [normal(B, T, 3 * H * D)])


@pytest.mark.parametrize("kept", ["all", "some", "none"])
def test_the_cross_entropy_head_equals_its_twin_for_targets_that_are_there_missing_or_all_missing(kept):
    targets = {"all": integers(V, B, T), "some": integers(V, B, T, low=-2), "none": np.full((B, T), -1, np.int32)}
    inputs = [normal(B, T, H * D), normal(V, H * D), np.maximum(targets[kept], -1)]
    assert_twins(lambda ops, *t: ops.cross_entropy_head(*t), inputs)


def test_log_probabilities_greedy_marks_and_logits_equal_their_twins():
    inputs = [Tensor(x, device="CPU") for x in (normal(B, T, H * D), normal(V, H * D), integers(V, B, T, 3, low=-1))]
    ours, wanted = (
        [t.numpy() for t in (*ops.token_logprobs(*inputs), ops.head_logits(*inputs[:2]))] for ops in (NATIVE, PLAIN)
    )
    assert_close(ours, wanted)
    np.testing.assert_array_equal(ours[1], wanted[1])


def test_adamw_and_accumulation_equal_their_twins():
    shapes, scales = [(3, 5), (7,), (181, 183)], [(1.0, 0.1), (1.0, 0.0), (0.5, 0.2)]  # the last has two chunks
    results = []
    for ops in (NATIVE, PLAIN):
        p, m, v, g = ([Tensor(abs(normal(*s, seed=i)), device="CPU") for s in shapes] for i in range(4))
        Tensor.realize(*p, *m, *v, *g)
        hyper = Tensor(np.array([0.01, 0.9, 0.95, 1e-8, 1.0, 0.271, 0.1426], np.float32), device="CPU")
        norm = ops.adamw(p, m, v, g, hyper, scales).numpy()
        for keep in (0.0, 1.0):
            ops.accumulate(g, p, Tensor(np.array([keep, 0.25], np.float32), device="CPU")).realize()
        results.append([norm, *(t.numpy() for t in (*p, *m, *v, *g))])
    assert_close(*results, tolerance=1e-6)


def test_products_that_are_cut_into_pieces_equal_numpy():
    for rows, n_in, n_out in ((301, 257, 515), (1030, 131, 400)):  # wider than high, higher than wide; 5 to 8 pieces
        x, w, b = normal(1, rows, n_in), normal(n_in, n_out), normal(n_out)
        y, dx, dw, db = evaluate(lambda *t: NATIVE.linear(*t, activation="gelu"), [x, w, b])
        value, slope = gelu(x.astype(np.float64) @ w + b)
        dy = normal(1, rows, n_out, seed=9) * slope
        wanted = [value, dy @ w.T.astype(np.float64), x[0].T.astype(np.float64) @ dy[0], dy.sum((0, 1))]
        assert_close([y, dx, dw, db], wanted)


def test_attention_over_several_blocks_of_queries_equals_numpy():
    for T, D in ((64, 8), (65, 3), (200, 32)):
        qkv, scale = normal(2, T, 3 * D), D**-0.5
        y, _ = evaluate(lambda t, scale=scale: NATIVE.attention(t, 1, scale), [qkv])
        q, k, v = np.split(qkv.astype(np.float64), 3, -1)
        score = np.where(np.tril(np.ones((T, T), bool)), q @ k.swapaxes(1, 2) * scale, -np.inf)
        assert_close([y], [softmax(score) @ v])


def test_the_head_takes_more_rows_than_one_chunk_holds_and_sums_their_gradients():
    x, w, targets = normal(1, 700, 9), normal(31, 9), integers(31, 1, 700, low=-1)
    tensors = [Tensor(value, device="CPU") for value in (x, w, targets)]
    loss = NATIVE.cross_entropy_head(*tensors)
    dx, dw = loss.gradient(*tensors[:2])
    prob, wanted = softmax(x[0].astype(np.float64) @ w.T), targets[0] >= 0
    dlogits = (prob - np.eye(31)[targets[0]]) * wanted[:, None] / wanted.sum()
    nats = -np.log(prob[wanted, targets[0][wanted]]).mean()
    assert loss.item() == pytest.approx(nats, rel=1e-6)
    assert_close([dx.numpy()[0], dw.numpy()], [dlogits @ w, dlogits.T @ x[0].astype(np.float64)])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_their_slopes_are_as_exact_as_float32_allows(activation):
    x = np.linspace(-12, 12, 100_001).astype(np.float32)
    one = np.ones((1, 1), np.float32)
    inputs = [x.reshape(1, -1, 1), one, np.zeros(1, np.float32)]
    y, dx, *_ = evaluate(lambda *t: NATIVE.linear(*t, activation=activation), inputs)
    value, slope = ACTIVATIONS[activation](x.astype(np.float64))
    scale = 1e-7 * np.maximum(1, np.abs(x))
    assert (np.abs(y.ravel() - value) / scale).max() < 3
    assert (np.abs(dx.ravel() / normal(1, len(x), 1, seed=9).ravel() - slope) / scale).max() < 5


def test_the_exponential_keeps_seven_digits_wherever_a_gradient_is_not_denormal():
    d = np.linspace(0, 75, 10_001)  # of two logits 0 and -d, the second has log p = -d - log(1 + exp(-d))
    x = np.stack([np.zeros_like(d), -d], -1).astype(np.float32).reshape(1, -1, 2)
    inputs = [Tensor(x, device="CPU"), Tensor(np.eye(2, dtype=np.float32), device="CPU")]
    loss = NATIVE.cross_entropy_head(*inputs, Tensor(np.zeros((1, len(d)), np.int32), device="CPU"))
    slope = loss.gradient(inputs[0])[0].numpy()[0, :, 1] * len(d)
    small = np.exp(x[0, :, 1].astype(np.float64))
    np.testing.assert_allclose(slope, small / (1 + small), rtol=5e-7)


def test_a_nan_and_an_infinity_reach_the_loss():
    for bad in (np.nan, np.inf):
        x = normal(1, 4, 6)
        x[0, 2, 3] = bad
        tensors = [Tensor(value, device="CPU") for value in (x, normal(9, 6), integers(9, 1, 4))]
        assert not np.isfinite(NATIVE.cross_entropy_head(*tensors).item())


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch():
    B, T, C, F, V = 5, 37, 48, 101, 211

    def body(tokens, targets):
        t = lambda *shape: Tensor(normal(*shape), device="CPU")  # noqa: E731
        x = NATIVE.embedding(Tensor(tokens, device="CPU"), t(V, C), t(T, C))
        r, y = NATIVE.add_layer_norm(x, None, t(C), t(C), 1e-5)
        y = NATIVE.attention(NATIVE.linear(y, t(C, 3 * C), t(3 * C), independent=True), 3, 0.25)
        y = NATIVE.linear(y, t(C, F), t(F), activation="gelu", independent=True)
        y = NATIVE.linear(y, t(F, C), t(C), independent=True)
        y = NATIVE.add_layer_norm(r, y, t(C), t(C), 1e-5)[1]
        logprobs, greedy = NATIVE.token_logprobs(y, t(V, C), Tensor(targets, device="CPU"))
        return [out.numpy() for out in (logprobs, greedy, NATIVE.head_logits(y, t(V, C)))]

    tokens, targets = integers(V, B, T), integers(V, B, T, 2, low=-1)
    together = body(tokens, targets)
    for row in (0, 2, 4):
        for alone, all_rows in zip(body(tokens[row : row + 1], targets[row : row + 1]), together):
            np.testing.assert_array_equal(alone[0], all_rows[row])


TRAIN = """
import hashlib, sys
import numpy as np
from cgpt.hardware import Hardware
from cgpt.kernels import backend
from cgpt.model.gpt import GPT, init_parameters
from cgpt.model.loglikelihood import score
from cgpt.training.trainer import AdamW, Trainer
from cgpt.spec import Model
config = Model("m", n_layer=1, d_model=96, n_head=3, seq_len=100, vocab_size=509)
ops = backend.prepare(Hardware("cpu", "", device="CPU", kernels="native"), int(sys.argv[1]))
trainer = Trainer(GPT(config, init_parameters(config, 0), ops, "CPU"), AdamW())
tokens = np.random.default_rng(0).integers(0, 509, (16, 101)).astype(np.int32)
losses = [trainer.step([(tokens[:, :-1].copy(), tokens[:, 1:].copy())], 1e-2) for _ in range(4)]
bits = hashlib.sha256(b"".join(value.tobytes() for value in trainer.state().values()))
bits.update(score(trainer.model, [tokens[0]], [1])[0][0].tobytes())
print(bits.hexdigest(), losses)
"""


@pytest.mark.parametrize("engine", ["openblas", "packed"])
def test_training_gives_the_same_bits_with_one_thread_and_with_two(engine):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "CGPT_BLAS": engine}
    runs = [
        subprocess.Popen([sys.executable, "-c", TRAIN, n], env=environment, stdout=subprocess.PIPE, text=True)
        for n in "12"
    ]
    one, two = (run.communicate(timeout=60)[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert one == two


COLLECT = """
import gc
import numpy as np
import tiny
from tinygrad import Device
from cgpt.model.loglikelihood import score
gc.disable()
model, other, tokens, freed = tiny.model(kind="tinygrad"), tiny.model(), [np.arange(9, dtype=np.int32)], []
for _ in range(3):
    score(model, tokens, [1])
del model
device = Device["CPU"]
queue = device.hw_compute_queue_t().cmd(lambda thread: freed.append(gc.collect()))
queue.signal(device.timeline_signal, device.next_timeline()).submit(device)
print(score(other, tokens, [1])[0][1].shape, freed[0] > 0)
"""


def test_the_garbage_collector_may_find_a_dropped_model_in_a_worker_thread():
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parent}:{here}"}
    done = subprocess.run([sys.executable, "-c", COLLECT], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("(8,) True\n", "", 0)


def test_a_process_keeps_the_number_of_threads_that_it_started_with():
    from cgpt.errors import UserError

    n = call.n_threads
    with pytest.raises(UserError, match=f"this process already runs {n} threads, not {n + 1}; start a new one"):
        call.start(n + 1)
