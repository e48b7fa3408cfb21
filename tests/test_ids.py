"""What a model does not take is refused before a kernel reads where it points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from tinygrad import Tensor, TinyJit

from cgpt.__main__ import main
from cgpt.errors import UserError
from cgpt.inference.decoder import Decoder
from cgpt.inference.generate import Generator
from cgpt.kernels.native import call
from cgpt.model.gpt import GPT
from cgpt.model.loglikelihood import score
from cgpt.training.coordinate_check import activations
from cgpt.training.trainer import AdamW, Trainer

V, S = tiny.CONFIG.vocab_size or 0, tiny.CONFIG.seq_len
MODEL = tiny.model()
WRONG_IDS = (V, -1, 1 << 30)


def ids(*shape: int, last: int = 0, dtype=np.int32) -> np.ndarray:
    """Zeros, and one other id at the end."""
    values = np.zeros(shape, dtype)
    values.flat[values.size - 1 :] = last
    return values


@pytest.mark.parametrize("kind", ["native", "tinygrad"])
@pytest.mark.parametrize(
    "tokens",
    [ids(1, S + 1), *(ids(2, 5, last=token) for token in WRONG_IDS), ids(5), ids(1, 2, 3), ids(0, 5), ids(1, 0),
     ids(1, 5, dtype=np.int64), ids(1, 5, dtype=np.float32), ids(1, 5, dtype=np.bool_)],
    ids=lambda tokens: f"{tokens.dtype} {tokens.shape} {tokens.ravel()[-1:]}",
)  # fmt: skip
def test_tokens_that_the_model_has_not_are_refused_at_every_way_in(kind, tokens):
    model = tiny.model(kind=kind)
    targets = np.zeros(tokens.shape, np.int32)
    ways = (
        lambda: model(tokens),
        lambda: model(Tensor(tokens, device="CPU")),
        lambda: model.embedding(Tensor(tokens, device="CPU")),
        lambda: model.token_logprobs(Tensor(tokens, device="CPU"), Tensor(targets[..., None], device="CPU")),
        lambda: Trainer(model, AdamW()).step([(tokens, targets)], 0.01),
        lambda: activations(model, tokens),
    )
    for way in ways:
        with pytest.raises(ValueError, match="^tokens: "):
            way()


def test_a_length_that_the_model_has_not_is_refused_where_a_function_is_recorded():
    with pytest.raises(ValueError, match=f"tokens: {S + 1} of a sequence do not fit the model's context of {S}"):
        MODEL.captured(MODEL.token_logprobs, ids(1, S + 1), ids(1, S + 1, 1))


@pytest.mark.parametrize("kind", ["native", "tinygrad"])
def test_lists_and_a_tensor_of_any_device_are_taken_as_an_array_is(kind):
    model, tokens = tiny.model(kind=kind), np.arange(10, dtype=np.int32).reshape(2, 5)
    logits = model(tokens).numpy()
    alike = (tokens.tolist(), tuple(map(tuple, tokens.tolist())), Tensor(tokens, device="CPU"),
             Tensor(tokens, device="PYTHON"), Tensor.arange(10).reshape(2, 5))  # fmt: skip
    for same in alike:
        np.testing.assert_array_equal(model(same).numpy(), logits)


@pytest.mark.parametrize("tokens", [
    [[1, 2], [3]], [1, 2], [], [[]], [[], []], [[[1]]], [[1.0]], [[float("nan")]], [[True]], [["a"]], [[None]], [[-1]],
    [[V]], [[1 << 31]], [[(1 << 32) + 1]], [[1 << 64]], [[0] * (S + 1)], None, "text", 5, {1: 2}, iter([[1]]),
    np.array([[1, 2]], ">i4"), np.array([[1]], object), np.array([[1 << 63]], np.uint64), np.full((1, 2), np.nan),
])  # fmt: skip
def test_what_are_no_tokens_is_refused_in_one_line(tokens):
    with pytest.raises(ValueError, match="^tokens: ") as raised:
        MODEL(tokens)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["native", "tinygrad"])
def test_a_model_is_not_captured_as_its_ids_could_not_be_checked(kind):
    model = tiny.model(kind=kind)
    captured = TinyJit(lambda tokens: model(tokens).realize())
    tokens = Tensor(ids(1, 5), device="CPU").realize()
    captured(tokens)
    with pytest.raises(ValueError, match="tokens: their values are not known while TinyJit captures"):
        captured(tokens)
    assert np.isfinite(model(ids(1, 5)).numpy()).all()


@pytest.mark.parametrize("targets", [ids(2, 5, last=V), ids(2, 5, last=1 << 30), ids(2, 4), ids(2, 5, dtype=np.int64)])
def test_targets_that_the_model_has_not_are_refused(targets):
    tokens = ids(2, 5)
    with pytest.raises(ValueError, match="^targets: "):
        Trainer(MODEL, AdamW()).step([(tokens, targets)], 0.01)
    with pytest.raises(ValueError, match="^targets: "):
        MODEL.token_logprobs(Tensor(tokens, device="CPU"), Tensor(targets, device="CPU"))


@pytest.mark.parametrize("positions", [ids(2, 1, last=S), ids(2, 1, last=-1), ids(1, 1), ids(2, 1, dtype=np.int64)])
def test_positions_that_the_model_has_not_are_refused(positions):
    with pytest.raises(ValueError, match="^positions: "):
        MODEL.embedding(Tensor(ids(2, 1), device="CPU"), Tensor(positions, device="CPU"))


def test_activations_of_another_width_or_length_are_refused():
    for shape in ((1, 5, tiny.CONFIG.d_model + 1), (1, S + 1, tiny.CONFIG.d_model), (5, tiny.CONFIG.d_model)):
        for way in (MODEL.hidden, MODEL.head):
            with pytest.raises(ValueError, match="^activations: have shape"):
                way(Tensor.zeros(*shape, device="CPU"))


def test_sequences_to_score_are_refused_by_their_ids_and_by_what_is_to_be_scored():
    for token in (*WRONG_IDS, (1 << 32) + 5):  # the last would be 5 in 32 bits
        with pytest.raises(ValueError, match=f"tokens: {token} is no token of the model"):
            score(MODEL, [np.array([1, 2, token])], [1])
    for first in (0, -1, 4):
        with pytest.raises(ValueError, match=f"first: is {first} in a sequence of 3 tokens"):
            score(MODEL, [np.array([1, 2, 3])], [first])
    for sequence in (np.array([1.0, 2]), np.array([True, True]), np.zeros((2, 2), int), np.array([1, 1 << 24], ">i4")):
        with pytest.raises(ValueError, match="^tokens: "):
            score(MODEL, [sequence], [1])


def test_sequences_are_told_apart_by_their_ids_whatever_their_type():
    sequences = [np.array([1, 0, 0, 0, 5], np.int8), np.array([1, 7]), np.array([1, 7], ">i2")]
    alone = [score(MODEL, [sequence.astype(np.int32)], [1])[0][0] for sequence in sequences]
    together = score(MODEL, sequences, [1, 1, 1])
    for (logprobs, _), expected in zip(together, alone):
        np.testing.assert_array_equal(logprobs, expected)


@pytest.mark.parametrize(("prompts", "limit"), [
    ([[1, 2.5]], 3), ([["a"]], 3), ([None], 3), ([1, 2], 3), ([np.zeros((2, 2), int)], 3), (["ab"], 3),
    ([[1]], -1), ([[1]], 2.0), ([[1]], None), ([[1]], [1, 2]), ([[1], [2]], [3]), ([[1]], ["a"]),
])  # fmt: skip
def test_what_are_no_prompts_or_numbers_of_tokens_is_refused_in_one_line(prompts, limit):
    with pytest.raises(ValueError, match="^(prompt|max_new_tokens): is ") as raised:
        Generator(MODEL).generate(prompts, limit)
    assert "\n" not in str(raised.value)


def test_a_decoder_refuses_rows_lengths_and_ids_that_it_has_not():
    for rows, length in ((0, 5), (1, 0), (1, -3), (1, S + 1)):
        with pytest.raises(ValueError, match=f"decoder: {rows} rows of {length} tokens"):
            Decoder(MODEL, rows, length)
    decoder = Decoder(MODEL, 2, 8)
    for token in WRONG_IDS:
        with pytest.raises(ValueError, match=f"tokens: {token} is no token of the model"):
            decoder.step(np.array([1, token]))
        with pytest.raises(ValueError, match=f"tokens: {token} is no token of the model"):
            decoder.start(slice(0, 1), [1, token])
    for tokens in ([1], [1, 2, 3], [[1, 2]], [1.0, 2.0], [True, False]):
        with pytest.raises(ValueError, match="^tokens: "):
            decoder.step(tokens)
    for rows, tokens in ((slice(0, 3), [1]), (slice(2, 2), [1]), (slice(0, 1), [1] * 8)):
        with pytest.raises(ValueError, match="it has 2 rows for up to 7 and a new one"):
            decoder.start(rows, tokens)


def test_parameters_that_the_configuration_does_not_describe_are_refused():
    params = tiny.rough_parameters()
    for wrong in (params | {"lm_head.weight": np.zeros((V, 24), np.float32)},
                  params | {"transformer.wpe.weight": np.zeros((S - 1, 24), np.float32)}):  # fmt: skip
        with pytest.raises(ValueError, match="^params: (lm_head|transformer.wpe).weight: is not of the shape"):
            GPT(tiny.CONFIG, wrong, tiny.operations("native"), "CPU")


def test_a_size_that_a_kernel_cannot_count_never_reaches_it():
    out = Tensor.empty(1, device="CPU")
    for size in (-1, 1 << 31, 1 << 62):
        with pytest.raises(ValueError, match="add_layer_norm: a size is not from 0 to 2,147,483,647"):
            call.native_call("add_layer_norm", [out], [out], [1, size, 0])


@pytest.mark.parametrize("n", [-1, 1 << 40])  # the latter is more than any machine has addresses for
def test_a_kernel_that_gets_no_memory_to_work_in_says_so_and_the_next_one_works(n):
    library = call.library()
    one = np.zeros(1, np.float32)
    bufs, dims = (np.array([one.ctypes.data] * 9, np.uint64), np.array([16, n, 0], np.int64))
    with call.one_kernel:
        library.add_layer_norm_bwd(*(array.ctypes.data_as(call.ctypes.c_void_p) for array in (bufs, dims, one)))
    with pytest.raises(UserError, match="kernels: memory: there is not enough for what a kernel works in"):
        call.check_memory()
    call.check_memory()
    assert np.isfinite(MODEL(ids(1, 5)).numpy()).all()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--batch-size", "9" * 12], "bench: --batch-size: must be a whole number above 0, not '999999999999'; "),
    (["--n-layer", "100000000"], "bench: the model's weights take "),
    (["--seq-len", "900000000"], "bench: the model's weights take "),
    *((["--burst-s", seconds], f"bench: --burst-s: must be from 0 to below 100,000, not {float(seconds)}; ")
      for seconds in ("-1", "nan", "inf")),
    (["--bursts", "--batch-size", "1"], "bench: --bursts: standard input has no line `run`; "),
])  # fmt: skip
def test_absurd_arguments_of_a_benchmark_are_refused_in_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(Path(__file__).parent.parent)
    monkeypatch.setattr("sys.stdin", [])
    assert main(["bench", "pretrain", "--model", "gpt-0.1m", *arguments, "--threads", str(tiny.THREADS)]) == 1
    problem = capsys.readouterr().err
    assert problem.startswith(message) and problem.count("\n") == 1
