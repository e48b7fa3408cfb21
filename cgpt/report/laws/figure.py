"""Fitted laws as figures: points labelled with n, lines, and bands that hold 95 % of the bootstrap draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.formats import short
from cgpt.records import LABELS
from cgpt.report.figures import COLOURS, MARKERS, log_ticks, new_figure
from cgpt.report.laws.page import power_in_words
from cgpt.scaling import isoflop
from cgpt.scaling.cost_law import decided, law_of, loss_at
from cgpt.scaling.parametric_law import CONSTANTS, ParametricLaw
from cgpt.scaling.points import Points
from cgpt.scaling.statistics import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Curves = list[tuple[str, Points]]

BESIDE: Any = (((5, 4), "left"), ((-5, -10), "right"))  # of its point, where the label of each series stands
BEYOND = 3.0  # how far, as a ratio of FLOPs, a law is drawn beyond its points
Study = Mapping[str, Any]


def law_figure(series: Mapping[str, Points], studies: Mapping[str, Study]) -> Figure:
    """A panel for each kind of fit that was made: loss against FLOPs, against parameters by budget, else tokens."""
    drawn = {"compute": _compute_panel, "isoflop": _isoflop_panel, "parametric": _parametric_panel,
             "learning_rate": _learning_rate_panel}  # fmt: skip
    made = {kind: [(name, points) for name, points in series.items() if _made(studies[name], kind)] for kind in drawn}
    if made["isoflop"]:
        made["parametric"] = []  # the same runs again, without a minimum to see
    shown = [(kind, [curve]) for kind in ("learning_rate",) for curve in made.pop(kind)]  # a panel for each series
    shown += [(kind, curves) for kind, curves in made.items() if curves]
    shown = shown or [("compute", list(series.items()))]
    figure, panels = new_figure(1, len(shown), height=4.2 * len(shown))
    for axes, (kind, curves) in zip(panels, shown):
        drawn[kind](axes, curves, studies)
        log_loss(axes)
    if len({kind for kind, _ in shown}) < len(shown):  # panels to compare by eye
        low, high = zip(*(axes.get_ylim() for axes in panels))
        for axes in panels:
            axes.set_ylim(min(low), max(high))
    return figure


def _made(study: Study, kind: str) -> bool:
    if kind == "compute":
        return any("draws" in fit for fit in study.get(kind, ()))
    found = study.get(kind, {})
    if kind == "learning_rate":
        return "widths" in found
    return "constants" in found.get("n_parameters", {}) if kind == "parametric" else "budgets" in found


def _compute_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    for place, (name, points) in enumerate(curves):
        study, colour = studies[name], COLOURS[place]
        convention = study["primary_flops"]
        flops = points.flops[convention]
        fits = {fit["form"]: fit for fit in study.get("compute", ()) if "draws" in fit}
        x = np.geomspace(flops.min() / BEYOND, flops.max() * BEYOND, 100)
        if law := decided(fits.values()):
            band(axes, x, law, colour)
        if "offset" in fits:
            axes.plot(x, loss_at(law_of(fits["offset"]), x), color=colour, label=_words(name, fits["offset"]))
        if "power" in fits:
            axes.plot(x, loss_at(law_of(fits["power"]), x), color=colour, linestyle="--", linewidth=1,
                      label=_words(name, fits["power"]))  # fmt: skip
        _points(axes, points, flops, place, labelled=place < len(BESIDE))
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_xlabel(f"{LABELS['flops']} (convention {studies[curves[0][0]]['primary_flops']})")
    axes.set_ylabel(LABELS["validation_loss"])
    low, high = axes.get_xlim()
    axes.set_xlim(low * (low / high) ** 0.06, high * (high / low) ** 0.06)  # room for the outer labels
    by = sorted({axis for name, _ in curves for axis in studies[name]["best_by"]})
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, title=f"each size at its best {', '.join(by)}" if by else None, title_fontsize=8)


def _parametric_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    """Loss against tokens: each size a line of L(N, D) with its band; points with the number of their seeds."""
    for place, (name, points) in enumerate(curves):
        fit, colour = studies[name]["parametric"]["n_parameters"], COLOURS[place]
        law = ParametricLaw(*(fit["constants"][key]["value"] for key in CONSTANTS))
        x = np.geomspace(points.tokens.min() / 2, points.tokens.max() * 2, 60)
        for size in sorted(set(points.n_parameters)):
            drawn = np.array([ParametricLaw(*draw).loss_at(np.array(size), x) for draw in fit["draws"]])
            low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            fitted = law.loss_at(np.array(size), x)
            axes.plot(x, fitted, color=colour, linewidth=0.9)
            axes.annotate(short(size), (x[-1], fitted[-1]), xytext=(3, -3), textcoords="offset points", fontsize=7)
        seeds = sorted(set(np.bincount(points.cells).tolist()))
        axes.plot([], [], color=colour, marker=MARKERS[place],
                  label=", ".join(filter(None, (name, "n=" + " or ".join(map(str, seeds))))))  # fmt: skip
        _points(axes, points, points.tokens, place, labelled=False)
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_xlabel(LABELS["tokens"])
    axes.set_ylabel(LABELS["validation_loss"])
    axes.set_title("L(N, D), one line per number of parameters")
    axes.legend(fontsize=8)


def _isoflop_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    """Loss against parameters: a colour per budget, its parabola with its band, and its minimum with its interval where
    interior."""
    for name, points in curves:
        ones = np.ones_like(points.loss)
        for place, (budget, found) in enumerate(zip(isoflop.budgets(points), studies[name]["isoflop"]["budgets"])):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            window = budget.nearest(points, points.loss, ones, studies[name]["isoflop"]["n_sizes_in_parabola"])
            level, slope, bend = budget.parabola(points, points.loss, window)
            sizes, across = points.n_parameters[budget.runs], np.array(found["band"]["n_parameters"])
            centred = np.log(across) - np.log(sizes).mean()
            axes.fill_between(
                across, found["band"]["low"], found["band"]["high"], color=colour, alpha=0.18, linewidth=0
            )
            axes.plot(across, level + slope * centred + bend * centred**2, color=colour, linewidth=1)
            seeds = " or ".join(map(str, sorted(set(np.unique(sizes, return_counts=True)[1].tolist()))))
            axes.plot(sizes, points.loss[budget.runs], linestyle="", color=colour, marker=marker,
                      label=f"{name + ', ' if name else ''}{found['flops']:.2g} FLOPs, n={seeds} a size")  # fmt: skip
            if found["interior"]:
                best = found["n_parameters"]
                at = np.log(best["value"]) - np.log(sizes).mean()
                low, high = best["ends"]
                reach = [[max(0.0, best["value"] - low)], [max(0.0, high - best["value"])]]
                axes.errorbar(best["value"], level + slope * at + bend * at * at, xerr=reach, color=colour, marker="*",
                              markersize=10, capsize=3)  # fmt: skip
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_xlabel(LABELS["n_parameters"])
    axes.set_ylabel(LABELS["validation_loss"])
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, 1.05 * max(points.loss.max() for _, points in curves)))
    axes.legend(fontsize=8, loc="best", title="stars: minima; bands, bars: 95 %", title_fontsize=8)


def _learning_rate_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    """Loss against learning rate, a line a width; the star is the best rate, its bar the interval."""
    ((name, _),) = curves
    found = studies[name]["learning_rate"]
    for place, width in enumerate(found["widths"]):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        seeds = " or ".join(map(str, sorted(set(width["n_seeds"]))))
        sd = [found["seed_sd"] / n**0.5 for n in width["n_seeds"]] if found["seed_sd"] else None
        axes.errorbar(width["lr"], width["loss"], yerr=sd, color=colour, marker=marker, capsize=2, linewidth=1.2,
                      label=f"d_model {width['d_model']}, n={seeds}")  # fmt: skip
        best, ends = width["best_lr"], width["best_lr_ends"] or [width["best_lr"]] * 2
        reach = [[max(0.0, best - ends[0])], [max(0.0, ends[1] - best)]]
        axes.errorbar(best, width["best_loss"], xerr=reach, color=colour, marker="*", markersize=13, capsize=3,
                      markerfacecolor=colour if width["interior"] else "white", zorder=4)  # fmt: skip
    axes.set_xscale("log")
    axes.minorticks_off()
    rates = found["widths"][0]["lr"]
    crowded: dict[str, Any] = {"rotation": 40, "ha": "right"} if len(rates) > 8 else {}
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], **crowded)
    axes.set_xlabel("learning rate")
    axes.set_ylabel(LABELS["validation_loss"])
    power = found.get("power_of_width")
    law = "" if power is None else "no power of the width" if "problem" in power else (
        f"best rate ~ width^{power_in_words(power)}")  # fmt: skip
    axes.set_title(": ".join(filter(None, (name, law))))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.5)  # room for the legend above every curve
    axes.legend(fontsize=8, title="stars: best rates, 95 %; hollow: an end of the rates, left out;\n"
                "bars: sd of the mean over seeds", title_fontsize=8, loc="upper center", ncols=2)  # fmt: skip


def _points(axes: Axes, points: Points, at: np.ndarray, place: int, labelled: bool) -> None:
    """The mean of each cell, its standard deviation over seeds as the bar, its model (of one model, its tokens per
    parameter) and n as the label; hollow marks from the second series on, as series lie on each other."""
    fill = COLOURS[place] if place == 0 else "none"
    offset, side = BESIDE[min(place, len(BESIDE) - 1)]
    one_model = len(set(points.models)) == 1
    for cell in range(points.n_cells):
        own = points.cells == cell
        x, y = at[own].mean(), points.loss[own].mean()
        sd = float(points.loss[own].std(ddof=1)) if own.sum() > 1 else None
        axes.errorbar(x, y, yerr=sd, color=COLOURS[place], marker=MARKERS[place], linestyle="", capsize=2,
                      markerfacecolor=fill)  # fmt: skip
        if labelled:
            ratio = f"{(points.tokens / points.n_parameters)[own].mean():.2g} tokens/parameter"
            what = ratio if one_model else points.model_of(cell)
            axes.annotate(f"{what}, n={own.sum()}", (x, y), xytext=offset, textcoords="offset points",
                          ha=side, color=COLOURS[place], fontsize=7)  # fmt: skip


def band(axes: Axes, x: np.ndarray, fit: Study, colour: str, scale: float = 1.0) -> None:
    """Where 95 % of a fit's draws lie, times `scale`."""
    drawn = scale * loss_at(_draws(fit), x)
    low, high = np.array([interval(column) for column in drawn.T]).T
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _draws(fit: Study) -> np.ndarray:
    return np.array([draw for draw in fit["draws"] if None not in draw], dtype=float)


def _words(name: str, fit: Study) -> str:
    """A law's constants, each with its interval: alone they say more than the runs do."""
    constants = fit["constants"]
    parts = [f"{sign} {value['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
             for sign, key, digits in (("α", "alpha", 3), ("E", "e", 2)) if key in constants
             for value in (constants[key],) for low, high in (value["ends"],)]  # fmt: skip
    parts += [] if fit["form"] == "offset" else ["no offset"]
    return f"{name + ': ' if name else ''}{', '.join(parts)}"


def log_loss(axes: Axes) -> None:
    """A logarithmic axis of losses with plain numbers, few enough to read."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
