"""The figure of scaling.csv: speed against threads, model size and sequence length, and time against FLOPs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from columns import SCALING, read_rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scaling import SEQ_LEN, SEQ_LEN_MODEL

from cgpt.report.figure import COLOURS, MARKERS, log_ticks, new_figure, write_figure

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the figure's path without .svg and .png")
    arguments = parser.parse_args()
    rows = read_rows(arguments.csv, SCALING)
    write_figure(arguments.out, lambda: scaling_figure(rows))


def scaling_figure(rows: list[Row]) -> Figure:
    """Four panels; where one leaves a quantity out, that is the largest number of threads, or SEQ_LEN."""
    figure, (threads, sizes, lengths, times) = new_figure(2, 2, width=9.0, height=7.0)
    rows = [row | {"us_per_token": 1e6 / row["tokens_per_s"]} for row in rows]
    of_sizes = [row for row in rows if row["seq_len"] == SEQ_LEN]
    at_most = [row for row in rows if row["threads"] == max(row["threads"] for row in rows)]
    of_lengths = [row for row in at_most if row["model"] == SEQ_LEN_MODEL]
    counts = sorted({row["threads"] for row in of_sizes})
    for n_line, model in enumerate(dict.fromkeys(row["model"] for row in of_sizes)):
        _line(threads, [row for row in of_sizes if row["model"] == model], "threads", "tokens_per_s", model, n_line)
    threads.set_xticks(counts)
    for n_line, n in enumerate(counts):
        label = f"{n:.0f} thread{'s' if n > 1 else ''}"
        _line(sizes, [row for row in of_sizes if row["threads"] == n], "n_parameters", "tokens_per_s", label, n_line)
    _line(lengths, of_lengths, "seq_len", "tokens_per_s", SEQ_LEN_MODEL, 0)
    lengths.set_xticks([row["seq_len"] for row in of_lengths])
    _time_against_flops(times, [row for row in at_most if row["seq_len"] == SEQ_LEN], of_lengths)
    for axes in (sizes, times):
        axes.set_xscale("log")
        axes.set_yscale("log")
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
    for axes, label in ((threads, "threads"), (sizes, "parameters"), (lengths, "sequence length (tokens)"),
                        (times, "training FLOPs per token (6 N + 12 L S d)")):  # fmt: skip
        axes.set_xlabel(label)
        axes.set_ylabel("time per token (µs)" if axes is times else "tokens per second")
        axes.legend()
        if axes in (threads, lengths):
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter("{x:,.0f}")
    return figure


def _time_against_flops(axes: Axes, of_sizes: list[Row], of_lengths: list[Row]) -> None:
    """The line goes through the smallest model; what lies below it grows more slowly than its FLOPs."""
    _line(axes, of_sizes, "flops_per_token", "us_per_token", "model sizes", 0)
    _line(axes, of_lengths, "flops_per_token", "us_per_token", f"{SEQ_LEN_MODEL}, sequence lengths", 1)
    flops = [row["flops_per_token"] for row in of_sizes + of_lengths]
    least = min(of_sizes, key=lambda row: row["flops_per_token"])
    slope = least["us_per_token"] / least["flops_per_token"]
    ends = [min(flops), max(flops)]
    axes.plot(ends, [slope * end for end in ends], color="#595959", linestyle="--", label="as the FLOPs")


def _line(axes: Axes, rows: Sequence[Row], x: str, y: str, label: str, n_line: int) -> None:
    points = sorted((row[x], row[y]) for row in rows)
    axes.plot(*zip(*points), label=label, color=COLOURS[n_line % len(COLOURS)], marker=MARKERS[n_line % len(MARKERS)])


if __name__ == "__main__":
    main()
