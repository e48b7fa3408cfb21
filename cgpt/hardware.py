"""A hardware profile: its keys, and what no run can do on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from cgpt.bounds import Choice, Ends, Pattern, Positive, Range
from cgpt.spec import PositiveFloat, PositiveInt, Threads

Device = Annotated[str, Pattern("[A-Z]+(:[A-Z0-9]+)*", "is no device of tinygrad; write e.g. CPU, CUDA or CUDA:1")]
Dtype = Annotated[str, Choice("float32", "bfloat16", "float16")]
Efficiency = Annotated[float, Positive(1)]  # a share of the peak
Measured = Annotated[int, Range(0)]
Measures = Annotated[tuple[PositiveInt, ...], Ends()]


@dataclass(frozen=True)
class Resources:
    """Resources that a run asks of the machine; never part of its identity."""

    threads: Threads = 1
    mem_mb: Annotated[int, Positive(10**9)] | None = None
    gpu: Annotated[int, Range(0, 10**5)] = 0
    runtime_minutes: Annotated[int, Positive(10**7)] | None = None


@dataclass(frozen=True)
class Wafer:
    """A wafer-scale engine as the cost model sees it: what it is, then constants that `calibrate` fits."""

    precision: Dtype  # of streamed weights and products, which the times are for; the host computes in `dtype`
    mesh_side: PositiveInt  # cores along the shorter edge of the fabric
    clock_hz: PositiveFloat
    sram_bytes_per_core: PositiveInt
    io_bytes_per_s: PositiveFloat  # to the machines that hold the weights, each way
    max_systems: PositiveInt
    measured_systems: Measured  # most systems that an absolute rate is public for; beyond it is extrapolation
    matmul_efficiency: Efficiency  # of the dense peak, weight matmuls of training
    attention_efficiency: Efficiency  # of the dense peak, scores and values of training, nothing halved for causality
    pass_latency_s: PositiveFloat  # of one layer, forward or backward, whatever the batch
    reduction_loss_per_doubling: PositiveFloat  # share of a step that each doubling of the systems adds
    decode_cycles_per_layer: PositiveFloat
    decode_cycles_per_hop: PositiveFloat  # per layer and core along the mesh's side
    decode_cycles_per_element: PositiveFloat  # per weight or cached value that one core holds
    prefill_cycles_per_hop: PositiveFloat
    prefill_cycles_per_flop: PositiveFloat  # per FLOP that one core does
    measured_d_model: Measures = ()  # smallest and largest width that training was measured at
    inference_d_model: Measures = ()  # the same of decode and prefill
    decode_grid: Measures = ()  # smallest and largest side that decode was measured on
    prefill_grid: Measures = ()
    host_memory_bytes: PositiveInt | None = None  # MemoryX, which holds weights and optimizer state
    compile_s: PositiveFloat | None = None  # per job, as are the two below
    programming_s: PositiveFloat | None = None
    weight_send_bytes_per_s: PositiveFloat | None = None
    checkpoint_bytes_per_s: PositiveFloat | None = None


@dataclass(frozen=True)
class Gpu:
    """A GPU as the cost model sees it: how it is connected, then constants that `calibrate` fits."""

    node_size: PositiveInt  # GPUs that the fast links connect
    link_bytes_per_s: PositiveFloat  # between GPUs of a node, each way
    network_bytes_per_s: PositiveFloat  # per GPU between nodes, each way
    measured_systems: Measured  # most GPUs that a training rate is public for; 0: none, constants come from another GPU
    measured_inference_systems: Measured  # the same of decode and prefill
    matmul_efficiency: Efficiency  # of the dense peak at infinite width
    half_width: PositiveFloat  # d_model at which matmuls reach half of that
    attention_efficiency: Efficiency
    recompute_cost: PositiveFloat  # share of a step that recomputing activations adds
    loss_per_doubling: PositiveFloat  # share of a step that each doubling of the nodes adds
    decode_bandwidth_efficiency: Efficiency
    decode_layer_latency_s: PositiveFloat  # of one layer, its kernels' launches and all-reduces within a node included
    network_all_reduce_latency_s: PositiveFloat  # what one small all-reduce takes more across nodes
    prefill_efficiency: Efficiency  # of the dense peak
    prefill_all_reduce_s: PositiveFloat  # of one layer's half, tensor parallel
    measured_d_model: Measures = ()  # smallest and largest width that training was measured at
    inference_d_model: Measures = ()  # the same of decode and prefill


@dataclass(frozen=True)
class Hardware:
    """hardware_profiles/<name>.yaml. `base:` there names a profile whose keys hold where the file has none, but for
    what was measured on a machine that this is not (cgpt/experiment/bases.py)."""

    name: str
    description: str
    device: Device
    dtype: Dtype = "float32"  # of matrix products; weights, sums, losses and what AdamW does are float32 with any
    kernels: Annotated[str, Choice("tinygrad", "native")] = "tinygrad"  # native: OpenBLAS and C, in cgpt/kernels
    timing: Annotated[str, Choice("measured", "modeled")] = "measured"
    systems: Annotated[int, Positive(10**6)] = 1  # peaks, memory, bandwidth, power and price are of one
    beam: Annotated[int, Range(0, 1000, " (no search)")] = 0  # width of tinygrad's search for fast kernels
    peak_flops_per_s: Mapping[Dtype, PositiveFloat] = field(default_factory=dict)  # dense, by dtype
    sustained_flops_per_s: PositiveFloat | None = None  # that training was measured to reach with all threads
    sustained_on: str | None = None  # the processor of that measurement, as `doctor` names it
    memory_bytes: PositiveInt | None = None
    bandwidth_bytes_per_s: PositiveFloat | None = None
    power_w: PositiveFloat | None = None
    price_per_hour_usd: PositiveFloat | None = None
    wafer: Wafer | None = None
    gpu: Gpu | None = None
    resources: Resources = Resources()
    sources: tuple[str, ...] = ()
    # `systems` and `beam` change the order of sums, so the last bits of a result, as two searches of one width do.
    EXECUTION: ClassVar[tuple[str, ...]] = (
        "description", "systems", "beam", "peak_flops_per_s", "sustained_flops_per_s", "sustained_on",
        "memory_bytes", "bandwidth_bytes_per_s", "power_w", "price_per_hour_usd", "wafer", "gpu", "resources",
        "sources",
    )  # fmt: skip

    @property
    def n_devices(self) -> int:
        """How many tinygrad devices a run computes on: a modeled machine is computed on one, whatever its `systems`."""
        return self.systems if self.timing == "measured" else 1

    @property
    def runs_on_host(self) -> bool:
        """Whether the kernels run on this machine's cores: on a CPU, or on a device that is modeled on one."""
        return self.device.split(":")[0] in ("CPU", "WSE")

    @property
    def placement(self) -> str | tuple[str, ...]:
        """The tinygrad device of a run's tensors, or all that hold them and share its batches."""
        names = [f"{self.device}:{i}" if i else self.device for i in range(self.n_devices)]
        return tuple(names) if self.n_devices > 1 else self.device


def unsupported(profile: Hardware) -> tuple[str, str] | None:
    """The key by which a profile asks for what no run can do with its kernels, and what to write; None where it can."""
    if profile.dtype == "float16":
        return "dtype", "float16 needs its losses scaled, which training here does not do; write bfloat16 or float32"
    if profile.kernels != "native":
        return None
    if profile.dtype != "float32":
        return "dtype", f"{profile.dtype} is not what native kernels compute in; write float32, or `kernels: tinygrad`"
    if profile.n_devices > 1:
        return "systems", f"{profile.systems} cannot share native kernels' work; write 1, or `kernels: tinygrad`"
    if profile.beam > 0:
        return "beam", f"{profile.beam} searches among tinygrad's kernels; write 0, or `kernels: tinygrad`"
    if not profile.runs_on_host:
        return "kernels", f"native ones run on the processor, not on {profile.device}; write `kernels: tinygrad`"
    return None


def uneven(n_sequences: int, profile: Hardware, n_systems: int | None = None) -> str | None:
    """The problem of a batch that `n_systems` of a profile, by default those that compute, cannot share evenly; None if
    there is none."""
    n = n_systems or profile.n_devices
    if n_sequences % n == 0:
        return None
    return (f"{n_sequences} sequences cannot be shared evenly by the {n} systems of hardware profile '{profile.name}'; "
            f"write a multiple of {n}")  # fmt: skip
