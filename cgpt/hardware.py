"""A hardware profile: its keys, and what no run can do on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from cgpt.bounds import Choice, Ends, Pattern, Positive, Range
from cgpt.spec import PositiveFloat, PositiveInt, Threads

Device = Annotated[str, Pattern("[A-Z]+(:[A-Z0-9]+)*", "is no device of tinygrad; write e.g. CPU, CUDA or CUDA:1")]
Dtype = Annotated[str, Choice("float32", "bfloat16", "float16")]
WeightsDtype = Annotated[str, Choice("float32", "bfloat16", "int8")]
Efficiency = Annotated[float, Positive(1)]  # a share of the peak
Measured = Annotated[int, Range(0)]
Measures = Annotated[tuple[PositiveInt, ...], Ends()]


@dataclass(frozen=True)
class Resources:
    """Resources that a run asks of the machine; never part of its identity."""

    threads: Threads = 1
    """Threads of a run."""
    mem_mb: Annotated[int, Positive(10**9)] | None = None
    """Memory of a run; left out: what the plan estimates."""
    gpu: Annotated[int, Range(0, 10**5)] = 0
    """GPUs of a run."""
    runtime_minutes: Annotated[int, Positive(10**7)] | None = None
    """The most minutes of a run, which a cluster asks for."""


@dataclass(frozen=True)
class Wafer:
    """A wafer-scale engine as the cost model sees it: what it is, then constants that `calibrate` fits."""

    precision: Dtype
    """Of streamed weights and products, which the times are for; the host computes in `dtype`."""
    mesh_side: PositiveInt
    """Cores along the shorter edge of the fabric."""
    clock_hz: PositiveFloat
    """Cycles a second of a core."""
    sram_bytes_per_core: PositiveInt
    """Memory of a core."""
    io_bytes_per_s: PositiveFloat
    """To and from the machines that hold the weights, each way."""
    max_systems: PositiveInt
    """The most systems that can work together."""
    measured_systems: Measured
    """The most systems that an absolute rate is public for; beyond it is extrapolation."""
    matmul_efficiency: Efficiency
    """Share of the dense peak that weight products of training reach."""
    attention_efficiency: Efficiency
    """Share of the dense peak of scores and values in training, nothing halved for causality."""
    pass_latency_s: PositiveFloat
    """Of one layer, forward or backward, whatever the batch."""
    reduction_loss_per_doubling: PositiveFloat
    """Share of a step that each doubling of the systems adds."""
    decode_cycles_per_layer: PositiveFloat
    """Cycles of one layer for one token, whatever the cores."""
    decode_cycles_per_hop: PositiveFloat
    """Cycles per layer and core along the mesh's side."""
    decode_cycles_per_element: PositiveFloat
    """Cycles per weight or cached value that one core holds."""
    prefill_cycles_per_hop: PositiveFloat
    """Cycles of a prompt per layer and core along the mesh's side."""
    prefill_cycles_per_flop: PositiveFloat
    """Cycles per FLOP that one core does."""
    measured_d_model: Measures = ()
    """Smallest and largest width that training was measured at."""
    inference_d_model: Measures = ()
    """Smallest and largest width that decode and prefill were measured at."""
    decode_grid: Measures = ()
    """Smallest and largest side of the square of cores that decode was measured on."""
    prefill_grid: Measures = ()
    """Smallest and largest side of the square of cores that prefill was measured on."""
    host_memory_bytes: PositiveInt | None = None
    """Of the machines that hold weights and optimizer state (MemoryX)."""
    compile_s: PositiveFloat | None = None
    """Compilation, once a job."""
    programming_s: PositiveFloat | None = None
    """Loading the program, once a job."""
    weight_send_bytes_per_s: PositiveFloat | None = None
    """Rate at which weights and optimizer state are sent, once a job."""
    checkpoint_bytes_per_s: PositiveFloat | None = None
    """Rate at which the checkpoint at the end of a job is written."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as the cost model sees it: how it is connected, then constants that `calibrate` fits."""

    node_size: PositiveInt
    """GPUs that the fast links connect."""
    link_bytes_per_s: PositiveFloat
    """Between GPUs of a node, each way."""
    network_bytes_per_s: PositiveFloat
    """Per GPU between nodes, each way."""
    measured_systems: Measured
    """The most GPUs that a training rate is public for; 0: none, the constants are another GPU's."""
    measured_inference_systems: Measured
    """The same of decode and prefill."""
    matmul_efficiency: Efficiency
    """Share of the dense peak that weight products reach at infinite width."""
    half_width: PositiveFloat
    """d_model at which weight products reach half of that."""
    attention_efficiency: Efficiency
    """Share of the dense peak of scores and values in training."""
    recompute_cost: PositiveFloat
    """Share of a step that recomputing activations adds."""
    loss_per_doubling: PositiveFloat
    """Share of a step that each doubling of the nodes adds."""
    decode_bandwidth_efficiency: Efficiency
    """Share of the memory's bandwidth that decoding reaches."""
    decode_layer_latency_s: PositiveFloat
    """Of one layer, its kernels' launches and all-reduces within a node included."""
    network_all_reduce_latency_s: PositiveFloat
    """How much longer one small all-reduce takes across nodes."""
    prefill_efficiency: Efficiency
    """Share of the dense peak that prefill reaches."""
    prefill_all_reduce_s: PositiveFloat
    """Of one half of a layer, tensor parallel."""
    measured_d_model: Measures = ()
    """Smallest and largest width that training was measured at."""
    inference_d_model: Measures = ()
    """Smallest and largest width that decode and prefill were measured at."""


@dataclass(frozen=True)
class Hardware:
    """One file of hardware_profiles: a machine that runs compute on, or is modeled."""

    name: str
    """The file's name without its ending."""
    description: str
    """The machine in one line."""
    device: Device
    """tinygrad's device: CPU, CUDA, AMD, METAL, or WSE, which computes on the processor."""
    dtype: Dtype = "float32"
    """Of the operands of matrix products; weights, sums, losses and what AdamW does are float32 with any."""
    weights_dtype: WeightsDtype = "float32"
    """What matrices of products are rounded to; int8 has a scale for each output. Such models only score and write."""
    kernels: Annotated[str, Choice("tinygrad", "native")] = "tinygrad"
    """native: C and OpenBLAS on the processor (cgpt/kernels); tinygrad: its own, on any device."""
    timing: Annotated[str, Choice("measured", "modeled")] = "measured"
    """Whether seconds come from a clock or from the cost model."""
    systems: Annotated[int, Positive(10**6)] = 1
    """How many of this machine work together; peaks, memory, bandwidth, power and price are of one."""
    beam: Annotated[int, Range(0, 1000, " (no search)")] = 0
    """Width of tinygrad's search for fast kernels; 0: none."""
    peak_flops_per_s: Mapping[Dtype, PositiveFloat] = field(default_factory=dict)
    """By dtype: the maker's dense peak."""
    sustained_flops_per_s: PositiveFloat | None = None
    """What training was measured to reach with all threads; plans estimate minutes by it."""
    sustained_on: str | None = None
    """The processor of that measurement, as `doctor` names it."""
    memory_bytes: PositiveInt | None = None
    """Memory of one: of a GPU its own, of a wafer the SRAM."""
    bandwidth_bytes_per_s: PositiveFloat | None = None
    """Of that memory."""
    power_w: PositiveFloat | None = None
    """Nameplate power of one; without it energy is left empty."""
    price_per_hour_usd: PositiveFloat | None = None
    """Public price of one; without it cost in money is left empty."""
    wafer: Wafer | None = None
    """Of a modeled wafer: what the cost model needs."""
    gpu: Gpu | None = None
    """Of a modeled GPU: what the cost model needs."""
    resources: Resources = Resources()
    """What each run asks of the machine."""
    sources: tuple[str, ...] = ()
    """Where the numbers come from."""
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
        return _of_tinygrad(profile)
    if profile.dtype != "float32" and profile.weights_dtype != "float32":
        return (
            "dtype",
            f"rounded weights (`weights_dtype`) are multiplied in float32, not {profile.dtype}; write float32",
        )
    if profile.n_devices > 1:
        return "systems", f"{profile.systems} cannot share native kernels' work; write 1, or `kernels: tinygrad`"
    if profile.beam > 0:
        return "beam", f"{profile.beam} searches among tinygrad's kernels; write 0, or `kernels: tinygrad`"
    if not profile.runs_on_host:
        return "kernels", f"native ones run on the processor, not on {profile.device}; write `kernels: tinygrad`"
    return None


def _of_tinygrad(profile: Hardware) -> tuple[str, str] | None:
    if profile.weights_dtype == "float32":
        return None
    return (
        "weights_dtype",
        f"{profile.weights_dtype} is what native kernels alone keep; write float32, or `kernels: native`",
    )


def uneven(n_sequences: int, profile: Hardware, n_systems: int | None = None) -> str | None:
    """The problem of a batch that `n_systems` of a profile, by default those that compute, cannot share evenly; None if
    there is none."""
    n = n_systems or profile.n_devices
    if n_sequences % n == 0:
        return None
    return (f"{n_sequences} sequences cannot be shared evenly by the {n} systems of hardware profile '{profile.name}'; "
            f"write a multiple of {n}")  # fmt: skip
