"""Weights in 16 or 8 bits: rounding, kernels, what refuses them, and the experiments that score them."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from tinygrad import Tensor
from tokenizers import Tokenizer

from cgpt import checkpoint
from cgpt.cost import memory
from cgpt.errors import UserError
from cgpt.inference.generate import Generator
from cgpt.kernels.rounded import Rounded, round_bfloat16, round_int8, rounded
from cgpt.model.gpt import GPT, parameter_shapes
from cgpt.recipe import flops
from cgpt.training.trainer import AdamW, Trainer

NATIVE = tiny.operations("native")
UNTIED = replace(tiny.CONFIG, tie_embeddings=False)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rounded_model(dtype: str, config=tiny.CONFIG) -> GPT:
    return GPT(config, tiny.rough_parameters(config), NATIVE, "CPU", weights_dtype=dtype)


def test_int8_has_the_scale_of_each_outputs_largest_weight_and_is_half_a_step_off_at_most():
    matrix = normal(7, 30)
    matrix[3] = 0
    values, scales = round_int8(matrix)
    assert values.dtype == np.int8 and np.abs(values.astype(int)).max(1).tolist() == [127] * 3 + [0] + [127] * 3
    np.testing.assert_allclose(scales[[0, 6]], np.abs(matrix[[0, 6]]).max(1) / 127, rtol=1e-6)
    assert (np.abs(values * scales[:, None] - matrix) <= 0.5001 * scales[:, None]).all()


def test_a_weight_and_its_negative_are_rounded_alike():
    matrix = normal(5, 40)
    np.testing.assert_array_equal(round_int8(-matrix)[0], -round_int8(matrix)[0])


def test_bfloat16_is_tinygrads_rounding_to_nearest_with_ties_to_even():
    ties = np.array([[0x3F808000, 0x3F818000, 0x3F808001, 0xBF818000]], np.uint32).view(np.float32)
    for matrix in (normal(5, 33), ties):
        expected = Tensor(matrix, device="CPU").cast("bfloat16").float().numpy()
        np.testing.assert_array_equal((round_bfloat16(matrix)[0].astype(np.uint32) << 16).view(np.float32), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize(
    ("B", "T", "n_in", "n_out"), [(1, 1, 24, 72), (7, 1, 37, 5), (2, 9, 40, 1030), (5, 20, 768, 90)]
)
def test_a_rounded_linear_layer_equals_the_twin_of_its_restored_weights(dtype, activation, B, T, n_in, n_out):
    x, b = Tensor(normal(B, T, n_in), device="CPU"), Tensor(normal(n_out, seed=2), device="CPU")
    w = rounded(normal(n_in, n_out, seed=1), dtype, True, "CPU")
    restored = Tensor(w.numpy(), device="CPU")
    mine, twin = (ops.linear(x, weights, b, activation, independent=True).numpy()
                  for ops, weights in ((NATIVE, w), (tiny.operations("tinygrad"), restored)))  # fmt: skip
    np.testing.assert_allclose(mine, twin, rtol=2e-5, atol=2e-5 * n_in**0.5)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_row_of_a_rounded_layer_has_the_same_bits_alone_and_among_others(dtype):
    x, w, b = normal(14, 1, 100), rounded(normal(100, 70, seed=1), dtype, True, "CPU"), Tensor(normal(70), device="CPU")
    together = NATIVE.linear(Tensor(x, device="CPU"), w, b, independent=True).numpy()
    alone = [NATIVE.linear(Tensor(row[None], device="CPU"), w, b, independent=True).numpy()[0] for row in x]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("config", [tiny.CONFIG, UNTIED])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_scores_logits_and_continuations_are_those_of_a_float32_model_with_the_rounded_weights(dtype, config):
    model = rounded_model(dtype, config)
    same = tiny.model(model.numpy(), config)
    tokens, targets = tiny.batch(0)
    np.testing.assert_allclose(model(tokens).numpy(), same(tokens).numpy(), atol=1e-4)
    arrays = [Tensor(tokens, device="CPU"), Tensor(targets[..., None], device="CPU")]
    (mine, greedy), (theirs, others) = ([t.numpy() for t in each.token_logprobs(*arrays)] for each in (model, same))
    np.testing.assert_allclose(mine, theirs, atol=1e-4)
    np.testing.assert_array_equal(greedy, others)
    prompts = [row[:length].tolist() for row, length in zip(tokens, (1, 5, 9))]
    assert Generator(model).generate(prompts, 8) == Generator(same).generate(prompts, 8)


@pytest.mark.parametrize("config", [tiny.CONFIG, UNTIED])
def test_the_matrices_of_products_are_rounded_and_nothing_else_is(config):
    before, after = tiny.rough_parameters(config), rounded_model("int8", config).numpy()
    assert list(after) == list(parameter_shapes(config))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert sum(before[name].size for name in changed) == flops.n_multiplied(config)
    assert all(before[name].ndim == 2 for name in changed) and "transformer.wpe.weight" not in changed


def test_a_rounded_model_keeps_a_quarter_and_a_half_of_the_bytes():
    full = sum(int(t.nbytes()) for t in rounded_model("float32").state)
    n, n_outputs = (
        flops.n_multiplied(tiny.CONFIG),
        sum(len(w.values.numpy()) for w in rounded_model("int8").rounded.values()),
    )
    for dtype, size in (("bfloat16", 2), ("int8", 1)):
        kept = sum(int(t.nbytes()) for t in rounded_model(dtype).state)
        assert kept == full - (4 - size) * n + 4 * n_outputs


def test_a_plan_expects_less_memory_of_an_evaluation_with_smaller_weights():
    needed = [memory.evaluation_bytes(tiny.CONFIG, weights_dtype=dtype) for dtype in ("float32", "bfloat16", "int8")]
    n = flops.n_multiplied(tiny.CONFIG)
    assert [needed[0] - each for each in needed] == [0, 2 * n, 3 * n]


def test_rounded_weights_are_not_trained():
    with pytest.raises(UserError, match="weights_dtype: int8 is not what is trained; write float32"):
        Trainer(rounded_model("int8"), AdamW())


def test_tinygrads_kernels_refuse_rounded_weights():
    with pytest.raises(UserError, match="weights_dtype: int8 is what native kernels alone keep; write float32"):
        GPT.on(replace(tiny.CPU, kernels="tinygrad", weights_dtype="int8"), tiny.CONFIG, tiny.rough_parameters())


def test_a_checkpoint_that_is_loaded_with_a_profile_has_its_weights_dtype(tmp_path):
    tiny.write_tokenizer(tmp_path / "words.json")
    checkpoint.save(tmp_path / "model", tiny.CONFIG, tiny.rough_parameters(), tmp_path / "words.json")
    model, _ = checkpoint.load(tmp_path / "model", replace(tiny.CPU, weights_dtype="int8"), tiny.THREADS)
    assert isinstance(model.head_weight, Rounded) and model.head_weight.dtype == "int8"


def test_opening_a_checkpoint_with_smaller_weights_asks_for_less_memory():
    needed = [memory.loading_bytes(tiny.CONFIG, dtype) for dtype in ("float32", "bfloat16", "int8")]
    n = flops.n_multiplied(tiny.CONFIG)
    assert [needed[0] - each for each in needed] == [0, 2 * n, 3 * n]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_weight_that_is_not_finite_is_refused_and_not_rounded_to_a_number(dtype, bad):
    matrix = normal(4, 5)
    matrix[2, 3] = bad
    with pytest.raises(
        UserError, match=f"^weights_dtype: a weight .* is not finite and cannot be rounded to {dtype}; "
    ):
        rounded(matrix, dtype, True, "CPU")


@pytest.mark.parametrize("config", [tiny.CONFIG, UNTIED])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_rounded_model_is_exported_with_the_weights_that_it_computes_with(tmp_path, dtype, config):
    tiny.write_tokenizer(tmp_path / "words.json")
    model = rounded_model(dtype, config)
    checkpoint.export_hf(model, Tokenizer.from_file(str(tmp_path / "words.json")), tmp_path / "exported")
    again, _ = checkpoint.import_hf(tmp_path / "exported", tiny.CPU, tiny.THREADS)
    np.testing.assert_equal(again.numpy(), model.numpy())
