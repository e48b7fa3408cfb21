"""The figure of published runs and our own: bits per byte against training FLOPs.

Losses per token of different vocabularies cannot stand on one axis; bits per byte of text can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cgpt.report.figure import COLOURS, GREY, MARKERS, new_figure
from cgpt.report.laws.figure import BEYOND, Study, band, log_loss
from cgpt.scaling.cost_law import law_of, loss_at
from cgpt.scaling.points import Points
from cgpt.scaling.published import PAPER_LAW, TOKENS_PER_BYTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PILE_BITS_PER_NAT = TOKENS_PER_BYTE / math.log(2)


def published_figure(ours: Mapping[str, Points], family: Mapping[str, Points], others: Mapping[str, tuple],
                     laws: Mapping[str, Study]) -> Figure:  # fmt: skip
    """Our points, the published ones, the paper's law with the band of its refit and ours with theirs, all FLOPs over.

    `others`: FLOPs and losses by name; `laws`: fits with draws, the paper's under the name `paper`, ours under theirs.
    FLOPs are Cerebras-GPT's count throughout. Raises ValueError for points of ours whose bytes are unknown.
    """
    figure, (axes,) = new_figure(height=4.6)
    shown = [(name, points.flops["cerebras"], points.loss, _bits_per_nat(points)) for name, points in ours.items()]
    shown += [(name, points.flops["reported"], points.loss, PILE_BITS_PER_NAT) for name, points in family.items()]
    shown += [(name, flops, loss, PILE_BITS_PER_NAT) for name, (flops, loss) in others.items()]
    flops = np.concatenate([flops for _, flops, _, _ in shown])
    x = np.geomspace(min(flops.min(), 1e17) / BEYOND, flops.max() * 10, 200)
    band(axes, x, laws["paper"], GREY, PILE_BITS_PER_NAT)
    axes.plot(x, PILE_BITS_PER_NAT * loss_at(np.array(PAPER_LAW), x), color="#000000", linewidth=1.2,
              label="Cerebras-GPT, equation 1; band: 95 % of its refit")  # fmt: skip
    for n, (name, at, loss, scale) in enumerate(shown):
        colour = COLOURS[n % len(COLOURS)]
        if name in laws:
            band(axes, x, laws[name], colour, scale)
            axes.plot(x, scale * loss_at(law_of(laws[name]), x), color=colour, linestyle="--", linewidth=1)
        fill = "none" if name.endswith("muP") else colour  # it lies on its SP twin
        axes.plot(at, scale * loss, linestyle="", markersize=5, label=f"{name}, n={len(loss)}", markerfacecolor=fill,
                  color=colour, marker=MARKERS[n % len(MARKERS)])  # fmt: skip
    if any(name in laws for name in ours):
        axes.plot([], [], color=GREY, linestyle="--", linewidth=1, label="our laws, each with its band of 95 %")
    for points in list(ours.values())[:1]:
        _name_models(axes, points, points.flops["cerebras"], _bits_per_nat(points))
    for points in list(family.values())[:1]:
        _name_models(axes, points, points.flops["reported"], PILE_BITS_PER_NAT)
    axes.set_xscale("log")
    axes.set_xlabel("training FLOPs, counted as in Cerebras-GPT")
    axes.set_ylabel("loss (bits per byte)")
    log_loss(axes)
    if ours:
        axes.set_ylim(top=1.15 * max(float((scale * loss).max()) for *_, loss, scale in shown))
    axes.legend(fontsize=8, loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")
    caveat = "; ours: another text and vocabulary, so that only slopes compare" if ours else ""
    axes.set_title(f"Published: the Pile{caveat}", fontsize=9)
    return figure


def _bits_per_nat(points: Points) -> float:
    """Bits per byte over nats per token: the same for all runs of a text and a vocabulary."""
    if points.bits_per_byte is None:
        raise ValueError("the points have no bits per byte")
    return float((points.bits_per_byte / points.loss).mean())


def _name_models(axes: Axes, points: Points, flops: np.ndarray, scale: float) -> None:
    """Each setting's model below and left of its mean."""
    for number, (x, y) in enumerate(zip(points.setting_means(flops), scale * points.setting_means(points.loss))):
        axes.annotate(points.model_of(number).removeprefix("Cerebras-GPT-"), (x, y), xytext=(-4, -9), fontsize=7,
                      textcoords="offset points", ha="right")  # fmt: skip
