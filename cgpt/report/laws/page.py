"""Fitted laws as fits.json and as tables for people."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cgpt.formats import short, short_amount
from cgpt.report.laws.glossary import FACTS, FACTS_OF
from cgpt.report.page import Cell, Page, Table
from cgpt.scaling.statistics import CONFIDENCE

N_KEPT_DRAWS = 1000  # in fits.json, for the intervals of forecasts
COST_LABELS = {"seconds": "seconds", "joules": "joules", "usd": "US dollars"}


def as_json(found: Mapping[str, Any]) -> str:
    """JSON with six digits, lists of numbers on one line, null where a number is infinite, and no draws of machines."""
    text = json.dumps(_plain(found), indent=1, allow_nan=False)
    return re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def page(name: str, question: str, studies: Mapping[str, Mapping[str, Any]], tasks: list[dict[str, Any]]) -> Page:
    """Every fit of every series; `tasks`: the sigmoids of accuracy in loss, where there are any."""
    facts = FACTS + [fact for kind in FACTS_OF if any(study.get(kind) for study in studies.values())
                     for fact in FACTS_OF[kind]]  # fmt: skip
    tables = [table for series, study in studies.items() for table in _tables(series, study)]
    tables += [_downstream_table(tasks)] if tasks else []
    return Page(f"Scaling laws: {name}", question, facts, tables)


def _downstream_table(tasks: list[dict[str, Any]]) -> Table:
    """The sigmoids of accuracy in loss and their errors, in points of accuracy."""
    names = ("task", "low", "high", "slope", "middle", "model left out", "13B, its loss given, from smaller", "Pythia")
    keys = ("left_out_mean_error", "largest_error", "pythia_mean_error")
    rows = [[Cell(task["task"]), *(Cell(f"{task[key]:.3g}") for key in ("low", "high", "slope", "middle")),
             *(Cell(f"{100 * task[key]:{'+' if key == 'largest_error' else ''}.1f}") for key in keys)]
            for task in tasks]  # fmt: skip
    return Table("Zero-shot accuracy from loss: Cerebras-GPT SP and muP, mean absolute errors in points of accuracy",
                 [Cell(name) for name in names], rows)  # fmt: skip


def _plain(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        left_out = {"draws"} if "hardware" in value else set()  # nothing reads them again, and they are many
        return {name: _plain(item, name) for name, item in value.items() if name not in left_out}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in (value[:N_KEPT_DRAWS] if key == "draws" else value)]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _tables(series: str, study: Mapping[str, Any]) -> Iterator[Table]:
    of = f" of {series}" if series else ""
    left_out = f"; {study['n_left_out']} runs without a finite loss left out" if study["n_left_out"] else ""
    counted = f"{study['n_runs']} runs, {study['n_cells']} settings"
    if study["best_by"]:
        counted += f", of each size the best of {study['n_cells_tried']} by {', '.join(study['best_by'])}"
    n_at_an_end, n_swept = study.get("rates_at_an_end", (0, 0))
    if n_at_an_end:
        counted += f"; at {n_at_an_end} of {n_swept} the best learning rate is the last one tried on its side"
    counted += left_out
    if study["seeds_apart"]:
        each = ", ".join(f"{model} at {loss:.3f}" for model, loss in study["seeds_apart"])
        counted += f"; a seed apart from the others of its setting and part of its mean: {each}"
    if "compute" in study:
        yield _compute_table(f"Loss against compute{of} ({counted})", study["compute"])
        held_out = _held_out_table(f"Extrapolation{of}: each run by the law of all smaller ones", study)
        if held_out.rows:
            yield held_out
    if "parametric" in study:
        yield _parametric_table(f"Loss against parameters and tokens{of} ({counted})", study["parametric"])
    if "isoflop" in study:
        yield from _isoflop_tables(of, study["isoflop"])
    if study.get("hardware"):
        yield _hardware_table(f"Loss against what training costs{of} ({counted})", study["hardware"])
    if study.get("cheapest"):
        yield _cheapest_table(f"The cheapest way to a loss{of}", study["cheapest"])
    if "learning_rate" in study:
        tried = f"{study['n_runs_tried']} runs, {study['n_cells_tried']} settings{left_out}"
        yield _learning_rate_table(f"Best learning rate of each width{of} ({tried})", study["learning_rate"])


def _compute_table(title: str, fits: list[dict[str, Any]]) -> Table:
    names = ("loss in", "FLOPs", "form", "C0", "alpha", "E", "corr. alpha, E", "residual sd", "lack of fit",
             "largest left out")  # fmt: skip
    rows = []
    for fit in fits:
        cells = [fit["unit"].replace("_", " "), fit["flops"], fit["form"]]
        if "problem" in fit:
            cells += [fit["problem"], *[""] * 6]
        else:
            cells += [_constant(fit["constants"].get(name)) for name in ("c0_flops", "alpha")]
            cells += [_offset(fit["constants"].get("e"))]
            cells += [_correlation(fit)]
            cells += [f"{fit['residual_sd']:.2%}", _lack_of_fit(fit["lack_of_fit"])]
            cells += [f"{fit['held_out'][-1]['error']:+.2%}" if fit["held_out"] else ""]
        rows.append([Cell(text) for text in cells])
    return Table(title, [Cell(name) for name in names], rows)


def _correlation(fit: Mapping[str, Any]) -> str:
    correlation = fit.get("correlation_alpha_e")
    return "" if correlation is None else f"{correlation:.3f}"


def _lack_of_fit(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"F({found['lack_freedom']}, {found['pure_freedom']}) {found['f']:.3g}, p {found['p']:.1g}"


def _held_out_table(title: str, study: Mapping[str, Any]) -> Table:
    """Errors of both forms under the primary convention, one row a run."""
    errors: dict[tuple[str, float], dict[str, float]] = {}
    for fit in study["compute"]:
        if fit["flops"] == study["primary_flops"] and fit["unit"] == "nats_per_token":
            for held in fit.get("held_out", ()):
                errors.setdefault((held["model"], held["flops"]), {})[fit["form"]] = held["error"]
    rows = [[Cell(model), Cell(f"{flops:.3g}"), *(Cell(f"{of[form]:+.2%}" if form in of else "")
                                                  for form in ("offset", "power"))]
            for (model, flops), of in sorted(errors.items(), key=lambda item: item[0][1])]  # fmt: skip
    return Table(title, [Cell(name) for name in ("model", "FLOPs", "offset", "power")], rows)


def _parametric_table(title: str, fits: Mapping[str, dict[str, Any]]) -> Table:
    names = ("loss in", "N counts", "A", "B", "E", "alpha", "beta", "N* ~ C^", "corr. alpha, E", "residual sd",
             "largest left out")  # fmt: skip
    rows = []
    for counts, fit in fits.items():
        counted = "all parameters" if counts == "n_parameters" else "no embeddings"
        if "problem" in fit:
            rows.append(["", counted, fit["problem"], *[""] * 8])
            continue
        held = fit["held_out"]
        rest = [_correlation(fit), f"{fit['residual_sd']:.2%}",
                f"{held[-1]['error']:+.2%}" if held else ""]  # fmt: skip
        for unit, key in (("nats per token", "constants"), ("bits per byte", "constants_bits_per_byte")):
            if key in fit:
                rows.append([unit, counted, *map(_constant, fit[key].values()), *rest])
    return Table(title, [Cell(name) for name in names], [[Cell(text) for text in row] for row in rows])


def _isoflop_tables(of: str, found: Mapping[str, Any]) -> Iterator[Table]:
    """The minima and the powers of compute that they follow, by parabolas through the nearest and through all sizes."""
    if "budgets" not in found:
        yield Table(f"IsoFLOP{of}", [Cell("problem")], [[Cell(found["problem"])]])
        return
    windows = [(f"{found['n_sizes_in_parabola']} nearest", found)] if "all_sizes" in found else [("all", found)]
    windows += [("all", found["all_sizes"])] if "all_sizes" in found else []
    header = ["FLOPs", "runs", "sizes", "parabola through", "minimum", "N*", "D*", "D* / N*"]
    rows = [_budget_row(words, budget) for words, window in windows for budget in window["budgets"]]
    yield Table(f"IsoFLOP minima{of} (equal FLOPs by {found['designed_in']})", [Cell(name) for name in header], rows)
    rows = []
    for words, window in windows:
        if "laws" not in window:
            rows.append([Cell(window["problem"]), Cell(words), *[Cell("")] * 4])
        for name, law in window.get("laws", {}).items():
            held_out = [f"{law[f'{key}_held_out_error']:+.1%}" if f"{key}_held_out_error" in law else ""
                        for key in "nd"]  # fmt: skip
            exponents = [_constant(law[f"{key}_exponent"]) for key in "nd"]
            rows.append([Cell(text) for text in (name, words, *exponents, *held_out)])
    names = ("FLOPs", "parabola through", "N* ~ C^", "D* ~ C^", "N* of the largest budget left out", "D* of it")
    yield Table(f"Best size and tokens{of}", [Cell(name) for name in names], rows)


def _budget_row(words: str, budget: Mapping[str, Any]) -> list[Cell]:
    said = [f"{budget['flops']:.3g}", str(budget["n_runs"]), str(budget["n_sizes"]), words]
    if not budget["interior"]:
        said += [f"NOT interior: best at {short(budget['best_size_trained'])}, an end", "", "", ""]
    else:
        share = budget["interior_share_of_draws"]
        said += ["interior" if share >= CONFIDENCE else f"interior in {share:.0%} of draws"]
        said += [_constant(budget[key], short, short) for key in ("n_parameters", "tokens")]
        said += [_constant(budget["tokens_per_parameter"], short_amount, short_amount)]
    return [Cell(text) for text in said]


def _learning_rate_table(title: str, found: Mapping[str, Any]) -> Table:
    """One row a width, and the power of the width that the best rate follows."""
    if "problem" in found:
        return Table(title, [Cell("problem")], [[Cell(found["problem"])]])
    names = ("d_model", "parameters", "best lr", "best lr trained", "loss there", "lost at the narrowest one's")
    rows = []
    for width in found["widths"]:
        ends = width["best_lr_ends"]
        best = f"{width['best_lr']:.3g}" + (f" [{ends[0]:.2g}, {ends[1]:.2g}]" if ends else "")
        share = width["interior_share_of_draws"]
        if not width["interior"]:
            best += " or beyond, NOT interior: an end of the rates"
        elif share < CONFIDENCE:
            best += f", interior in {share:.0%} of draws"
        rows.append([Cell(text) for text in (
            str(width["d_model"]), short(width["n_parameters"]), best, f"{width['best_on_grid']:g}",
            f"{width['best_loss_on_grid']:.3f}", f"{width['lost_at_narrowest_best_lr']:.3f}",
        )])  # fmt: skip
    if power := found.get("power_of_width"):
        rows.append([Cell("best lr ~ d_model^"), Cell(""), Cell(power_in_words(power)), *[Cell("")] * 3])
    return Table(title, [Cell(name) for name in names], rows)


def power_in_words(power: Mapping[str, Any]) -> str:
    """`-0.36 [-0.62, -0.05], of 3 of 4 widths`, or why there is none."""
    if "problem" in power:
        return str(power["problem"])
    ends = f" [{power['ends'][0]:.2f}, {power['ends'][1]:.2f}]" if power["ends"] else " (one seed: no interval)"
    n_all = power["n_widths"] + power["n_at_an_end"]
    return f"{power['value']:.2f}{ends}" + (
        f", of {power['n_widths']} of {n_all} widths" if power["n_at_an_end"] else ""
    )


def _hardware_table(title: str, fits: list[dict[str, Any]]) -> Table:
    """A row for each machine, cost and form; a cost not known has one, with the reason."""
    names = ("machine", "cost", "form", "C0", "alpha", "E", "corr. alpha, E", "residual sd", "largest left out",
             "a job takes besides")  # fmt: skip
    rows = []
    for fit in fits:
        cells = [Cell(COST_LABELS[fit["cost"]]), Cell(fit["form"] or "")]
        if "problem" in fit:
            cells += [Cell("", fit["problem"]), *[Cell("")] * 6]
        else:
            mark = _mark(fit)
            c0, alpha, *e = fit["constants"].values()
            cells += [Cell(mark + _constant(c0)), Cell(_constant(alpha)), Cell(_offset(e[0]) if e else "")]
            cells += [Cell(_correlation(fit))]
            cells += [Cell(f"{fit['residual_sd']:.2%}"),
                      Cell(f"{fit['held_out'][-1]['error']:+.2%}" if fit["held_out"] else ""),
                      Cell(mark + short_amount(fit["job_overhead"]) if fit["job_overhead"] else "")]  # fmt: skip
        rows.append([_machine(fit), *cells])
    return Table(title, [Cell(name) for name in names], rows, in_groups=True)


def _cheapest_table(title: str, ways: list[dict[str, Any]]) -> Table:
    """A row for each loss and machine, a column for each cost that some machine has."""
    rows: dict[tuple[float, str], dict[str, dict[str, Any]]] = {}
    for way in ways:
        rows.setdefault((way["loss"], way["hardware"]), {})[way["cost"]] = way
    costs = [cost for cost in COST_LABELS if any(way["cost"] == cost for way in ways)]
    body = [[Cell(f"{loss:.2f}"), _machine(next(iter(of_costs.values()))),
             *(_way(of_costs[cost]) if cost in of_costs else Cell("") for cost in costs)]
            for (loss, _), of_costs in rows.items()]  # fmt: skip
    header = [Cell("loss", "nats per token"), Cell("machine"), *(Cell(COST_LABELS[cost]) for cost in costs)]
    return Table(title, header, body, in_groups=True)


def _machine(found: Mapping[str, Any]) -> Cell:
    return Cell(found["hardware"], "extrapolated" if found["extrapolated"] else "")


def _mark(found: Mapping[str, Any]) -> str:
    return "~" if found["timing"] == "modeled" else ""


def _way(way: Mapping[str, Any]) -> Cell:
    """`~12.3 [10.1, 15] + 3,100`: of the steps, and what a job takes besides."""
    value, low, high = (short_amount(steps) for steps in way["steps"])
    if not math.isfinite(way["steps"][0]):
        return Cell("not reached")
    besides = f" + {short_amount(way['job_overhead'])}" if way["job_overhead"] else ""
    return Cell(f"{_mark(way)}{value} [{low}, {high}]{besides}", "cheapest" if way["cheapest"] else "")


def _end(value: float | None) -> str:
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "inf"


def _constant(constant: Mapping[str, Any] | None, value: Callable[[float], str] = "{:.4g}".format,
              end: Callable[[float], str] = _end) -> str:  # fmt: skip
    """`0.348 [0.317, 0.373]`; how to write value and ends."""
    if constant is None:
        return ""
    low, high = constant["ends"]
    return f"{value(constant['value'])} [{end(low)}, {end(high)}]"


def _offset(constant: Mapping[str, Any] | None) -> str:
    """E, with the word where it lies at the 0 that it is not let below."""
    return _constant(constant, lambda value: "0 (bound)" if value == 0 else f"{value:.4g}")
