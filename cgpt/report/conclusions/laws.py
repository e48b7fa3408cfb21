"""The laws of an experiment's `fit:`, in a sentence: exponents with their intervals, and whether a law fits at all."""

from collections.abc import Iterator, Mapping
from typing import Any

from cgpt.formats import short_amount
from cgpt.report.conclusions.conclusion import Conclusion, listed
from cgpt.report.laws.page import COST_WORDS, power_in_words
from cgpt.scaling import cost_law

SURE = 0.05  # an F test's chance below which a law is said not to fit
BASIS = ("Intervals are 95 % and of the law as fitted; how they are made, and every constant, stands in fits.md.",)
Fit = Mapping[str, Any]


def fitted_laws(fits: Mapping[str, Any]) -> Conclusion:
    """The laws of a fits.json, series by series; where one cannot be told, why."""
    parts = []
    for series, study in fits["series"].items():
        texts = [text for law, describe in _DESCRIBE.items() if study.get(law) for text in describe(study)]
        parts += [f"{f'Under {series}, ' if series else ''}{listed(texts)}"] if texts else []
    sentence = "; ".join(part if n == 0 else part[0].lower() + part[1:] for n, part in enumerate(parts))
    return Conclusion(f"{sentence[:1].upper()}{sentence[1:]}." if sentence else "No law was fitted.", (), BASIS)


def _compute(study: Fit) -> Iterator[str]:
    fits = [fit for fit in study["compute"]
            if fit["flops"] == study["primary_flops"] and fit["unit"] == "nats_per_token"]  # fmt: skip
    fit = cost_law.decided(fits)
    if fit is None:
        problems = dict.fromkeys(fit["problem"] for fit in fits if "problem" in fit)
        yield f"no law of loss in compute can be told ({'; '.join(problems)})"
        return
    constants = fit["constants"]
    offset = f" above an offset of {_constant(constants['e'])}" if "e" in constants else ""
    yield f"loss falls with compute as C^-alpha with alpha {_constant(constants['alpha'])}{offset}{_lack(fit)}"


def _lack(fit: Fit) -> str:
    test = fit.get("lack_of_fit")
    if test is None:
        return ", and whether that law fits beyond noise cannot be told from one seed"
    if test["p"] < SURE:
        return f", which the runs miss by more than seeds explain (lack of fit, p {test['p']:.1g})"
    return f", and the runs show no lack of fit (p {test['p']:.2g})"


def _isoflop(study: Fit) -> Iterator[str]:
    isoflop = study["isoflop"]
    laws = isoflop.get("laws", {}).get(study["primary_flops"])
    if laws is None:
        yield f"how the best size grows with compute cannot be told ({isoflop.get('problem', 'no law was decided')})"
        return
    inside = sum(budget["interior"] for budget in isoflop["budgets"])
    yield (
        f"the best size grows as C^{_constant(laws['n_exponent'])} and the best number of tokens as "
        f"C^{_constant(laws['d_exponent'])}, by the minima of {inside} of {len(isoflop['budgets'])} budgets"
    )


def _parametric(study: Fit) -> Iterator[str]:
    fit = study["parametric"]["n_parameters"]
    if "problem" in fit:
        yield f"no law of parameters and tokens can be told ({fit['problem']})"
        return
    constants = fit["constants"]
    n, d, best = (_constant(constants[name]) for name in ("alpha", "beta", "n_exponent"))
    yield f"loss falls with parameters as N^-{n} and with tokens as D^-{d}, so that the best size grows as C^{best}"


def _learning_rate(study: Fit) -> Iterator[str]:
    law = study["learning_rate"]
    power = law.get("power_of_width", {"problem": law.get("problem", "there are too few widths")})
    if "problem" in power:
        yield f"how the best learning rate goes with the width cannot be told ({power['problem']})"
        return
    low, high = power["ends"] or (1, 1)
    flat = ", which holds 0: no change with the width can be told" if low <= 0 <= high else ""
    yield f"the best learning rate goes as the width to the power {power_in_words(power)}{flat}"


def _hardware(study: Fit) -> Iterator[str]:
    """The cheapest machine to the first loss asked for, by each cost."""
    ways = [way for way in study.get("cheapest", ()) if way["loss"] == study["cheapest"][0]["loss"]]
    cheapest = [way for way in ways if way["cheapest"]]
    if not cheapest:
        yield "which machine is the cheapest way to a loss cannot be told"
        return
    yield f"a loss of {ways[0]['loss']:.2f} takes least on " + listed([_way(way) for way in cheapest])


def _way(way: Fit) -> str:
    mark = "~" if way["timing"] == "modeled" else ""
    value, low, high = (short_amount(steps) for steps in way["steps"])
    besides = f", and {mark}{short_amount(way['job_overhead'])} besides" if way["job_overhead"] else ""
    return f"{way['hardware']} in {COST_WORDS[way['cost']]} ({mark}{value} [{low}, {high}]{besides})"


def _constant(constant: Fit) -> str:
    """`0.069 [0.061, 0.078]`."""
    low, high = (f"{end:.3g}" if end is not None else "inf" for end in constant["ends"])
    return f"{constant['value']:.3g} [{low}, {high}]"


_DESCRIBE = {"compute": _compute, "isoflop": _isoflop, "parametric": _parametric, "learning_rate": _learning_rate,
             "hardware": _hardware}  # fmt: skip
