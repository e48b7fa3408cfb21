"""Needs a C compiler: each operation on one new token per sequence against its twin in plain tinygrad, and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy_gpt import ACTIVATIONS, softmax
from tiny import operations
from tinygrad import Tensor

NATIVE, PLAIN = operations("native"), operations("tinygrad")
EVERY_BLOCK = (1, 2, 3, 4, 5, 6, 7, 13)  # rows: each size of a block, and more than one block
EVERY_ROWS = [(NATIVE, rows) for rows in EVERY_BLOCK] + [(PLAIN, 3)]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def run(function, *inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs of a function of tensors, and what became of its inputs."""
    tensors = [Tensor(value, device="CPU") for value in inputs]
    Tensor.realize(*tensors)
    out = function(*tensors).realize()
    return [out.numpy(), *(t.numpy() for t in tensors)]


@pytest.mark.parametrize("n_in, n_out", [(1, 1), (7, 3), (19, 64), (40, 131), (300, 129), (131, 700)])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_a_linear_layer_of_few_rows_equals_its_twin_and_numpy(n_in, n_out, activation):
    w, b = normal(n_in, n_out), normal(n_out)
    for ops, rows in EVERY_ROWS:
        x = normal(rows, 1, n_in)
        wanted = x.astype(np.float64) @ w + b
        wanted = ACTIVATIONS[activation](wanted)[0] if activation else wanted
        y = run(lambda x, w, b, ops=ops: ops.linear(x, w, b, activation=activation, independent=True), x, w, b)[0]
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-6 * n_in**0.5 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("width, vocab", [(1, 1), (5, 7), (16, 4), (33, 250), (300, 61), (31, 9001)])
def test_logits_of_few_rows_equal_their_twin_and_numpy(width, vocab):
    w = normal(vocab, width)
    for ops, rows in EVERY_ROWS:
        x = normal(rows, 1, width)
        wanted = x.astype(np.float64) @ w.T
        y = run(ops.head_logits, x, w)[0]
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-6 * width**0.5 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("n_in, n_out", [(19, 64), (131, 700)])
def test_a_row_has_the_same_bits_alone_and_among_others(n_in, n_out):
    x, w, b, head = normal(13, 1, n_in), normal(n_in, n_out), normal(n_out), normal(n_out, n_in)
    linear = lambda x: run(lambda *t: NATIVE.linear(*t, independent=True), x, w, b)[0]  # noqa: E731
    logits = lambda x: run(NATIVE.head_logits, x, head)[0]  # noqa: E731
    for function in (linear, logits):
        together = function(x)
        for rows in EVERY_BLOCK[:-1]:
            np.testing.assert_array_equal(function(x[5 : 5 + rows]), together[5 : 5 + rows])


def test_the_embedding_at_a_position_equals_its_twin():
    tokens, positions = np.array([[3], [0], [3]], np.int32), np.array([[4], [0], [1]], np.int32)
    wte, wpe = normal(5, 7), normal(6, 7)
    for ops in (NATIVE, PLAIN):
        for scale in (1.0, 10.0):
            x = run(lambda *t, ops=ops, scale=scale: ops.embedding(*t[:3], scale, t[3]), tokens, wte, wpe, positions)[0]
            np.testing.assert_array_equal(x, np.float32(scale) * (wte[tokens] + wpe[positions]))


@pytest.mark.parametrize("B, H, S, D", [(1, 1, 1, 1), (1, 2, 9, 17), (3, 3, 20, 5), (4, 1, 70, 64)])
def test_attention_to_a_cache_equals_its_twin_and_numpy(B, H, S, D):
    rng, scale = np.random.default_rng(S), D**-0.5
    qkv, cache = normal(B, 1, 3 * H * D), normal(2, B, H, S, D)
    positions = np.append(rng.integers(0, S, B - 1), S - 1).astype(np.int32).reshape(B, 1)
    slots = rng.integers(0, B, (B, S)).astype(np.int32)
    for b in range(B):  # nobody reads in another row what is only written now
        slots[:, positions[b, 0]] = np.arange(B)
    q, k, v = qkv.astype(np.float64).reshape(B, 3, H, D).swapaxes(0, 1)
    kept = cache.astype(np.float64)
    for b in range(B):
        kept[:, b, :, positions[b, 0]] = k[b], v[b]
    wanted = np.zeros((B, H, D))
    for b in range(B):
        seen = kept[:, slots[b], :, np.arange(S)][: positions[b, 0] + 1]  # (n, 2, H, D)
        prob = softmax(np.einsum("hd,nhd->hn", q[b], seen[:, 0]) * scale)
        wanted[b] = np.einsum("hn,nhd->hd", prob, seen[:, 1])
    for ops in (NATIVE, PLAIN):
        result = run(lambda *t, ops=ops: ops.cached_attention(*t, scale), qkv, cache, positions, slots)
        np.testing.assert_allclose(result[0], wanted.reshape(B, 1, H * D), rtol=0, atol=1e-5)
        np.testing.assert_array_equal(result[2], kept.astype(np.float32))


def test_a_prompt_is_stored_in_its_row_and_nowhere_else():
    T, B, H, S, D = 4, 3, 2, 6, 5
    qkv, cache = normal(1, T, 3 * H * D), normal(2, B, H, S, D)
    wanted = cache.copy()
    wanted[:, 1, :, :T] = qkv.reshape(T, 3, H, D)[:, 1:].transpose(1, 2, 0, 3)
    for ops in (NATIVE, PLAIN):
        np.testing.assert_array_equal(run(ops.store_prompt, qkv, cache, np.array([1], np.int32))[2], wanted)
