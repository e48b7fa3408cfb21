"""Loss against what training costs on each machine, as a figure: seconds, joules and US dollars of the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.formats import short
from cgpt.report.figure import handle, log_ticks, machine_label, machine_styles, new_figure, note
from cgpt.report.labels import LABELS, STEP_COST_LABELS
from cgpt.report.laws.figure import BEYOND, Study, band, draw_settings, log_loss
from cgpt.scaling.cost_law import decided, law_of, loss_at
from cgpt.scaling.machines import COSTS, Machine
from cgpt.scaling.points import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def hardware_law_figure(series: Mapping[str, Points], machines: Mapping[str, list[Machine]],
                        studies: Mapping[str, Study]) -> Figure:  # fmt: skip
    """A row for each series, a panel for each cost that some machine has, a colour and a marker for each machine.

    Lines are the laws with their bands; what is modeled has dashes and hollow marks.
    """
    shown = {machine.hardware: machine for of_series in machines.values() for machine in of_series}
    costs = [cost for cost in COSTS if any(cost in machine.costs for machine in shown.values())]
    if not costs:
        return note("No cost of a step is known.")
    looks = machine_styles({name: machine.timing for name, machine in shown.items()}, dash=4)
    figure, panels = new_figure(len(costs), len(series), width=2.9 * len(costs), height=1.3 + 2.3 * len(series))
    for n, (name, points) in enumerate(series.items()):
        row = panels[n * len(costs) : (n + 1) * len(costs)]
        for axes, below, cost in zip(row, panels[-len(costs) :], costs):
            axes.sharex(below)
            axes.sharey(panels[0])
            axes.set_xscale("log")
            known = [machine for machine in machines[name] if cost in machine.costs]
            for machine in known:
                look = looks[machine.hardware]
                _law(axes, machine, cost, studies[name]["hardware"], look)
                label = (lambda of, runs: short(of.n_parameters[runs][0])) if machine is known[0] else None
                draw_settings(axes, points, machine.costs[cost], {**look, "elinewidth": 1}, label, xytext=(5, 4))
        row[0].set_ylabel(LABELS["validation_loss"])
        row[0].set_title(name, fontweight="bold")
    for axes, cost in zip(panels[-len(costs) :], costs):
        axes.set_xlabel(STEP_COST_LABELS[cost])
    for axes in panels:
        log_ticks(axes.xaxis)
        log_loss(axes)
    dashes = {"measured": {"linestyle": "-"}, "modeled": {"linestyle": "--"}}
    handles = [handle(_label(machine, costs), **looks[name] | dashes[machine.timing])
               for name, machine in shown.items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, handlelength=3,
                  title="full: measured; dashed, hollow, ~: modeled", title_fontsize=8)  # fmt: skip
    return figure


def _law(axes: Axes, machine: Machine, cost: str, fits: list[Study], look: Mapping[str, Any]) -> None:
    """The offset law, or where the runs decide none the power law, and its band, to a little beyond the points."""
    fit = decided(fit for fit in fits if (fit["hardware"], fit["cost"]) == (machine.hardware, cost))
    if fit is None:
        return
    x = np.geomspace(machine.costs[cost].min(), machine.costs[cost].max() * BEYOND, 100)
    band(axes, x, fit, look["color"])
    axes.plot(x, loss_at(law_of(fit), x), **{**look, "marker": "", "linewidth": 1.2})


def _label(machine: Machine, costs: list[str]) -> str:
    """The machine's name, which of the costs shown is not known, and the time that a job takes besides."""
    remarks = ["extrapolated"] if machine.extrapolated else []
    remarks += [f"{cost} not known" for cost in costs if cost in machine.unknown]
    return machine_label(machine.hardware, machine.timing, remarks, machine.overhead.get("seconds"))
