"""How every figure looks: colours, marks, legends, logarithmic axes, and the files that it is written to."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.files.whole import write_whole
from cgpt.formats import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart in every common form of colour blindness; their yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GREY = "#595959"
Look = dict[str, Any]  # keywords of a line: its colour, its mark, its dashes
_STYLE: Any = {
    "svg.hashsalt": "cgpt", "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 10, "legend.fontsize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e2e2e2",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.6,
    "lines.markersize": 4.5, "figure.constrained_layout.use": True, "figure.dpi": 100, "savefig.dpi": 200,
}  # fmt: skip


def write_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw in the look of all figures and write `path`.svg and `path`.png."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own matplotlibrc must not change a figure's bytes
        matplotlib.rcParams.update(_STYLE)
        figure = draw()
        # Without date and program name, so that equal results give equal bytes.
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, metadata=metadata)
            write_whole(path.with_name(f"{path.name}.{kind}"), content.getvalue())


def write_figures(folder: Path, figures: Mapping[str, Callable[[], Figure]]) -> None:
    """Write each figure, by its name, into an experiment's folder."""
    for name, draw in figures.items():
        write_figure(folder / "figures" / name, draw)


def new_figure(across: int = 1, down: int = 1, width: float = 6.0, height: float = 4.0, used: int | None = None
               ) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure of that size in inches, and its panels row by row; those beyond the first `used` stay empty."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in panels[len(panels) if used is None else used :]:
        axes.set_axis_off()
    return figure, panels


def note(text: str) -> Figure:
    """A figure that says why there is none."""
    figure, (axes,) = new_figure()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def styles_of(names: Iterable[Any]) -> dict[Any, Look]:
    """A colour and a marker for each; after seven the colours come again with other markers."""
    many = len(COLOURS)
    return {name: {"color": COLOURS[n % many], "marker": MARKERS[(n + n // many) % many]}
            for n, name in enumerate(names)}  # fmt: skip


def machine_styles(timings: Mapping[str, str], dash: int) -> dict[str, Look]:
    """A style for each machine, by its timing: measured ones have full lines and marks; modeled ones hollow marks and
    dashes of that length, which take turns where lines coincide."""
    styles = styles_of(timings)
    for n, (name, timing) in enumerate(timings.items()):
        if timing == "modeled":
            styles[name] |= {"linestyle": (dash * (n % 3), (dash, 2 * dash)), "fillstyle": "none"}
    return styles


def machine_label(hardware: str, timing: str, remarks: Sequence[str], job_overhead_s: float | None) -> str:
    """`~cs2, extrapolated; a job takes 52 min more`: what is modeled has the `~`."""
    name = ", ".join(["~" * (timing == "modeled") + hardware, *remarks])
    return name + (f"; a job takes {job_overhead_s / 60:.0f} min more" if job_overhead_s else "")


def same_height(panels: Sequence[Axes]) -> None:
    """Give panels that are to be compared by eye the same range of values."""
    limits = [limit for axes in panels for limit in axes.get_ylim()]
    for axes in panels:
        axes.set_ylim(min(limits), max(limits))


def handle(label: str, **look: Any) -> Any:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **{"markersize": 4, **look})


def legend_below(figure: Figure, handles: list[Any]) -> None:
    """A legend of many entries under the panels, with the figure made as large as it needs."""
    longest = max(len(entry.get_label()) for entry in handles)
    width, height = figure.get_size_inches()
    n_columns = max(1 if longest > 50 else 2, min(4, int(width / (0.075 * longest + 0.7))))
    rows = math.ceil(len(handles) / n_columns)
    figure.set_size_inches(max(width, n_columns * (0.075 * longest + 0.7)), height + 0.2 * rows + 0.1)
    figure.legend(handles=handles, loc="outside lower center", ncols=n_columns)


def name_log_axis(axes: Axes, label: str) -> None:
    """Make the horizontal axis, on which all is drawn already, a logarithmic one of this name."""
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_xlabel(label)


def log_ticks(axis: Axis) -> None:
    """Numbers at 1, 2 and 5 where the axis spans less than two decades, else at each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axis.set_major_formatter(FuncFormatter(_power_of_ten if high >= 1e13 else lambda value, _: _brief(value)))
    axis.set_minor_formatter(NullFormatter())


def _brief(value: float) -> str:
    if value < 1:
        return f"{value:g}"
    return short(value).replace(".00", "").replace(".0", "")


def _power_of_ten(value: float, _position: Any) -> str:
    """2e13 as 2·10^13, and 1e13 as 10^13."""
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = round(value / 10**exponent)
    return rf"$10^{{{exponent}}}$" if factor == 1 else rf"${factor}\cdot10^{{{exponent}}}$"
