"""Inference on a wafer that holds all weights, on a square mesh of cores.

Decoding one sequence is bound by latency: per layer a constant number of cycles, some for every core along the side
(reductions take hops), and little for the weights and cached values that each core holds, so more cores are slower.
Prefill: hops, and FLOPs over all cores. Form and rows: WaferLLM, OSDI 2025 (arXiv 2502.04563), tables 3 and 4, WSE-2.
"""

import math
from collections.abc import Callable

from cgpt.cost.shapes import Shape
from cgpt.cost.step import Step, outside
from cgpt.cost.wafer_training import BYTES, wafer_of
from cgpt.hardware import Hardware, Wafer


def decode(shape: Shape, hardware: Hardware, context: int, grid: int | None = None, systems: int = 1) -> Step:
    """One token of one sequence that has `context` tokens cached, on `grid` x `grid` cores.

    Without `grid`: the side that takes the least time, among those that decoding was measured on. Several `systems`
    hold some layers each and take turns.
    """
    wafer = wafer_of(hardware)
    side = grid or _best(wafer, wafer.decode_grid, lambda p: sum(_decode_cycles(shape, wafer, context, p)))
    constant, hops, elements = _decode_cycles(shape, wafer, context, side)
    seconds = shape.n_layer / wafer.clock_hz
    parts = {"pass_latency": constant * seconds, "hops": hops * seconds, "compute": elements * seconds}
    return _step(shape, hardware, systems, side, wafer.decode_grid, 1, context, parts)


def prefill(shape: Shape, hardware: Hardware, grid: int | None = None, systems: int = 1) -> Step:
    """A prompt of `shape.seq_len` tokens of one sequence; `grid` and `systems` as for `decode`."""
    wafer = wafer_of(hardware)
    side = grid or _best(wafer, wafer.prefill_grid, lambda p: sum(_prefill_cycles(shape, wafer, p)))
    hops, compute = _prefill_cycles(shape, wafer, side)
    seconds, tokens = shape.n_layer / wafer.clock_hz, shape.seq_len
    parts = {"hops": hops * seconds, "compute": compute * seconds}
    return _step(shape, hardware, systems, side, wafer.prefill_grid, tokens, tokens, parts)


def _decode_cycles(shape: Shape, wafer: Wafer, context: int, side: int) -> tuple[float, float, float]:
    """Cycles of one layer: constant, hops, work on what each core holds."""
    held = (shape.layer_weights + shape.cached_values(context)) / side**2
    return wafer.decode_cycles_per_layer, wafer.decode_cycles_per_hop * side, wafer.decode_cycles_per_element * held


def _prefill_cycles(shape: Shape, wafer: Wafer, side: int) -> tuple[float, float]:
    """Cycles of one layer: hops, work."""
    flops = 2.0 * shape.layer_weights * shape.seq_len + shape.attention_flops(shape.seq_len)
    return wafer.prefill_cycles_per_hop * side, wafer.prefill_cycles_per_flop * flops / side**2


def _best(wafer: Wafer, measured: tuple[int, ...], cycles: Callable[[int], float]) -> int:
    low, high = measured or (1, wafer.mesh_side)
    return min(range(low, high + 1), key=cycles)


def _step(shape: Shape, hardware: Hardware, systems: int, side: int, measured: tuple[int, ...], tokens: int,
          context: int, parts: dict[str, float]) -> Step:  # fmt: skip
    width = BYTES[wafer_of(hardware).precision]
    weights = width * shape.n_parameters
    cache = width * shape.n_layer * shape.cached_values(context)
    held = (hardware.memory_bytes or 0) * systems
    layer = width * (shape.layer_weights + shape.cached_values(context))
    square = side**2 * wafer_of(hardware).sram_bytes_per_core
    problem = None
    if layer > square:
        problem = f"a layer takes {layer / 1e9:.2f} GB, and {side} x {side} cores hold {square / 1e9:.2f}"
    elif weights + cache > held:
        problem = (f"weights and cache take {(weights + cache) / 1e9:.1f} GB, and the SRAM of {systems} has "
                   f"{held / 1e9:.0f}; take at least {math.ceil((weights + cache) * systems / held)}")  # fmt: skip
    other_width = outside(wafer_of(hardware).inference_d_model, shape.d_model)
    return Step(
        samples=1, tokens=tokens, model_flops=shape.forward_flops(tokens, context), parts_s=parts,
        bound_by=max(parts, key=lambda part: parts[part]),
        extrapolated=systems > 1 or other_width or outside(measured, side),
        memory_bytes={"sram": hardware.memory_bytes or 0, "weights": weights / systems, "cache": cache / systems},
        layout={"grid": side}, problem=problem,
    )  # fmt: skip
