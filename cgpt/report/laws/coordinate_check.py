"""The coordinate check as a tidy CSV, a table of slopes and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import isotonic_regression

from cgpt import provenance
from cgpt.files.csv_file import write_csv
from cgpt.files.whole import write_whole
from cgpt.report.figure import COLOURS, GREY, MARKERS, log_ticks, new_figure, same_height, write_figure
from cgpt.report.page import Page, Table, markdown, table_of
from cgpt.training import coordinate_check as check

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "coordinate_check"
QUESTION = "Do activations and their changes in training stay of one size as a model gets wider?"
TITLES = {"sp": "standard (SP)", "mup": "muP"}
SIZES = {"mean_abs": "mean absolute activation", "mean_abs_change": "mean absolute change since initialisation"}
SHADES = "viridis"  # of steps, the first the darkest; its yellow end is too pale for lines
LABEL_GAP = 0.07  # least distance of two labels beside a panel, as a share of its height


def coordinate_check(settings: check.Settings, folder: Path, threads: int | None = None) -> dict[str, Any]:
    """Measure, and write coordinate_check.csv, .md, .svg and .png into `folder`. Returns settings and slopes."""
    rows = check.measure(settings, threads)
    made = provenance.record("training.coordinate_check")
    write_csv(folder / f"{NAME}.csv", check.COLUMNS, rows)
    write_figure(folder / NAME, lambda: figure(rows))
    write_whole(folder / f"{NAME}.md", as_text(settings, rows, made).encode())
    return {"folder": str(folder), "settings": asdict(settings),
            "slopes": [slope._asdict() for slope in check.slopes(rows)], **made}  # fmt: skip


def shown_steps(rows: Sequence[check.Row]) -> list[int]:
    """Steps that tables and figure show: 0, the powers of two, the last."""
    last = max(row["step"] for row in rows)
    return [step for step in range(last + 1) if step & (step - 1) == 0 or step == last]


def as_text(settings: check.Settings, rows: Sequence[check.Row], made: dict[str, Any]) -> str:
    """The page as Markdown: where it was made, what was trained, and the slopes of both sizes."""
    s, versions = settings, made["versions"]
    facts = [
        ("Made by", f"`cgpt coordinate-check` at commit {made['commit']} on {made['date'][:10]}, "
                    f"{made['host_cpu']}, tinygrad {versions['tinygrad']}, numpy {versions['numpy']}"),
        ("Models", f"{s.n_layer} layers of widths {', '.join(map(str, s.widths))}, heads of {s.d_head}, {s.seq_len} "
                   f"tokens; muP's base width is {s.base_width}"),
        ("Training", f"AdamW, learning rate {s.lr:g} for all, {s.batch_size} sequences of the builtin corpus's bytes "
                     f"a step; activations are of a batch that is never trained on; {len(s.seeds)} seeds"),
        ("slope", "of log size against log width, least squares over widths and seeds, ± its standard error; 0: of "
                  "one size at every width"),
        ("qkv, attention", "of layer 0 and 1: queries, keys and values, and what attention makes of them"),
        ("hidden", "the last layer's normed activations, without muP's multiplier of the logits, which those have; a "
                   "norm keeps it of one size under either parametrization"),
        ("logits of muP at step 0", "go with the root of 1 / width, as they should: random weights average out, and "
                                    "after a few steps what was learned, which does not, is all that counts"),
    ]  # fmt: skip
    tables = [_table(value, check.slopes(rows), shown_steps(rows)) for value in reversed(check.VALUES)]
    text = markdown(Page("Coordinate check", QUESTION, facts, tables))
    return f"{text}\n![Activations against width]({NAME}.png)\n"


def _table(value: str, every: Sequence[check.Slope], steps: Sequence[int]) -> Table:
    """A row per parametrization and activation, a column per step that has such slopes."""
    cells = {(s.parametrization, s.activation, s.step): f"{_signed(s.slope)} ± {s.standard_error:.2f}"
             for s in every if s.value == value and s.step in steps}  # fmt: skip
    columns = sorted({step for *_, step in cells})
    rows = [[kind, activation, *(cells[kind, activation, step] for step in columns)]
            for kind, activation in dict.fromkeys((kind, activation) for kind, activation, _ in cells)]  # fmt: skip
    header = ["parametrization", "activation", *(f"step {step}" for step in columns)]
    return table_of(f"Slopes of the {SIZES[value]}", header, rows)


def _signed(number: float) -> str:
    return f"{round(number, 2) + 0.0:+.2f}"  # no -0.00


def figure(rows: Sequence[check.Row]) -> Figure:
    """A column per parametrization: above the changes after the last step, below the logits by step."""
    import matplotlib

    drawn, panels = new_figure(len(check.PARAMETRIZATIONS), 2, width=7.2, height=5.8)
    steps = shown_steps(rows)
    after = [row for row in rows if row["step"] == steps[-1]]
    shown = [row for row in rows if row["activation"] == "logits" and row["step"] in steps]
    logits = [row | {"step": f"step {row['step']}"} for row in shown]
    activations = dict.fromkeys(row["activation"] for row in after)
    after_steps = list(dict.fromkeys(row["step"] for row in logits))
    shades = [matplotlib.colormaps[SHADES](shade) for shade in np.linspace(0, 0.75, len(after_steps))]
    _pair(panels[:2], after, "activation", "mean_abs_change", _looks(activations, COLOURS))
    _pair(panels[2:], logits, "step", "mean_abs", _looks(after_steps, shades))
    for axes, kind in zip(panels, check.PARAMETRIZATIONS):
        axes.set_title(TITLES[kind], fontweight="bold")
    n_seeds = len({row["seed"] for row in rows})
    for axes in panels[2:]:
        axes.set_xlabel(f"width (d_model); n={n_seeds} seeds, bars hold all")
    panels[0].set_ylabel(f"mean absolute change of activations\nin {steps[-1]} steps")
    panels[2].set_ylabel("mean absolute logits\nafter so many steps")
    return drawn


def _looks(names: Iterable[str], colours: Sequence[Any]) -> dict[str, dict[str, Any]]:
    return {name: {"color": colour, "marker": marker, "markersize": 4}
            for name, colour, marker in zip(names, colours, MARKERS)}  # fmt: skip


def _pair(panels: Sequence[Axes], rows: Sequence[check.Row], by: str, value: str, looks: Mapping[str, Mapping]) -> None:
    """A panel per parametrization, of one height: a line for each name in the column `by`, its slope beside it."""
    by_kind = [[row for row in rows if row["parametrization"] == kind] for kind in check.PARAMETRIZATIONS]
    ends = [[_line(axes, of_kind, by, value, name, look) for name, look in looks.items()]
            for axes, of_kind in zip(panels, by_kind)]  # fmt: skip
    same_height(panels)
    for axes, heights in zip(panels, ends):
        log_ticks(axes.yaxis)
        _label(axes, heights, list(looks.values()))


def _line(axes: Axes, rows: Sequence[check.Row], by: str, value: str, name: str, look: Mapping[str, Any]) -> tuple:
    """Through the seeds' geometric means, bars from the least to the greatest seed; its right end and its label."""
    points = [row for row in rows if row[by] == name]
    widths = sorted({row["width"] for row in points})
    seeds = np.array([[row[value] for row in points if row["width"] == width] for width in widths])
    means = np.exp(np.log(seeds).mean(1))
    reach = np.maximum([means - seeds.min(1), seeds.max(1) - means], 0)  # rounding may leave less than nothing
    axes.errorbar(widths, means, yerr=reach, capsize=2, elinewidth=0.8, **look)
    axes.loglog()
    axes.set_xticks(widths, list(map(str, widths)))
    axes.minorticks_off()
    slope, _ = check.line(np.log([row["width"] for row in points]), np.log([row[value] for row in points]))
    return means[-1], f"{_signed(slope)}  {name}"


def _label(axes: Axes, ends: Sequence[tuple[float, str]], looks: Sequence[Mapping[str, Any]]) -> None:
    """Write each line's label beside its right end: as near as the gap between two labels allows, by least squares."""
    low, high = np.log(axes.get_ylim())
    in_order = sorted(zip(ends, looks), key=lambda pair: pair[0][0])
    gaps = LABEL_GAP * np.arange(len(in_order))
    wanted = [(np.log(end) - low) / (high - low) for (end, _), _ in in_order]
    heights = np.clip(isotonic_regression(wanted - gaps).x, 0, 1 - gaps[-1]) + gaps
    axes.text(1.1, 1.04, "slope", transform=axes.transAxes, fontsize=8, color=GREY)
    for height, ((_, text), look) in zip(heights, in_order):
        axes.plot(1.06, height, transform=axes.transAxes, clip_on=False, **look)
        axes.text(1.1, height, text, transform=axes.transAxes, va="center", fontsize=8)
