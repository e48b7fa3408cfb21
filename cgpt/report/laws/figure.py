"""Fitted laws as figures: points labelled with n, lines, and bands that hold 95 % of the bootstrap draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.formats import short
from cgpt.report.figure import COLOURS, MARKERS, Look, name_log_axis, new_figure, same_height, styles_of
from cgpt.report.labels import LABELS
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
        axes.set_ylabel(LABELS["validation_loss"])
        log_loss(axes)
    if len({kind for kind, _ in shown}) < len(shown):  # panels to compare by eye
        same_height(panels)
    return figure


def _made(study: Study, kind: str) -> bool:
    if kind == "compute":
        return any("draws" in fit for fit in study.get(kind, ()))
    fit = study.get(kind, {})
    if kind == "parametric":
        return "constants" in fit.get("n_parameters", {})
    return ("widths" if kind == "learning_rate" else "budgets") in fit


def _compute_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    for n, (name, points) in enumerate(curves):
        study, colour = studies[name], COLOURS[n]
        convention = study["primary_flops"]
        flops = points.flops[convention]
        fits = {fit["form"]: fit for fit in study.get("compute", ()) if "draws" in fit}
        x = np.geomspace(flops.min() / BEYOND, flops.max() * BEYOND, 100)
        if law := decided(fits.values()):
            band(axes, x, law, colour)
        looks: dict[str, Look] = {"offset": {}, "power": {"linestyle": "--", "linewidth": 1}}
        for form, look in looks.items():
            if form in fits:
                axes.plot(x, loss_at(law_of(fits[form]), x), color=colour, label=_words(name, fits[form]), **look)
        _points(axes, points, flops, n, labelled=n < len(BESIDE))
    name_log_axis(axes, f"{LABELS['flops']} (convention {studies[curves[0][0]]['primary_flops']})")
    low, high = axes.get_xlim()
    axes.set_xlim(low * (low / high) ** 0.06, high * (high / low) ** 0.06)  # room for the outer labels
    by = sorted({axis for name, _ in curves for axis in studies[name]["best_by"]})
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, title=f"each size at its best {', '.join(by)}" if by else None, title_fontsize=8)


def _parametric_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    """Loss against tokens: each size a line of L(N, D) with its band; points with the number of their seeds."""
    for n, (name, points) in enumerate(curves):
        fit, colour = studies[name]["parametric"]["n_parameters"], COLOURS[n]
        law = ParametricLaw(*(fit["constants"][key]["value"] for key in CONSTANTS))
        x = np.geomspace(points.tokens.min() / 2, points.tokens.max() * 2, 60)
        for size in sorted(set(points.n_parameters)):
            drawn = np.array([ParametricLaw(*draw).loss_at(np.array(size), x) for draw in fit["draws"]])
            low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            fitted = law.loss_at(np.array(size), x)
            axes.plot(x, fitted, color=colour, linewidth=0.9)
            axes.annotate(short(size), (x[-1], fitted[-1]), xytext=(3, -3), textcoords="offset points", fontsize=7)
        axes.plot([], [], color=colour, marker=MARKERS[n],
                  label=", ".join(filter(None, (name, f"n={_counts(np.bincount(points.setting_of))}"))))  # fmt: skip
        _points(axes, points, points.tokens, n, labelled=False)
    name_log_axis(axes, LABELS["tokens"])
    axes.set_title("L(N, D), one line per number of parameters")
    axes.legend(fontsize=8)


def _isoflop_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    """Loss against parameters: a colour per budget, its parabola with its band, and its minimum with its interval where
    interior."""
    for name, points in curves:
        study = studies[name]["isoflop"]
        budgets = isoflop.budgets(points)
        looks = styles_of(range(len(budgets)))
        for n, (budget, fit) in enumerate(zip(budgets, study["budgets"])):
            colour = looks[n]["color"]
            window = budget.nearest(points, points.loss, np.ones_like(points.loss), study["n_sizes_in_parabola"])
            level, slope, bend = budget.parabola(points, points.loss, window)
            sizes, across = points.n_parameters[budget.runs], np.array(fit["band"]["n_parameters"])
            centred = np.log(across) - np.log(sizes).mean()
            axes.fill_between(across, fit["band"]["low"], fit["band"]["high"], color=colour, alpha=0.18, linewidth=0)
            axes.plot(across, level + slope * centred + bend * centred**2, color=colour, linewidth=1)
            seeds = _counts(np.unique(sizes, return_counts=True)[1])
            axes.plot(sizes, points.loss[budget.runs], linestyle="", **looks[n],
                      label=f"{name + ', ' if name else ''}{fit['flops']:.2g} FLOPs, n={seeds} a size")  # fmt: skip
            if fit["interior"]:
                best = fit["n_parameters"]["value"]
                at = np.log(best) - np.log(sizes).mean()
                _star(axes, best, level + slope * at + bend * at * at, fit["n_parameters"]["ends"], color=colour,
                      markersize=10)  # fmt: skip
    name_log_axis(axes, LABELS["n_parameters"])
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, 1.05 * max(points.loss.max() for _, points in curves)))
    axes.legend(fontsize=8, loc="best", title="stars: minima; bands, bars: 95 %", title_fontsize=8)


def _learning_rate_panel(axes: Axes, curves: Curves, studies: Mapping[str, Study]) -> None:
    """Loss against learning rate, a line a width; the star is the best rate, its bar the interval."""
    ((name, _),) = curves
    study = studies[name]["learning_rate"]
    looks = styles_of(range(len(study["widths"])))
    for look, width in zip(looks.values(), study["widths"]):
        sd = [study["seed_sd"] / n**0.5 for n in width["n_seeds"]] if study["seed_sd"] else None
        axes.errorbar(width["lr"], width["loss"], yerr=sd, **look, capsize=2, linewidth=1.2,
                      label=f"d_model {width['d_model']}, n={_counts(width['n_seeds'])}")  # fmt: skip
        _star(axes, width["best_lr"], width["best_loss"], width["best_lr_ends"] or [width["best_lr"]] * 2,
              color=look["color"], markersize=13, zorder=4,
              markerfacecolor=look["color"] if width["interior"] else "white")  # fmt: skip
    axes.set_xscale("log")
    axes.minorticks_off()
    rates = study["widths"][0]["lr"]
    crowded: dict[str, Any] = {"rotation": 40, "ha": "right"} if len(rates) > 8 else {}
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates], **crowded)
    axes.set_xlabel("learning rate")
    power = study.get("power_of_width")
    law = "" if power is None else "no power of the width" if "problem" in power else (
        f"best rate ~ width^{power_in_words(power)}")  # fmt: skip
    axes.set_title(": ".join(filter(None, (name, law))))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.5)  # room for the legend above every curve
    axes.legend(fontsize=8, title="stars: best rates, 95 %; hollow: an end of the rates, left out;\n"
                "bars: sd of the mean over seeds", title_fontsize=8, loc="upper center", ncols=2)  # fmt: skip


def _counts(n: Iterable[int]) -> str:
    """Different numbers, as of seeds: `2 or 3`."""
    return " or ".join(str(count) for count in sorted(set(n)))


def _star(axes: Axes, x: float, y: float, ends: Sequence[float], **look: Any) -> None:
    """A minimum with its interval."""
    reach = [[max(0.0, x - ends[0])], [max(0.0, ends[1] - x)]]
    axes.errorbar(x, y, xerr=reach, marker="*", capsize=3, **look)


def _points(axes: Axes, points: Points, at: np.ndarray, n: int, labelled: bool) -> None:
    """The settings of the `n`th series; hollow marks from the second one on, as series lie on each other."""
    offset, side = BESIDE[min(n, len(BESIDE) - 1)]
    look = {"color": COLOURS[n], "marker": MARKERS[n], "markerfacecolor": COLOURS[n] if n == 0 else "none"}
    label = _model_or_ratio if labelled else None
    draw_settings(axes, points, at, look, label, xytext=offset, ha=side, color=COLOURS[n])


def _model_or_ratio(points: Points, runs: np.ndarray) -> str:
    """The model of these runs, or where all points are of one model its tokens per parameter there."""
    if len(set(points.models)) > 1:
        return points.models[int(np.argmax(runs))]
    return f"{(points.tokens / points.n_parameters)[runs].mean():.2g} tokens/parameter"


def draw_settings(axes: Axes, points: Points, at: np.ndarray, look: Mapping[str, Any],
                  label: Callable[[Points, np.ndarray], str] | None, **text: Any) -> None:  # fmt: skip
    """Draw the mean loss of each setting against its mean of `at` (n,), with the standard deviation over seeds as the
    bar; beside it what `label` says of its runs (n,) and their number."""
    for number in range(points.n_settings):
        runs = points.setting_of == number
        x, y = at[runs].mean(), points.loss[runs].mean()
        sd = float(points.loss[runs].std(ddof=1)) if runs.sum() > 1 else None
        axes.errorbar(x, y, yerr=sd, capsize=2, **{**look, "linestyle": ""})
        if label:
            name = f"{label(points, runs)}, n={runs.sum()}"
            axes.annotate(name, (x, y), textcoords="offset points", fontsize=7, **text)


def band(axes: Axes, x: np.ndarray, fit: Study, colour: str, scale: float = 1.0) -> None:
    """Where 95 % of a fit's draws lie, times `scale`."""
    whole = np.array([draw for draw in fit["draws"] if None not in draw], dtype=float)
    drawn = scale * loss_at(whole, x)
    low, high = np.array([interval(column) for column in drawn.T]).T
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _words(name: str, fit: Study) -> str:
    """A law's constants, each with its interval: alone they say more than the runs do."""
    parts = []
    for sign, key, digits in (("α", "alpha", 3), ("E", "e", 2)):
        if key in fit["constants"]:
            value, low, high = (f"{number:.{digits}f}" for number in
                                (fit["constants"][key]["value"], *fit["constants"][key]["ends"]))  # fmt: skip
            parts.append(f"{sign} {value} [{low}, {high}]")
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
