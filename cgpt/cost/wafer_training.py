"""Training on wafer-scale engines by weight streaming.

A layer at a time, its weights come in from the machines that hold them (MemoryX), forward and again backward, while
gradients go out; activations stay on the wafer. Weights are broadcast to all systems and gradients reduced on the way,
so neither grows with the number of systems. A tied matrix is sent as the head's alone, once forward and once backward,
and its gradient, with what the embedding adds, comes out once; rows of the embedding are looked up on the side of the
tokens, and count as no layer's traffic. Equations: sum over layer passes of max(compute, traffic in, traffic out)
plus a latency a pass (Cerebras, Hot Chips 34; fitted to the rows of results/reference/accelerator_measurements.csv).
"""

import math
from collections.abc import Callable

from cgpt.cost.shapes import Shape
from cgpt.cost.step import Step, training_extrapolated
from cgpt.hardware import Hardware, Wafer

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
STATE_BYTES_PER_WEIGHT = 12  # a weight and two Adam moments in 32 bits, beside the streamed copy and its gradient
PARTS = ("compute", "weights_in", "gradients_out", "pass_latency", "reduction", "activation_spill")


def training_step(shape: Shape, hardware: Hardware, batch_per_system: float, systems: int, *,
                  sparsity: float = 0.0, slowdown: float = 1.0) -> Step:  # fmt: skip
    """One training step of `batch_per_system` sequences on each of `systems` wafers.

    `sparsity` is the share of zero weights, which are neither sent nor multiplied. `slowdown` divides the compute rate
    (older software). Micro-batches are the number, among those whose working set is held, that takes the least time.
    """
    memory = _memory(shape, hardware, sparsity)
    largest = largest_micro_batch(shape, hardware, sparsity)
    least = max(1, math.ceil(batch_per_system / largest)) if largest >= 1 else 1
    per_sequence = memory["working"] + memory["checkpoints"]
    without_spill = math.ceil(batch_per_system * per_sequence / memory["free"]) if largest >= 1 else 1

    def seconds(count: int) -> float:
        return count * sum(_parts(shape, hardware, batch_per_system / count, sparsity, slowdown)[0].values())

    count = _least_of_convex(seconds, least, max(least, without_spill))
    parts, bounds = _parts(shape, hardware, batch_per_system / count, sparsity, slowdown)
    wafer = wafer_of(hardware)
    one = sum(parts.values()) * count
    reduction = wafer.reduction_loss_per_doubling * math.log2(systems) * one
    micro = batch_per_system / count
    bounds = {bound: seconds * count for bound, seconds in bounds.items()} | {"reduction": reduction}
    tokens = batch_per_system * shape.seq_len * systems
    return Step(
        samples=batch_per_system * systems, tokens=tokens, model_flops=shape.training_flops_per_token * tokens,
        parts_s={part: parts[part] * count for part in PARTS if part in parts} | {"reduction": reduction},
        bound_by=max(bounds, key=lambda bound: bounds[bound]),
        extrapolated=training_extrapolated(hardware, shape.d_model, systems),
        memory_bytes={
            "sram": hardware.memory_bytes or 0, "weight_stripes": memory["stripes"],
            "working_set": micro * memory["working"], "activation_checkpoints": micro * memory["checkpoints"],
            "spilled_activations": _spilled_bytes(memory, micro), "host_weights_and_optimizer": memory["host"],
        },
        layout={"micro_batches": count},
        problem=_problem(hardware, memory, largest),
    )  # fmt: skip


def _least_of_convex(f: Callable[[int], float], low: int, high: int) -> int:
    """Where `f` is least from `low` to `high`, by bisecting its slope.

    The seconds of a step are convex in the number n of micro-batches of B / n sequences: those of one micro-batch are
    sums of maxima of lines in its size, g, and n g(B / n) is convex where g is.
    """
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if f(middle) <= f(middle + 1) else (middle + 1, high)
    return low


def largest_micro_batch(shape: Shape, hardware: Hardware, sparsity: float = 0.0) -> int:
    """Sequences whose working set in one layer is held beside two layers' weights; 0 where not even one does."""
    memory = _memory(shape, hardware, sparsity)
    return max(0, math.floor(memory["free"] / memory["working"]))


def wafer_of(hardware: Hardware) -> Wafer:
    """The wafer of a profile that has one."""
    assert hardware.wafer is not None
    return hardware.wafer


def _memory(shape: Shape, hardware: Hardware, sparsity: float) -> dict[str, float]:
    """Bytes: of a sequence's working set in one layer and its checkpoints of all; what the wafer has left for them."""
    width = BYTES[wafer_of(hardware).precision]
    stripes = 2 * width * (1 - sparsity) * shape.layer_weights  # double-buffered
    return {
        "stripes": stripes,
        "free": (hardware.memory_bytes or 0) - stripes,
        "working": shape.seq_len * shape.kept_bytes_per_token(width),
        "checkpoints": shape.seq_len * shape.n_layer * width * shape.d_model,  # each layer's input
        "host": shape.n_parameters * (STATE_BYTES_PER_WEIGHT + 2 * width),
    }


def _spilled_bytes(memory: dict[str, float], micro: float) -> float:
    """Checkpoints that the SRAM has no room for beside the working set."""
    return max(0.0, micro * memory["checkpoints"] - max(0.0, memory["free"] - micro * memory["working"]))


def _problem(hardware: Hardware, memory: dict[str, float], largest: int) -> str | None:
    if largest < 1:
        return (f"two layers' weights and one sequence take {(memory['stripes'] + memory['working']) / 1e9:.1f} GB of "
                f"SRAM, and the wafer has {(hardware.memory_bytes or 0) / 1e9:.0f}")  # fmt: skip
    held = wafer_of(hardware).host_memory_bytes
    if held is not None and memory["host"] > held:
        return f"weights and optimizer state take {memory['host'] / 1e12:.2f} TB, and the host side has {held / 1e12:g}"
    return None


def _parts(shape: Shape, hardware: Hardware, micro: float, sparsity: float, slowdown: float
           ) -> tuple[dict[str, float], dict[str, float]]:  # fmt: skip
    """Seconds of one micro-batch: by part (what traffic adds beyond compute), and by what bound each pass.

    Passes: each layer forward and backward, and the head. Layers stream in what the wafer needs and spill out what it
    cannot hold, forward; backward they stream weights and spilled checkpoints in, and gradients out (full duplex).
    """
    wafer = wafer_of(hardware)
    width = BYTES[wafer.precision]
    memory = _memory(shape, hardware, sparsity)
    spilled_s = _spilled_bytes(memory, micro) / shape.n_layer / wafer.io_bytes_per_s
    parts = dict.fromkeys(PARTS, 0.0)
    bounds = dict.fromkeys(PARTS, 0.0)
    for count, weights, attention, spill_s in (
        (shape.n_layer, shape.layer_weights, shape.attention_flops(1), spilled_s),
        (1 if shape.head_weights else 0, shape.head_weights, 0.0, 0.0),
    ):
        forward_s = _compute_s(hardware, weights, attention, micro * shape.seq_len, sparsity) * slowdown
        weights_s = weights * (1 - sparsity) * width / wafer.io_bytes_per_s
        _add_pass(parts, bounds, count, forward_s, {"weights_in": weights_s}, {"activation_spill": spill_s})
        into = {"weights_in": weights_s, "activation_spill": spill_s}
        _add_pass(parts, bounds, count, 2 * forward_s, into, {"gradients_out": weights_s})
        parts["pass_latency"] += 2 * count * wafer.pass_latency_s
    bounds["pass_latency"] = parts["pass_latency"]
    return parts, bounds


def _compute_s(hardware: Hardware, weights: int, attention: float, tokens: float, sparsity: float) -> float:
    """Seconds of one forward pass: 2 FLOPs a weight and token, and attention, each at its share of the dense peak."""
    wafer = wafer_of(hardware)
    matmul_s = 2.0 * weights * (1 - sparsity) * tokens / wafer.matmul_efficiency
    return (matmul_s + attention * tokens / wafer.attention_efficiency) / hardware.peak_flops_per_s[wafer.precision]


def _add_pass(parts: dict[str, float], bounds: dict[str, float], count: int, compute_s: float,
              into: dict[str, float], out: dict[str, float]) -> None:  # fmt: skip
    """Add `count` equal passes; what the slower direction takes beyond compute is split by what it carries."""
    slower = max(into, out, key=lambda direction: sum(direction.values()))
    exposed_s = max(0.0, sum(slower.values()) - compute_s)
    parts["compute"] += count * compute_s
    for part, seconds in slower.items():
        if exposed_s:
            parts[part] += count * exposed_s * seconds / sum(slower.values())
    bound = max(slower, key=lambda part: slower[part]) if exposed_s else "compute"
    bounds[bound] += count * (compute_s + exposed_s)
