"""Rooflines of modeled machines with a model's metered kernels on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cgpt.cost.shapes import of_model
from cgpt.cost.wafer_training import BYTES
from cgpt.formats import with_prefix
from cgpt.report.columns import Row
from cgpt.report.figure import GREY, handle, log_ticks, name_log_axis, new_figure, styles_of
from cgpt.spec import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METERED_BYTES_PER_VALUE = 4  # kernels are metered as the host computes them, in 32 bits
PHASE_MARKERS = {"forward": "o", "backward": "s", "update": "D"}
MEMORY: dict[str, Any] = {"color": "#000000", "linestyle": "-"}
STREAM: dict[str, Any] = {"color": GREY, "linestyle": "--"}
WHOLE_STEP: dict[str, Any] = {"color": "#000000", "marker": "*", "linestyle": ""}


@dataclass(frozen=True)
class Roofline:
    """One system of a machine, and where a model's kernels lie on it; intensities in FLOPs per byte.

    `kernels` by (kernel, phase), against the memory's bandwidth; `streamed` by phase, the blocks' FLOPs per byte of
    weights that comes in over `stream_bytes_per_s` (wafers only). `step_flops_per_s` is the modeled rate of a step.
    """

    title: str
    peak_flops_per_s: float
    memory_bytes_per_s: float
    stream_bytes_per_s: float | None
    kernels: dict[tuple[str, str], float]
    streamed: dict[str, float]
    step_intensity: float
    step_flops_per_s: float | None


def make_roofline(record: Row, spec: dict[str, Any], rows: list[dict[str, Any]]) -> Roofline:
    """The roofline of a meter run, from its record, its spec and its kernels.csv.

    Bytes are scaled to the machine's precision. Where a wafer trains, the update is done beside it and is left out.
    """
    hardware = spec["hardware"]
    stream = hardware["wafer"]
    precision = stream["precision"] if stream else hardware["dtype"]
    width = BYTES[precision]
    flops, n_bytes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    blocks = Counter[str]()  # FLOPs of the blocks, by phase
    for row in rows:
        if stream and row["phase"] == "update":
            continue
        key = row["kernel"].removesuffix("_bwd"), row["phase"]
        scale = 1.0 if row["phase"] == "update" else width / METERED_BYTES_PER_VALUE
        flops[key] += row["flops"]
        n_bytes[key] += scale * (row["bytes_read"] + row["bytes_written"])
        blocks[row["phase"]] += row["flops"] if row["layer"] is not None else 0
    shape = of_model(Model(**spec["model"]))
    pass_bytes = width * shape.n_layer * shape.layer_weights
    done = sum(flops.values()) / record["systems"]
    return Roofline(
        f"{record['model']} on {record['hardware']}",
        hardware["peak_flops_per_s"][precision],
        hardware["bandwidth_bytes_per_s"],
        stream["io_bytes_per_s"] if stream else None,
        {key: flops[key] / n_bytes[key] for key in flops if flops[key]},
        {phase: n / record["systems"] / pass_bytes for phase, n in blocks.items() if n} if stream else {},
        sum(flops.values()) / sum(n_bytes.values()),
        done / record["step_s"] if record["step_s"] else None,
    )


def roofline_figure(rooflines: list[Roofline]) -> Figure:
    """A panel per machine. Kernels lie on the roof, as nothing public says how far below it each of them stays; the
    star is the modeled rate of the whole step."""
    across = min(3, len(rooflines))
    down = -(-len(rooflines) // across)
    figure, panels = new_figure(across, down, max(6.5, 3.7 * across), 3.3 * down + 1.2, used=len(rooflines))
    looks = styles_of(sorted({kernel for roofline in rooflines for kernel, _ in roofline.kernels}))
    for axes, roofline in zip(panels, rooflines, strict=False):
        _panel(axes, roofline, {kernel: look["color"] for kernel, look in looks.items()})
    phases = [phase for phase in PHASE_MARKERS if any(key[1] == phase for r in rooflines for key in r.kernels)]
    handles = [handle(kernel.replace("_", " "), color=look["color"], linewidth=4) for kernel, look in looks.items()]
    handles += [handle(phase, color=GREY, marker=PHASE_MARKERS[phase], linestyle="") for phase in phases]
    handles.append(handle("~ whole step, modeled", **WHOLE_STEP))
    handles.append(handle("roof: memory (SRAM on a wafer)", **MEMORY))
    if any(roofline.streamed for roofline in rooflines):
        handles.append(handle("roof: weights streamed in; hollow: the blocks", **STREAM))
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if across > 2 else 2)
    return figure


def _panel(axes: Axes, roofline: Roofline, colours: dict[str, str]) -> None:
    """Roofs, kernels on that of the memory, the blocks on that of the weights, the whole step."""
    peak, memory, stream = roofline.peak_flops_per_s, roofline.memory_bytes_per_s, roofline.stream_bytes_per_s
    marked = [*roofline.kernels.values(), *roofline.streamed.values(), peak / memory]
    ends = min(marked) / 3, 3 * max(*marked, peak / stream if stream else 0)

    def roof(bandwidth: float, at: float) -> float:
        return min(peak, bandwidth * at)

    for bandwidth, look in ((memory, MEMORY), (stream, STREAM)):
        if bandwidth:
            corners = [ends[0], peak / bandwidth, ends[1]]
            axes.plot(corners, [roof(bandwidth, at) for at in corners], linewidth=1.2, zorder=1, **look)
    for (kernel, phase), at in roofline.kernels.items():
        axes.plot(at, roof(memory, at), PHASE_MARKERS[phase], color=colours[kernel], markersize=5)
    for phase, at in roofline.streamed.items():
        axes.plot(at, roof(stream or 0, at), PHASE_MARKERS[phase], color=GREY, fillstyle="none", markersize=6)
    if roofline.step_flops_per_s:
        axes.plot(roofline.step_intensity, roofline.step_flops_per_s, markersize=9, **WHOLE_STEP)
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    name_log_axis(axes, "FLOPs per byte")
    rates = [with_prefix(peak, "FLOP/s"), with_prefix(memory, "B/s")]
    rates += [f"stream {with_prefix(stream, 'B/s')}"] if stream else []
    axes.set_title(f"{roofline.title}\n{', '.join(rates)}", fontsize=9)
    axes.set_ylabel("FLOP/s of one system")
