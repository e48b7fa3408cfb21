"""Loss against what training costs on each machine, as a figure: seconds, joules and US dollars of the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.collect import short
from cgpt.plot import COLOURS, GREY, MARKERS, handle, log_ticks, new_figure, note
from cgpt.records import LABELS
from cgpt.scaling.cost_law import law_of, loss_at
from cgpt.scaling.figure import BEYOND, Study, band, log_loss
from cgpt.scaling.machines import COSTS, Machine
from cgpt.scaling.points import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COST_LABELS = {
    "seconds": "time of the steps (s)",
    "joules": "energy of the steps (J)",
    "usd": "price of the steps (USD)",
}


def hardware_law_figure(series: Mapping[str, Points], machines: Mapping[str, list[Machine]],
                        studies: Mapping[str, Study]) -> Figure:  # fmt: skip
    """A panel for each cost that some machine has, a colour for each machine, a marker for each series.

    Lines are the offset laws with their bands, dashed where modeled; the legend says what is not known of a machine.
    """
    known = list(dict.fromkeys(machine.hardware for of_series in machines.values() for machine in of_series))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(known)}
    costs = [cost for cost in COSTS if any(cost in machine.costs for each in machines.values() for machine in each)]
    if not costs:
        return note("No cost of a step is known.")
    figure, panels = new_figure(len(costs), 1, width=max(6.5, 3.6 * len(costs)), height=4.6)
    for axes, cost in zip(panels, costs):
        for place, (name, points) in enumerate(series.items()):
            for machine in machines[name]:
                if cost in machine.costs:
                    look = {"color": colours[machine.hardware], **_series_look(place)}
                    _law(axes, machine, cost, studies[name]["hardware"], look["color"])
                    _points(
                        axes, points, machine.costs[cost], look, labelled=place == 0 and machine.hardware == known[0]
                    )
        axes.set_xscale("log")
        log_ticks(axes.xaxis)
        axes.set_xlabel(COST_LABELS[cost])
        log_loss(axes)
        axes.sharey(panels[0])
    panels[0].set_ylabel(LABELS["validation_loss"])
    shown = {machine.hardware: machine for each in machines.values() for machine in each}
    handles = [_machine_handle(machine, colours[name]) for name, machine in shown.items()]
    handles += [
        handle(name, color=GREY, linestyle="", **_series_look(place)) for place, name in enumerate(series) if name
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=3.2)
    return figure


def _series_look(place: int) -> dict[str, Any]:
    """Marks of the first series are filled."""
    return {"marker": MARKERS[place % len(MARKERS)], "fillstyle": "none" if place else "full"}


def _law(axes: Axes, machine: Machine, cost: str, fits: list[Study], colour: str) -> None:
    """The offset law and its band a little beyond the points; nothing where the runs decide none."""
    fit = next((fit for fit in fits if (fit["hardware"], fit["cost"], fit["form"]) == (machine.hardware, cost, "offset")
                and "draws" in fit), None)  # fmt: skip
    if fit is None:
        return
    at = machine.costs[cost]
    x = np.geomspace(at.min() / BEYOND, at.max() * BEYOND, 100)
    band(axes, x, fit, colour)
    dashes = (0, (5, 2)) if fit["timing"] == "modeled" else "-"
    axes.plot(x, loss_at(law_of(fit), x), color=colour, linestyle=dashes, linewidth=1.2)


def _points(axes: Axes, points: Points, at: np.ndarray, look: Mapping[str, Any], labelled: bool) -> None:
    """The mean of each setting, its standard deviation over seeds as the bar, its size and n as the label."""
    for cell in range(points.n_cells):
        own = points.cells == cell
        x, y = at[own].mean(), points.loss[own].mean()
        sd = float(points.loss[own].std(ddof=1)) if own.sum() > 1 else None
        axes.errorbar(x, y, yerr=sd, linestyle="", capsize=2, **look)
        if labelled:
            label = f"{short(points.n_parameters[own][0])}, n={own.sum()}"
            axes.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)


def _machine_handle(machine: Machine, colour: str) -> Any:
    """`~cs2, modeled, extrapolated; a job takes 52 min more`."""
    modeled = machine.timing == "modeled"
    said = ["~" * modeled + machine.hardware, machine.timing]
    said += ["extrapolated"] if machine.extrapolated else []
    said += [f"{cost} not known" for cost in machine.unknown]
    more_s = machine.overhead.get("seconds")
    overhead = f"; a job takes {more_s / 60:.0f} min more" if more_s else ""
    return handle(", ".join(said) + overhead, color=colour, linestyle=(0, (5, 2)) if modeled else "-")
