"""The cost model of wafers behaves as physics demands, and reaches the limits that its equations have."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from cgpt.cost import wafer_inference, wafer_training
from cgpt.cost.shapes import Shape, of_model
from cgpt.experiment.load import load_workflow

WORKFLOW = load_workflow(Path(__file__).parent.parent)
CS2, CS3 = WORKFLOW.hardware["cs2"], WORKFLOW.hardware["cs3"]
GPT_6_7B = of_model(WORKFLOW.models["cerebras-gpt-6.7b"])
LLAMA3_8B = Shape(32, 4096, 14336, 32, 8, 128256, 4096, gated=True)


def seconds(shape: Shape, hardware=CS2, batch: float = 60, systems: int = 1, **other: float) -> float:
    return sum(wafer_training.training_step(shape, hardware, batch, systems, **other).parts_s.values())


def with_wafer(hardware=CS2, **constants):
    return replace(hardware, wafer=replace(hardware.wafer, **constants))


def test_weights_and_flops_are_those_of_the_parameter_formula():
    """12 L d^2 + V d, and 6 N + 12 L S d, written out for 6.7B (PaLM, appendix B)."""
    assert GPT_6_7B.matmul_weights == 12 * 32 * 4096**2 + 50257 * 4096
    assert GPT_6_7B.training_flops_per_token == 6 * GPT_6_7B.matmul_weights + 12 * 32 * 2048 * 4096
    assert Shape(32, 4096, 11008, 32, 32, 32000, 2048, gated=True).matmul_weights == 6_607_077_376
    assert LLAMA3_8B.matmul_weights + LLAMA3_8B.head_weights == pytest.approx(8.03e9, rel=1e-3)


@pytest.mark.parametrize("larger", [{"n_layer": 40}, {"d_model": 5120}, {"d_ffn": 20480}, {"vocab_size": 100_000},
                                    {"seq_len": 4096}, {"gated": True}])  # fmt: skip
def test_more_work_takes_more_time(larger):
    assert seconds(replace(GPT_6_7B, **larger)) > seconds(GPT_6_7B)


def test_a_larger_batch_never_takes_less_time():
    for hardware in (CS2, CS3):
        times = [seconds(GPT_6_7B, hardware, batch) for batch in range(1, 700)]
        assert times == sorted(times)


def test_more_systems_at_fixed_batch_per_system_never_reduce_throughput():
    rates = [wafer_training.training_step(GPT_6_7B, CS2, 60, n).tokens_per_s for n in range(1, 193)]
    assert rates == sorted(rates)


def test_sixteen_systems_are_15_3_times_as_fast_as_one():
    one, sixteen = (wafer_training.training_step(GPT_6_7B, CS3, 60, n).tokens_per_s for n in (1, 16))
    assert sixteen / one == pytest.approx(15.3, rel=1e-3)  # row C01


def test_strong_scaling_at_a_fixed_global_batch_saturates():
    times = [seconds(GPT_6_7B, CS2, 128 / n, n) for n in (1, 2, 4, 8, 16, 32, 64, 128)]
    gains = [before / after for before, after in pairwise(times)]
    assert gains[0] > 1.9
    assert gains[-1] < 1.2
    assert gains == sorted(gains, reverse=True)
    latency_s = 2 * 33 * CS2.wafer.pass_latency_s  # a head beside 32 layers, forward and backward
    assert times[-1] > latency_s


def test_parts_add_up_and_nothing_is_faster_than_the_peak():
    for batch in (1, 16, 66, 700):
        step = wafer_training.training_step(GPT_6_7B, CS2, batch, 4)
        assert sum(step.parts_s.values()) == pytest.approx(step.step_s)
        assert 0 < step.model_flops / step.step_s / 4 < CS2.peak_flops_per_s["float16"]


def test_large_batches_are_bound_by_compute_and_single_sequences_by_the_stream_of_weights():
    assert wafer_training.training_step(GPT_6_7B, CS2, 60, 1).bound_by == "compute"
    no_latency = with_wafer(pass_latency_s=1e-9)
    one = wafer_training.training_step(GPT_6_7B, no_latency, 1, 1)
    assert one.bound_by == "weights_in"
    layers_s = 2 * 2 * GPT_6_7B.matmul_weights / 1.5e11  # two bytes a weight, forward and backward, all else hidden
    assert one.step_s == pytest.approx(layers_s, rel=0.02)


def test_small_models_are_bound_by_the_latency_of_passes():
    small = of_model(WORKFLOW.models["cerebras-gpt-111m"])
    step = wafer_training.training_step(small, CS2, 1, 1)
    assert step.bound_by == "pass_latency"
    assert step.step_s == pytest.approx(2 * 11 * CS2.wafer.pass_latency_s, rel=0.2)


def test_break_even_tokens_are_the_compute_rate_over_the_io_rate():
    """A layer's forward takes as long to compute as to stream at R / BW tokens: 2 FLOPs against 2 bytes a weight."""
    peak = CS2.peak_flops_per_s["float16"] * CS2.wafer.matmul_efficiency
    shape = replace(GPT_6_7B, seq_len=1, vocab_size=0)
    hardware = with_wafer(attention_efficiency=1.0, pass_latency_s=1e-12)
    below, above = (wafer_training.training_step(shape, hardware, factor * peak / 1.5e11, 1) for factor in (0.9, 1.1))
    assert below.parts_s["weights_in"] > 0
    assert above.parts_s["weights_in"] == 0


def test_zero_weights_are_neither_sent_nor_multiplied():
    dense, sparse = seconds(GPT_6_7B), seconds(GPT_6_7B, sparsity=0.75)
    attention_s = 3 * 32 * GPT_6_7B.attention_flops(60 * 2048) / 7.5e15 / CS2.wafer.attention_efficiency
    latency_s = 2 * 33 * CS2.wafer.pass_latency_s
    assert sparse - attention_s - latency_s == pytest.approx((dense - attention_s - latency_s) / 4)


def test_published_batches_of_cerebras_gpt_run_as_one_micro_batch():
    """Row C06 and C05: sequences a CS-2 in the configurations that Cerebras trained with."""
    published = {"111m": 120, "256m": 264, "590m": 264, "1.3b": 132, "2.7b": 132, "6.7b": 65, "13b": 90}
    for size, batch in published.items():
        step = wafer_training.training_step(of_model(WORKFLOW.models[f"cerebras-gpt-{size}"]), CS2, batch, 1)
        assert step.problem is None
        assert step.layout["micro_batches"] == 1, size


def test_micro_batches_and_spilled_activations_appear_when_the_wafer_is_full():
    small, full = (wafer_training.training_step(GPT_6_7B, CS2, batch, 1) for batch in (16, 1000))
    assert small.layout["micro_batches"] == 1 and small.memory_bytes["spilled_activations"] == 0
    assert full.layout["micro_batches"] > 1 and full.memory_bytes["spilled_activations"] > 0
    held = full.memory_bytes["weight_stripes"] + full.memory_bytes["working_set"]
    kept = full.memory_bytes["activation_checkpoints"] - full.memory_bytes["spilled_activations"]
    assert held + kept <= CS2.memory_bytes * (1 + 1e-9)


def test_spilling_costs_time_when_it_is_slower_than_compute():
    """On a CS-2 it hides behind the compute of a 6.7B model; a narrow one shows it where micro-batches cost more."""
    full = wafer_training.training_step(GPT_6_7B, CS2, 140, 1)
    assert full.memory_bytes["spilled_activations"] > 0 and full.parts_s["activation_spill"] == 0
    slow = with_wafer(replace(CS2, memory_bytes=5_000_000_000), io_bytes_per_s=5e8, pass_latency_s=10)
    narrow = wafer_training.training_step(Shape(200, 256, 256, 4, 4, 0, 2048), slow, 200, 1)
    assert narrow.parts_s["activation_spill"] > 0


SLOW = with_wafer(replace(CS2, memory_bytes=5_000_000_000), io_bytes_per_s=5e8, pass_latency_s=0.01)


@pytest.mark.parametrize("batch", [1, 7.5, 140, 1000, 7919])
@pytest.mark.parametrize(("shape", "hardware"), [(GPT_6_7B, CS2), (GPT_6_7B, CS3), (LLAMA3_8B, SLOW),
                                                 (Shape(200, 256, 256, 4, 4, 0, 2048), SLOW)])  # fmt: skip
def test_the_number_of_micro_batches_is_the_one_that_trying_all_finds(shape, hardware, batch):
    step = wafer_training.training_step(shape, hardware, batch, 1)
    fewest = max(1, math.ceil(batch / wafer_training.largest_micro_batch(shape, hardware)))

    def of(count: int) -> float:
        return count * sum(wafer_training._parts(shape, hardware, batch / count, 0.0, 1.0)[0].values())

    assert step.layout["micro_batches"] == min(range(fewest, math.ceil(batch) + fewest), key=of)


def test_a_batch_of_billions_of_sequences_is_answered_from_few_micro_batches(monkeypatch):
    tried, parts = [], wafer_training._parts
    monkeypatch.setattr(wafer_training, "_parts", lambda *arguments: tried.append(1) or parts(*arguments))
    assert wafer_training.training_step(GPT_6_7B, SLOW, 3e9, 1).layout["micro_batches"] > 1e6
    assert len(tried) < 100


def test_what_does_not_fit_is_named():
    huge = Shape(80, 100_000, 400_000, 100, 100, 50257, 2048)
    assert "SRAM" in (wafer_training.training_step(huge, CS2, 1, 1).problem or "")
    trillion = Shape(5000, 25_000, 100_000, 100, 100, 50257, 128)
    assert "host side" in (wafer_training.training_step(trillion, WORKFLOW.hardware["cs3-16"], 1, 1).problem or "")


def test_beyond_two_systems_is_extrapolation():
    assert [wafer_training.training_step(GPT_6_7B, CS2, 60, n).extrapolated for n in (1, 2, 3)] == [False, False, True]


def test_a_width_that_no_rate_is_public_of_is_extrapolation():
    def extrapolated(width: int, hardware=CS2) -> bool:
        return wafer_training.training_step(Shape(12, width, 4 * width, 4, 4, 50257, 2048), hardware, 1, 1).extrapolated

    assert [extrapolated(width) for width in (764, 768, 2048, 4096, 5120)] == [True, False, False, False, True]
    assert extrapolated(2048, CS3) and not extrapolated(4096, CS3)


def test_decoding_is_slower_on_more_cores_and_bound_by_latency():
    times = [sum(wafer_inference.decode(LLAMA3_8B, CS2, 4096, side).parts_s.values()) for side in (420, 540, 660)]
    assert times == sorted(times)
    assert wafer_inference.decode(LLAMA3_8B, CS2, 4096, 540).bound_by == "hops"
    assert wafer_inference.decode(LLAMA3_8B, CS2, 4096).layout["grid"] == 420


def test_prefill_is_compute_bound_on_few_cores_and_bound_by_hops_on_many():
    assert wafer_inference.prefill(LLAMA3_8B, CS2, 480).bound_by == "compute"
    assert wafer_inference.prefill(LLAMA3_8B, CS2, 750).bound_by == "hops"


def test_a_longer_context_or_prompt_never_takes_less_time():
    decode = [sum(wafer_inference.decode(LLAMA3_8B, CS2, n, 540).parts_s.values()) for n in (1, 100, 4096, 32768)]
    prompt = [
        sum(wafer_inference.prefill(replace(LLAMA3_8B, seq_len=n), CS2, 600).parts_s.values()) for n in (1, 100, 4096)
    ]
    assert decode == sorted(decode) and prompt == sorted(prompt)


def test_inference_that_does_not_fit_the_wafer_says_how_many_it_needs():
    llama_70b = Shape(80, 8192, 28672, 64, 8, 128256, 4096, gated=True)
    assert "take at least 4" in (wafer_inference.decode(llama_70b, CS2, 4096, 540).problem or "")
    assert wafer_inference.decode(llama_70b, CS2, 4096, 540, 4).problem is None
    assert "cores hold" in (wafer_inference.decode(LLAMA3_8B, CS2, 4096, 50).problem or "")
