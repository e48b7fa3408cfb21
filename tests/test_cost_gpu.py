"""The cost model of GPUs: rooflines, ways to share the work, memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cgpt.cost import gpu
from cgpt.cost.shapes import Shape, of_model
from cgpt.experiment.load import load_workflow

WORKFLOW = load_workflow(Path(__file__).parent.parent)
A100, H100, H200 = (WORKFLOW.hardware[name] for name in ("a100", "h100", "h200"))
GPT_1_3B, GPT_13B = (of_model(WORKFLOW.models[f"cerebras-gpt-{size}"]) for size in ("1.3b", "13b"))
LLAMA3_8B = Shape(32, 4096, 14336, 32, 8, 128256, 4096, gated=True)


def test_a_larger_batch_never_takes_less_time():
    times = [gpu.training_step(GPT_1_3B, H100, batch, 8).step_s for batch in range(1, 100)]
    assert times == sorted(times)


def test_doubling_gpus_at_fixed_batch_per_gpu_never_reduces_throughput():
    rates = [gpu.training_step(GPT_1_3B, H100, 8, n).tokens_per_s for n in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert rates == sorted(rates)


def test_strong_scaling_at_a_fixed_global_batch_falls_behind():
    rates = [gpu.training_step(GPT_1_3B, A100, 256 / n, n).tokens_per_s for n in (8, 256)]
    assert rates[1] / rates[0] < 0.95 * 256 / 8


def test_wider_models_use_a_gpu_better_up_to_the_fitted_share_of_its_peak():
    shares = []
    for width in (768, 2048, 8192, 10**6):
        shape = Shape(2, width, 4 * width, 1, 1, 0, 1)
        layout = gpu.Layout(1, 1, 1, 1, recompute=False)
        step = gpu.training_step(shape, A100, 1, 1, layout=layout)
        shares.append(step.model_flops / step.step_s / A100.peak_flops_per_s["bfloat16"])
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(A100.gpu.matmul_efficiency, rel=1e-2)


def test_a_model_that_one_gpu_does_not_hold_is_refused_or_shared():
    alone = gpu.training_step(GPT_13B, A100, 1, 1)
    assert alone.step_s is None and "take at least 3" in (alone.problem or "")
    shared = gpu.training_step(GPT_13B, A100, 2, 8)
    assert shared.problem is None
    held = shared.memory_bytes["weights_and_optimizer"] + shared.memory_bytes["activations"]
    assert held <= A100.memory_bytes


def test_fewer_sequences_than_gpus_take_tensor_or_pipeline_parallel_and_say_that_it_is_extrapolated():
    step = gpu.training_step(GPT_13B, A100, 0.25, 8)
    assert step.layout["data"] <= 2
    assert step.layout["tensor"] * step.layout["pipeline"] >= 4
    assert step.extrapolated


def test_tensor_parallel_adds_all_reduces_and_pipelines_idle_ends():
    def parts(data: int, tensor: int, pipeline: int) -> dict[str, float]:
        layout = gpu.Layout(data, tensor, pipeline, 1, recompute=False)
        return gpu.training_step(GPT_13B, A100, 2, 8, layout=layout).parts_s

    plain, tensor, pipeline = parts(8, 1, 1), parts(1, 8, 1), parts(1, 1, 8)
    assert plain["compute"] == pytest.approx(tensor["compute"]) == pytest.approx(pipeline["compute"])
    # eight all-reduces' worth of halves: 4 a layer, each 2 (n - 1) / n of tokens x d_model in 16 bits, at 300 GB/s
    assert tensor["tensor_reduction"] == pytest.approx(40 * 4 * 2 * 7 / 8 * 16 * 2048 * 5120 * 2 / 3e11)
    assert pipeline["pipeline_bubble"] == pytest.approx(7 / 16 * pipeline["compute"])


def test_traffic_of_the_sharded_state_shows_only_beyond_compute():
    slow = replace(A100, gpu=replace(A100.gpu, link_bytes_per_s=1e9))
    assert gpu.training_step(GPT_1_3B, A100, 8, 8).parts_s["weights_and_gradients"] == 0
    sharded = gpu.Layout(8, 1, 1, 8, recompute=False)
    assert gpu.training_step(GPT_1_3B, slow, 8, 8, layout=sharded).bound_by == "weights_and_gradients"


def test_a_step_never_takes_less_than_the_launches_of_its_kernels():
    """Three passes a layer (one forward, two backward) of 92.11 us each, which is what SGLang's decoding shows."""
    tiny = Shape(2, 64, 256, 2, 2, 512, 128)
    for hardware in (A100, H100):
        step = gpu.training_step(tiny, hardware, 16, 1)
        assert step.step_s == pytest.approx(3 * 2 * 9.211e-05) and step.bound_by == "pass_latency"
        large = gpu.training_step(GPT_1_3B, hardware, 8, 8)
        assert large.parts_s["pass_latency"] == 0 and large.bound_by == "compute"


def test_what_launches_take_beyond_compute_is_less_the_more_there_is_to_compute():
    tiny = Shape(2, 256, 1024, 2, 2, 512, 128)
    steps = [gpu.training_step(tiny, A100, batch, 1) for batch in (1, 16, 64, 4096)]
    waiting = [step.parts_s["pass_latency"] for step in steps]
    assert waiting == sorted(waiting, reverse=True) and waiting[0] > 0 == waiting[-1]
    assert [step.bound_by for step in steps] == ["pass_latency", "pass_latency", "compute", "compute"]


def test_decoding_on_one_gpu_is_bound_by_memory_bandwidth():
    step = gpu.decode(LLAMA3_8B, A100, 4096, 1)
    assert step.bound_by == "memory_bandwidth"
    read = 2 * (LLAMA3_8B.matmul_weights + 32 * LLAMA3_8B.cached_values(4096))
    assert step.step_s > read / A100.bandwidth_bytes_per_s
    assert gpu.decode(LLAMA3_8B, A100, 4096, 64).bound_by != "memory_bandwidth"


def test_what_no_row_was_measured_on_is_extrapolation():
    assert not gpu.training_step(GPT_1_3B, H100, 8, 64).extrapolated
    assert gpu.training_step(GPT_1_3B, H100, 8, 128).extrapolated
    assert gpu.training_step(GPT_1_3B, H200, 8, 1).extrapolated
    for width, hardware, expected in ((512, A100, True), (768, A100, False), (768, H100, True), (16384, A100, True)):
        shape = Shape(2, width, 4 * width, 8, 8, 50257, 2048)
        assert gpu.training_step(shape, hardware, 1, 8).extrapolated is expected
    assert gpu.decode(LLAMA3_8B, H100, 4096, 1).extrapolated
    assert not gpu.decode(LLAMA3_8B, A100, 4096, 1).extrapolated
