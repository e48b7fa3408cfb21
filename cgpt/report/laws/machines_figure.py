"""Loss against what training costs on each machine, as a figure: seconds, joules and US dollars of the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.formats import short
from cgpt.records import LABELS
from cgpt.report.figures import handle, log_ticks, new_figure, note, styles_of
from cgpt.report.laws.figure import BEYOND, Study, band, log_loss
from cgpt.scaling.cost_law import decided, law_of, loss_at
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
    """A row for each series, a panel for each cost that some machine has, a colour and a marker for each machine.

    Lines are the laws with their bands; what is modeled has dashes and hollow marks.
    """
    shown = {machine.hardware: machine for of_series in machines.values() for machine in of_series}
    costs = [cost for cost in COSTS if any(cost in machine.costs for machine in shown.values())]
    if not costs:
        return note("No cost of a step is known.")
    looks = _looks(shown)
    figure, panels = new_figure(len(costs), len(series), width=2.9 * len(costs), height=1.3 + 2.3 * len(series))
    for place, (name, points) in enumerate(series.items()):
        row = panels[place * len(costs) : (place + 1) * len(costs)]
        for axes, below, cost in zip(row, panels[-len(costs) :], costs):
            axes.sharex(below)
            axes.sharey(panels[0])
            axes.set_xscale("log")
            own = [machine for machine in machines[name] if cost in machine.costs]
            for machine in own:
                look = looks[machine.hardware]
                _law(axes, machine, cost, studies[name]["hardware"], look)
                _points(axes, points, machine.costs[cost], look, labelled=machine is own[0])
        row[0].set_ylabel(LABELS["validation_loss"])
        row[0].set_title(name, fontweight="bold")
    for axes, cost in zip(panels[-len(costs) :], costs):
        axes.set_xlabel(COST_LABELS[cost])
    for axes in panels:
        log_ticks(axes.xaxis)
        log_loss(axes)
    whole = {name: look | {"linestyle": "--" if machine.timing == "modeled" else "-"}
             for (name, look), machine in zip(looks.items(), shown.values())}  # fmt: skip
    handles = [handle(_words(machine, costs), **whole[name]) for name, machine in shown.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, handlelength=3,
                  title="full: measured; dashed, hollow, ~: modeled", title_fontsize=8)  # fmt: skip
    return figure


def _looks(machines: Mapping[str, Machine]) -> dict[str, dict[str, Any]]:
    """Dashes take turns where the lines of modeled machines coincide."""
    looks = styles_of(list(machines))
    dashes = [{"linestyle": (4 * (place % 3), (4, 8)), "fillstyle": "none"} for place in range(len(looks))]
    return {name: look | (dash if machines[name].timing == "modeled" else {})
            for (name, look), dash in zip(looks.items(), dashes)}  # fmt: skip


def _law(axes: Axes, machine: Machine, cost: str, fits: list[Study], look: Mapping[str, Any]) -> None:
    """The offset law, or where the runs decide none the power law, and its band, to a little beyond the points."""
    fit = decided(fit for fit in fits if (fit["hardware"], fit["cost"]) == (machine.hardware, cost))
    if fit is None:
        return
    x = np.geomspace(machine.costs[cost].min(), machine.costs[cost].max() * BEYOND, 100)
    band(axes, x, fit, look["color"])
    axes.plot(x, loss_at(law_of(fit), x), **{**look, "marker": "", "linewidth": 1.2})


def _points(axes: Axes, points: Points, at: np.ndarray, look: Mapping[str, Any], labelled: bool) -> None:
    """The mean of each setting, its standard deviation over seeds as the bar, its size and n as the label."""
    for cell in range(points.n_cells):
        own = points.cells == cell
        x, y = at[own].mean(), points.loss[own].mean()
        sd = float(points.loss[own].std(ddof=1)) if own.sum() > 1 else None
        axes.errorbar(x, y, yerr=sd, capsize=2, elinewidth=1, **{**look, "linestyle": ""})
        if labelled:
            label = f"{short(points.n_parameters[own][0])}, n={own.sum()}"
            axes.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)


def _words(machine: Machine, costs: list[str]) -> str:
    """`~cs2, extrapolated; a job takes 52 min more`, and which of the costs shown is not known."""
    said = ["~" * (machine.timing == "modeled") + machine.hardware]
    said += ["extrapolated"] if machine.extrapolated else []
    said += [f"{cost} not known" for cost in costs if cost in machine.unknown]
    more_s = machine.overhead.get("seconds")
    return ", ".join(said) + (f"; a job takes {more_s / 60:.0f} min more" if more_s else "")
