"""GPUs: a roofline with a measured efficiency curve; data, tensor and pipeline parallel over several.

Training FLOPs go at `matmul_efficiency` d / (d + half_width) of the dense peak, attention at its own share; the state
is sharded over data-parallel GPUs (fully sharded data parallel, as in the rows that the constants are fitted on), and
its traffic hides behind compute until it exceeds it, and so do the launches of kernels, which a small model waits for.
Decoding reads all weights for each token: bandwidth and latency.
"""

import math
from dataclasses import dataclass

from cgpt.cost.shapes import Shape
from cgpt.cost.step import Step, outside, training_extrapolated
from cgpt.hardware import Gpu, Hardware

STATE_BYTES_PER_WEIGHT = 16  # 32-bit weight and two Adam moments, 16-bit copy and gradient
ACTIVATION_BYTES = 34  # per token, layer and d_model without recomputation (Korthikanti et al. 2022, section 4.1)
LOGIT_BYTES = 6  # per token and vocabulary entry: 32-bit logits, 16-bit gradient
PASSES = 3  # of a layer in training: forward, and backward counted as two
ALL_REDUCES = 2  # of one layer forward, tensor parallel: after attention and after the feed-forward layer
USABLE_MEMORY = 0.9  # the rest is the framework's and fragmentation


@dataclass(frozen=True)
class Layout:
    """How `data` x `tensor` x `pipeline` GPUs share the work, `micro_batch` sequences at a time in each replica."""

    data: int
    tensor: int
    pipeline: int
    micro_batch: int
    recompute: bool


def training_step(shape: Shape, hardware: Hardware, batch_per_system: float, systems: int, *,
                  layout: Layout | None = None) -> Step:  # fmt: skip
    """One step of `batch_per_system` sequences a GPU on `systems` GPUs, in the fastest layout that the memory holds.

    `layout` fixes one instead, without asking whether the memory holds it.
    """
    batch = batch_per_system * systems
    extrapolated = training_extrapolated(hardware, shape.d_model, systems)
    layouts = [layout] if layout else _layouts_in_memory(shape, hardware, batch, systems)
    tokens = batch * shape.seq_len
    if not layouts:
        least = _state_bytes(shape) / USABLE_MEMORY / (hardware.memory_bytes or math.inf)
        return Step(
            batch, tokens, shape.training_flops_per_token * tokens, {}, None, extrapolated,
            {"memory": hardware.memory_bytes or 0, "weights_and_optimizer": _state_bytes(shape) / systems},
            problem=f"weights and optimizer state of {_state_bytes(shape) / 1e9:.0f} GB and activations take more than "
            f"{systems} of this GPU; take at least {max(systems + 1, math.ceil(least))}",
        )  # fmt: skip
    fastest = min(layouts, key=lambda one: sum(_parts(shape, hardware, batch, one).values()))
    parts = _parts(shape, hardware, batch, fastest)
    return Step(
        batch, tokens, shape.training_flops_per_token * tokens, parts, _bound(parts),
        extrapolated=extrapolated or fastest.tensor * fastest.pipeline > 1,
        memory_bytes={"memory": hardware.memory_bytes or 0, "weights_and_optimizer": _state_bytes(shape) / systems,
                      "activations": _activation_bytes(shape, fastest)},
        layout={**vars(fastest), "micro_batches": math.ceil(batch / fastest.data / fastest.micro_batch)},
    )  # fmt: skip


def _bound(parts: dict[str, float]) -> str:
    """The part that limits: what shows beyond compute lasts longer than the compute that it covers."""
    lasting, covered_s = dict(parts), parts["compute"]
    for part in ("weights_and_gradients", "pass_latency"):
        if parts[part]:
            lasting[part] = covered_s = covered_s + parts[part]
    return max(lasting, key=lambda part: lasting[part])


def _gpu(hardware: Hardware) -> Gpu:
    assert hardware.gpu is not None
    return hardware.gpu


def _state_bytes(shape: Shape) -> float:
    """Bytes of all GPUs together; a tied matrix once, although a pipeline's first and last stage each hold a copy."""
    return STATE_BYTES_PER_WEIGHT * float(shape.n_parameters)


def _activation_bytes(shape: Shape, layout: Layout) -> float:
    """Bytes of one GPU: with recomputation each layer's input and one layer in full; logits once."""
    tokens = layout.micro_batch * shape.seq_len
    full = ACTIVATION_BYTES * shape.d_model
    layers = shape.n_layer / layout.pipeline
    kept = full + 2 * shape.d_model * layers if layout.recompute else full * layers
    in_flight = layout.pipeline  # the first stage holds the micro-batches of all stages after it
    return tokens * (kept * in_flight + LOGIT_BYTES * shape.vocab_size) / layout.tensor


def _layouts_in_memory(shape: Shape, hardware: Hardware, batch: float, systems: int) -> list[Layout]:
    """Every layout whose state and activations the memory holds, each with the largest micro-batch that it holds.

    Tensor and pipeline parallel, which no row was measured with, only where data parallel alone does not do.
    """
    gpu, layouts = _gpu(hardware), []
    for tensor in _divisors(min(gpu.node_size, systems)):
        for pipeline in _divisors(systems // tensor) if systems % tensor == 0 else ():
            data = systems // tensor // pipeline
            if data > batch or shape.n_layer % pipeline or shape.n_head % tensor:
                continue
            for recompute in (False, True):
                room = USABLE_MEMORY * (hardware.memory_bytes or 0) - _state_bytes(shape) / systems
                one = _activation_bytes(shape, Layout(data, tensor, pipeline, 1, recompute))
                micro = min(math.floor(room / one), math.ceil(batch / data / pipeline))
                if micro >= 1:
                    layouts.append(Layout(data, tensor, pipeline, micro, recompute))
    return [one for one in layouts if one.tensor * one.pipeline == 1] or layouts


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _parts(shape: Shape, hardware: Hardware, batch: float, layout: Layout) -> dict[str, float]:
    """Seconds of a step: compute; traffic, and launches, beyond it; all-reduces of tensor parallel; the pipeline's idle
    ends.

    A layer's launches take in each pass as long as was measured in decoding, where they are nearly all that takes time.
    """
    gpu = _gpu(hardware)
    systems = layout.data * layout.tensor * layout.pipeline
    tokens = batch * shape.seq_len / layout.data  # of one replica
    share = 1 / (layout.tensor * layout.pipeline)
    recompute = 1 + (gpu.recompute_cost if layout.recompute else 0.0)
    compute_s = tokens * share * recompute * _flop_seconds(shape, hardware)
    micro_batches = math.ceil(batch / layout.data / layout.micro_batch)
    between = gpu.link_bytes_per_s if systems <= gpu.node_size else gpu.network_bytes_per_s * gpu.node_size
    gathered = 3 * 2.0 * shape.n_parameters * share * (layout.data - 1) / layout.data
    traffic_s = micro_batches * gathered / between  # weights forward and backward, gradients once, a micro-batch
    ring = 2 * (layout.tensor - 1) / layout.tensor  # of all-reduces, of 16-bit values
    reduced = 2 * ALL_REDUCES * ring * 2.0 * tokens * shape.d_model
    tensor_s = reduced * shape.n_layer / layout.pipeline / gpu.link_bytes_per_s
    launches_s = micro_batches * PASSES * shape.n_layer / layout.pipeline * gpu.decode_layer_latency_s
    waiting_s = max(0.0, launches_s - max(compute_s, traffic_s))
    nodes = max(1.0, systems / gpu.node_size)
    return {
        "compute": compute_s,
        "weights_and_gradients": max(0.0, traffic_s - compute_s),
        "pass_latency": waiting_s,
        "tensor_reduction": tensor_s,
        "pipeline_bubble": (layout.pipeline - 1) / micro_batches * (compute_s + waiting_s + tensor_s),
        "reduction": gpu.loss_per_doubling * math.log2(nodes) * compute_s,
    }


def _flop_seconds(shape: Shape, hardware: Hardware) -> float:
    """Seconds of the training FLOPs of one token on one GPU."""
    gpu, peak = _gpu(hardware), hardware.peak_flops_per_s[hardware.dtype]
    efficiency = (
        gpu.matmul_efficiency * shape.d_model / (shape.d_model + gpu.half_width)
    )  # narrow matrices leave it idle
    matmul = 6.0 * shape.matmul_weights / efficiency
    return (matmul + 3 * shape.n_layer * shape.attention_flops(1) / gpu.attention_efficiency) / peak


def decode(shape: Shape, hardware: Hardware, context: int, systems: int) -> Step:
    """One token of one sequence, weights and cache split over `systems` GPUs (tensor parallel)."""
    gpu = _gpu(hardware)
    weights, cache = 2.0 * shape.matmul_weights, 2.0 * shape.n_layer * shape.cached_values(context)
    bandwidth = gpu.decode_bandwidth_efficiency * (hardware.bandwidth_bytes_per_s or 0)
    across = gpu.network_all_reduce_latency_s if systems > gpu.node_size else 0.0
    parts = {
        "memory_bandwidth": (weights + cache) / systems / bandwidth,
        "pass_latency": shape.n_layer * gpu.decode_layer_latency_s,
        "tensor_reduction": ALL_REDUCES * shape.n_layer * across,
    }
    return _inference(shape, hardware, systems, 1, context, parts)


def prefill(shape: Shape, hardware: Hardware, systems: int) -> Step:
    """A prompt of `shape.seq_len` tokens of one sequence, tensor parallel over `systems` GPUs."""
    gpu, tokens = _gpu(hardware), shape.seq_len
    parts = {
        "compute": shape.forward_flops(tokens, tokens)
        / systems
        / (gpu.prefill_efficiency * hardware.peak_flops_per_s[hardware.dtype]),
        "tensor_reduction": ALL_REDUCES * shape.n_layer * (gpu.prefill_all_reduce_s if systems > 1 else 0.0),
    }
    return _inference(shape, hardware, systems, tokens, tokens, parts)


def _inference(shape: Shape, hardware: Hardware, systems: int, tokens: int, context: int, parts: dict[str, float]
               ) -> Step:  # fmt: skip
    weights, cache = 2.0 * shape.matmul_weights, 2.0 * shape.n_layer * shape.cached_values(context)
    held = (weights + cache) / systems
    problem = None
    if held > USABLE_MEMORY * (hardware.memory_bytes or 0):
        least = math.ceil((weights + cache) / USABLE_MEMORY / (hardware.memory_bytes or math.inf))
        problem = f"weights and cache take {(weights + cache) / 1e9:.0f} GB; take at least {least} of this GPU"
    return Step(
        1, tokens, shape.forward_flops(tokens, context), parts, max(parts, key=lambda part: parts[part]),
        systems > _gpu(hardware).measured_inference_systems or outside(_gpu(hardware).inference_d_model, shape.d_model),
        {"memory": hardware.memory_bytes or 0, "weights": weights / systems, "cache": cache / systems},
        {"tensor": systems}, problem,
    )  # fmt: skip
