"""The laws of an experiment's `fit:`, in a sentence: exponents with their intervals, and whether a law fits at all."""

import math
from collections.abc import Mapping
from typing import Any

from cgpt.formats import short_amount
from cgpt.report.conclusions.conclusion import Conclusion, listed
from cgpt.report.laws.page import COST_WORDS
from cgpt.scaling import cost_law

SURE = 0.05  # an F test's chance below which a law is said not to fit
BASIS = ("Intervals are of the law as fitted; how they are made, and every constant, stands in fits.md.",)
Fit = Mapping[str, Any]


def fitted_laws(fits: Mapping[str, Any]) -> Conclusion:
    """The laws of a fits.json, a sentence each with all its series; where one cannot be told, why."""
    kinds = dict.fromkeys(law for study in fits["series"].values() for law in study
                          if law in _DESCRIBE and study[law])  # fmt: skip
    sentences = [_sentence({series: describe(study) for series, study in fits["series"].items() if study.get(law)})
                 for law in kinds for describe in _DESCRIBE[law]]  # fmt: skip
    first, *more = list(filter(None, sentences)) or ["No law was fitted."]
    return Conclusion(first, more, BASIS)


def _sentence(of_series: Mapping[str, str]) -> str:
    parts = [f"under {series}, {text}" if series else text for series, text in of_series.items() if text]
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if parts else ""


def _compute(study: Fit) -> str:
    law = _law_to_tell(study)
    if law is None:
        problems = dict.fromkeys(fit["problem"] for fit in _primary_fits(study) if "problem" in fit)
        return f"no law of loss in compute can be told ({'; '.join(problems)})"
    constants = law["constants"]
    offset = f" above an offset of {_constant(constants['e'])}" if "e" in constants else ""
    return f"loss falls with compute as C^-alpha with alpha {_constant(constants['alpha'])}{offset}{_lack(law)}"


def _offset(study: Fit) -> str:
    """Whether an offset was left out, as its interval reaches 0."""
    law, decided = _law_to_tell(study), cost_law.decided(_primary_fits(study))
    if decided is None or decided is law:
        return ""
    alpha, e = decided["constants"]["alpha"], decided["constants"]["e"]
    return (f"whether the law has an offset these runs do not tell: it may be 0 to {e['ends'][1]:.3g}, and with it "
            f"alpha is {_constant(alpha)}")  # fmt: skip


def _law_to_tell(study: Fit) -> Fit | None:
    """The law with an offset, or the power law where the runs do not decide an offset."""
    fits = _primary_fits(study)
    decided = cost_law.decided(fits)
    if decided is None or "e" not in decided["constants"] or decided["constants"]["e"]["ends"][0] > 0:
        return decided
    return next((fit for fit in fits if fit["form"] == "power" and "constants" in fit), decided)


def _primary_fits(study: Fit) -> list[Fit]:
    return [fit for fit in study["compute"]
            if fit["flops"] == study["primary_flops"] and fit["unit"] == "nats_per_token"]  # fmt: skip


def _lack(fit: Fit) -> str:
    test = fit.get("lack_of_fit")
    if test is None:
        return ", and whether that law fits beyond noise cannot be told from one seed"
    if test["p"] < SURE:
        return f", which the runs miss by more than seeds explain (lack of fit, p {test['p']:.1g})"
    return f", and the runs show no lack of fit (p {test['p']:.2g})"


def _isoflop(study: Fit) -> str:
    isoflop = study["isoflop"]
    laws = isoflop.get("laws", {}).get(study["primary_flops"])
    if laws is None:
        return f"how the best size grows with compute cannot be told ({isoflop.get('problem', 'no law was decided')})"
    inside = sum(budget["interior"] for budget in isoflop["budgets"])
    n, d = (_constant(laws[name]) for name in ("n_exponent", "d_exponent"))
    budgets = f"{inside} of {len(isoflop['budgets'])} budgets"
    return (f"by the minima of {budgets} the best size grows with compute as C^{n}, and the best number of tokens as "
            f"C^{d}")  # fmt: skip


def _parametric(study: Fit) -> str:
    fit = study["parametric"]["n_parameters"]
    if "problem" in fit:
        return f"no law of parameters and tokens can be told ({fit['problem']})"
    n, d, best = (_constant(fit["constants"][name]) for name in ("alpha", "beta", "n_exponent"))
    return (f"loss falls with parameters as N^-alpha with alpha {n} and with tokens as D^-beta with beta {d}, so that "
            f"the best size grows as C^{best}")  # fmt: skip


def _learning_rate(study: Fit) -> str:
    law = study["learning_rate"]
    power = law.get("power_of_width", {"problem": law.get("problem", "there are too few widths")})
    if "problem" in power:
        return f"how the best learning rate goes with the width cannot be told ({power['problem']})"
    ends = power["ends"]
    known = f" (95 % interval {ends[0]:.2f} to {ends[1]:.2f})" if ends else ", one seed each, so without an interval"
    flat = ", which holds 0: that it changes with the width cannot be told" if ends and ends[0] <= 0 <= ends[1] else ""
    n, n_at_an_end = power["n_widths"], power["n_at_an_end"]
    widths = f", by {n} of {n + n_at_an_end} widths" if n_at_an_end else ""
    return f"the best learning rate goes as the width to the power {power['value']:.2f}{known}{flat}{widths}"


def _hardware(study: Fit) -> str:
    """The cheapest machine to the first loss asked for, by each cost."""
    ways = [way for way in study.get("cheapest", ()) if way["loss"] == study["cheapest"][0]["loss"]]
    costs: dict[str, list[Fit]] = {}
    for way in ways:
        if way["cheapest"]:
            costs.setdefault(way["cost"], []).append(way)
    if not costs:
        return "which machine is the cheapest way to a loss cannot be told"
    texts = [f"{listed([way['hardware'] for way in least])} in {COST_WORDS[cost]}, {_way(least[0])}"
             for cost, least in costs.items()]  # fmt: skip
    return f"the cheapest way to a loss of {ways[0]['loss']:.2f} is {listed(texts)}"


def _way(way: Fit) -> str:
    """`~446 (95 % interval 322 to inf)`; fits.json has no number for what is infinite."""
    mark = "~" if way["timing"] == "modeled" else ""
    value, low, high = (short_amount(math.inf if steps is None else steps) for steps in way["steps"])
    besides = f", and {mark}{short_amount(way['job_overhead'])} besides" if way["job_overhead"] else ""
    return f"{mark}{value} (95 % interval {low} to {high}{besides})"


def _constant(constant: Fit) -> str:
    """`0.069 (95 % interval 0.061 to 0.078)`."""
    low, high = (f"{end:.3g}" if end is not None else "any" for end in constant["ends"])
    return f"{constant['value']:.3g} (95 % interval {low} to {high})"


_DESCRIBE = {"compute": (_compute, _offset), "isoflop": (_isoflop,), "parametric": (_parametric,),
             "learning_rate": (_learning_rate,), "hardware": (_hardware,)}  # fmt: skip
