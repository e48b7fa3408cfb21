"""Fitted laws as fits.json and as tables for people."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cgpt.formats import short, short_amount
from cgpt.report.page import Cell, Page, Table, table_of
from cgpt.scaling.statistics import CONFIDENCE

N_KEPT_DRAWS = 1000  # in fits.json, for the intervals of forecasts
COST_WORDS = {"seconds": "seconds", "joules": "joules", "usd": "US dollars"}


def as_json(fits: Mapping[str, Any]) -> str:
    """JSON with six digits, lists of numbers on one line, null where a number is infinite, and no draws of machines."""
    text = json.dumps(_plain(fits), indent=1, allow_nan=False)
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
    rows = [[task["task"], *(f"{task[key]:.3g}" for key in ("low", "high", "slope", "middle")),
             *(f"{100 * task[key]:{'+' if key == 'largest_error' else ''}.1f}" for key in keys)]
            for task in tasks]  # fmt: skip
    title = "Zero-shot accuracy from loss: Cerebras-GPT SP and muP, mean absolute errors in points of accuracy"
    return table_of(title, names, rows)


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
    counted = f"{study['n_runs']} runs, {study['n_settings']} settings"
    if study["best_by"]:
        counted += f", of each size the best of {study['n_settings_tried']} by {', '.join(study['best_by'])}"
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
        tried = f"{study['n_runs_tried']} runs, {study['n_settings_tried']} settings{left_out}"
        yield _learning_rate_table(f"Best learning rate of each width{of} ({tried})", study["learning_rate"])


def _compute_table(title: str, fits: list[dict[str, Any]]) -> Table:
    names = ("loss in", "FLOPs", "form", "C0", "alpha", "E", "corr. alpha, E", "residual sd", "lack of fit",
             "largest left out")  # fmt: skip
    rows = []
    for fit in fits:
        texts = [fit["unit"].replace("_", " "), fit["flops"], fit["form"]]
        if "problem" in fit:
            texts.append(fit["problem"])
        else:
            test = fit["lack_of_fit"]
            f_test = "F({lack_freedom}, {pure_freedom}) {f:.3g}, p {p:.1g}".format(**test) if test else ""
            texts += [*_law_texts(fit), f_test, _largest_left_out(fit)]
        rows.append(texts)
    return table_of(title, names, rows)


def _law_texts(fit: Mapping[str, Any]) -> list[str]:
    """C0, alpha and E of a law of a cost, their correlation and the residual; E with the word where it lies at the 0
    that it is not let below."""
    c0, alpha, *e = fit["constants"].values()
    offset = _constant(e[0], lambda value: "0 (bound)" if value == 0 else f"{value:.4g}") if e else ""
    return [_constant(c0), _constant(alpha), offset, *_quality(fit)]


def _quality(fit: Mapping[str, Any]) -> list[str]:
    correlation = fit.get("correlation_alpha_e")
    return ["" if correlation is None else f"{correlation:.3f}", f"{fit['residual_sd']:.2%}"]


def _largest_left_out(fit: Mapping[str, Any]) -> str:
    return f"{fit['held_out'][-1]['error']:+.2%}" if fit["held_out"] else ""


def _held_out_table(title: str, study: Mapping[str, Any]) -> Table:
    """Errors of both forms under the primary convention, one row a run."""
    errors: dict[tuple[str, float], dict[str, float]] = {}
    for fit in study["compute"]:
        if fit["flops"] == study["primary_flops"] and fit["unit"] == "nats_per_token":
            for held in fit.get("held_out", ()):
                errors.setdefault((held["model"], held["flops"]), {})[fit["form"]] = held["error"]
    forms = ("offset", "power")
    rows = [[model, f"{flops:.3g}", *(f"{by_form[form]:+.2%}" if form in by_form else "" for form in forms)]
            for (model, flops), by_form in sorted(errors.items(), key=lambda item: item[0][1])]  # fmt: skip
    return table_of(title, ("model", "FLOPs", *forms), rows)


def _parametric_table(title: str, fits: Mapping[str, dict[str, Any]]) -> Table:
    names = ("loss in", "N counts", "A", "B", "E", "alpha", "beta", "N* ~ C^", "corr. alpha, E", "residual sd",
             "largest left out")  # fmt: skip
    rows = []
    for counts, fit in fits.items():
        counted = "all parameters" if counts == "n_parameters" else "no embeddings"
        if "problem" in fit:
            rows.append(["", counted, fit["problem"]])
            continue
        rest = [*_quality(fit), _largest_left_out(fit)]
        for unit, key in (("nats per token", "constants"), ("bits per byte", "constants_bits_per_byte")):
            if key in fit:
                rows.append([unit, counted, *map(_constant, fit[key].values()), *rest])
    return table_of(title, names, rows)


def _isoflop_tables(of: str, study: Mapping[str, Any]) -> Iterator[Table]:
    """The minima and the powers of compute that they follow, by parabolas through the nearest and through all sizes."""
    if "budgets" not in study:
        yield table_of(f"IsoFLOP{of}", ["problem"], [[study["problem"]]])
        return
    windows = [("all", study)]
    if "all_sizes" in study:
        windows = [(f"{study['n_sizes_in_parabola']} nearest", study), ("all", study["all_sizes"])]
    header = ["FLOPs", "runs", "sizes", "parabola through", "minimum", "N*", "D*", "D* / N*"]
    rows = [_budget_row(words, budget) for words, window in windows for budget in window["budgets"]]
    yield table_of(f"IsoFLOP minima{of} (equal FLOPs by {study['designed_in']})", header, rows)
    rows = []
    for words, window in windows:
        if "laws" not in window:
            rows.append([window["problem"], words])
        for name, law in window.get("laws", {}).items():
            held_out = [f"{law[f'{key}_held_out_error']:+.1%}" if f"{key}_held_out_error" in law else ""
                        for key in "nd"]  # fmt: skip
            exponents = [_constant(law[f"{key}_exponent"]) for key in "nd"]
            rows.append([name, words, *exponents, *held_out])
    names = ("FLOPs", "parabola through", "N* ~ C^", "D* ~ C^", "N* of the largest budget left out", "D* of it")
    yield table_of(f"Best size and tokens{of}", names, rows)


def _budget_row(words: str, budget: Mapping[str, Any]) -> list[str]:
    texts = [f"{budget['flops']:.3g}", str(budget["n_runs"]), str(budget["n_sizes"]), words]
    if not budget["interior"]:
        return [*texts, f"NOT interior: best at {short(budget['best_size_trained'])}, an end"]
    share = budget["interior_share_of_draws"]
    return [*texts, "interior" if share >= CONFIDENCE else f"interior in {share:.0%} of draws",
            *(_constant(budget[key], short, short) for key in ("n_parameters", "tokens")),
            _constant(budget["tokens_per_parameter"], short_amount, short_amount)]  # fmt: skip


def _learning_rate_table(title: str, study: Mapping[str, Any]) -> Table:
    """One row a width, and the power of the width that the best rate follows."""
    if "problem" in study:
        return table_of(title, ["problem"], [[study["problem"]]])
    names = ("d_model", "parameters", "best lr", "best lr trained", "loss there", "lost at the narrowest one's")
    rows = []
    for width in study["widths"]:
        ends = width["best_lr_ends"]
        best = f"{width['best_lr']:.3g}" + (f" [{ends[0]:.2g}, {ends[1]:.2g}]" if ends else "")
        share = width["interior_share_of_draws"]
        if not width["interior"]:
            best += " or beyond, NOT interior: an end of the rates"
        elif share < CONFIDENCE:
            best += f", interior in {share:.0%} of draws"
        rows.append([str(width["d_model"]), short(width["n_parameters"]), best, f"{width['best_on_grid']:g}",
                     f"{width['best_loss_on_grid']:.3f}", f"{width['lost_at_narrowest_best_lr']:.3f}"])  # fmt: skip
    if power := study.get("power_of_width"):
        rows.append(["best lr ~ d_model^", "", power_in_words(power)])
    return table_of(title, names, rows)


def power_in_words(power: Mapping[str, Any]) -> str:
    """`-0.36 [-0.62, -0.05], of 3 of 4 widths`, or why there is none."""
    if "problem" in power:
        return str(power["problem"])
    ends = f" [{power['ends'][0]:.2f}, {power['ends'][1]:.2f}]" if power["ends"] else " (one seed: no interval)"
    n, n_at_an_end = power["n_widths"], power["n_at_an_end"]
    return f"{power['value']:.2f}{ends}" + (f", of {n} of {n + n_at_an_end} widths" if n_at_an_end else "")


def _hardware_table(title: str, fits: list[dict[str, Any]]) -> Table:
    """A row for each machine, cost and form; a cost not known has one, with the reason."""
    names = ("machine", "cost", "form", "C0", "alpha", "E", "corr. alpha, E", "residual sd", "largest left out",
             "a job takes besides")  # fmt: skip
    rows = []
    for fit in fits:
        cells: list[str | Cell] = [_machine(fit), COST_WORDS[fit["cost"]], fit["form"] or ""]
        if "problem" in fit:
            cells.append(Cell("", fit["problem"]))
        else:
            c0, *rest = _law_texts(fit)
            besides = _mark(fit) + short_amount(fit["job_overhead"]) if fit["job_overhead"] else ""
            cells += [_mark(fit) + c0, *rest, _largest_left_out(fit), besides]
        rows.append(cells)
    return table_of(title, names, rows, in_groups=True)


def _cheapest_table(title: str, ways: list[dict[str, Any]]) -> Table:
    """A row for each loss and machine, a column for each cost that some machine has."""
    rows: dict[tuple[float, str], dict[str, dict[str, Any]]] = {}
    for way in ways:
        rows.setdefault((way["loss"], way["hardware"]), {})[way["cost"]] = way
    costs = [cost for cost in COST_WORDS if any(way["cost"] == cost for way in ways)]
    body = [[f"{loss:.2f}", _machine(next(iter(of_costs.values()))),
             *(_way(of_costs[cost]) if cost in of_costs else "" for cost in costs)]
            for (loss, _), of_costs in rows.items()]  # fmt: skip
    header: list[str | Cell] = [Cell("loss", "nats per token"), "machine", *(COST_WORDS[cost] for cost in costs)]
    return table_of(title, header, body, in_groups=True)


def _machine(fit: Mapping[str, Any]) -> Cell:
    return Cell(fit["hardware"], "extrapolated" if fit["extrapolated"] else "")


def _mark(fit: Mapping[str, Any]) -> str:
    return "~" if fit["timing"] == "modeled" else ""


def _way(way: Mapping[str, Any]) -> Cell:
    """`~12.3 [10.1, 15] + 3,100`: of the steps, and what a job takes besides."""
    value, low, high = (short_amount(steps) for steps in way["steps"])
    if not math.isfinite(way["steps"][0]):
        return Cell("not reached")
    besides = f" + {short_amount(way['job_overhead'])}" if way["job_overhead"] else ""
    return Cell(f"{_mark(way)}{value} [{low}, {high}]{besides}", "cheapest" if way["cheapest"] else "")


def _end(value: float | None) -> str:
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "inf"


def _constant(constant: Mapping[str, Any], value: Callable[[float], str] = "{:.4g}".format,
              end: Callable[[float], str] = _end) -> str:  # fmt: skip
    """`0.348 [0.317, 0.373]`; how to write value and ends."""
    low, high = constant["ends"]
    return f"{value(constant['value'])} [{end(low)}, {end(high)}]"


# Words of the page: those of every kind of fit, and of each.
FACTS = [
    ("[a, b]", "95 % interval: the fitted law with normal misses between settings, their size as uncertain as so few "
     "leave it (Student's t); from 30 settings on, settings drawn with replacement. Simulated, it holds the truth in "
     "92 to 98 of 100 studies where the law is the true one; alpha's in 90 where E is 0 in truth and an offset is "
     "fitted (take the power law's there), and in 92 where seeds make the misses and settings differ in their number"),
    ("runs, settings", "runs of one setting differ in nothing but their seed, and a setting counts once, with the mean "
     "of its runs"),
    ("best of", "where settings of one size and length differ in a learning rate or a batch, the one with the least "
     "mean loss stands for them"),
    ("residual sd", "standard deviation of (observed - fitted) / fitted"),
    ("left out", "(predicted - observed) / observed of the largest, by the law of all smaller ones: below 0, the law "
     "promises too much"),
]  # fmt: skip
FACTS_OF = {
    "compute": [
        ("L(C)", "(C / C0)^-alpha + E with E >= 0 and alpha from 0.001 to 3, least squares of the loss; the power law "
         "has no E, least squares of its log"),
        ("0 (bound)", "E would be below 0: it, and then the lower ends of its interval and of alpha's, are this bound"),
        ("corr. alpha, E", "of their ranks over the draws that give the intervals: near 1, the runs decide only both "
         "together, and neither is to be quoted without its interval"),
        ("lack of fit", "F test of the misses of the settings' means against the differences between seeds: a small "
         "p says that no law of that form goes through the runs"),
        ("FLOPs", "6nd: 6 N D with all parameters; palm: attention added; chinchilla: embeddings and softmax added; "
         "cerebras: Cerebras-GPT's own count; reported: as printed in the paper"),
    ],
    "parametric": [
        ("L(N, D)", "E + A / N^alpha + B / D^beta of N parameters and D tokens, least sum of Huber losses (1e-3) of "
         "log residuals; best N* ~ C^(beta / (alpha + beta))"),
    ],
    "isoflop": [
        ("N*, D*", "size and tokens at the minimum of a parabola of loss in log N through the sizes nearest the best "
         "one of each budget; through all sizes beside it, as far from its minimum the loss is no parabola. A draw's "
         "minimum beyond the sizes trained counts at the last one"),
        ("interior", "the minimum lies inside the sizes trained, in at least 95 % of the draws or in the share given"),
    ],
    "hardware": [
        ("costs", "seconds, joules and US dollars of the steps alone (tokens over tokens per second), on all systems "
         "of a profile; what a job takes beside them (compiling, programming, sending weights, a checkpoint) stands "
         "beside: it would hide the law of small models; of what no profile tells, as of GPUs, nothing is counted"),
        ("joules, usd", "nameplate power and price of the profile, times the seconds; not known where it names none"),
        ("~", "modeled, not measured; extrapolated: beyond the sizes that the cost model was fitted to; where its "
         "latency binds, a profile that takes another's (h100 a100's, cs3 cs2's) has the same seconds"),
        ("losses", "the middle of those reached, the lowest, and one that no run reached, a tenth of their range "
         "lower"),
        ("inf", "more than one draw in 40 has an E above that loss"),
        ("cheapest", "of the machines in the table, the one whose job, with what it takes beside the steps, is least"),
    ],
    "learning_rate": [
        ("best lr", "minimum of the parabola in log rate through the best rate trained and its neighbours; its "
         "interval: normal noise of the seeds' standard deviation at those rates (Student's t)"),
        ("NOT interior", "the loss still falls at the last rate trained: the best one is there or beyond, and has no "
         "part in the power of the width, which needs three others"),
        ("lost", "how much higher the loss is at the narrowest model's best rate than at this one's, of rates trained"),
    ],
}  # fmt: skip
