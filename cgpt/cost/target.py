"""`forecast --target-loss`: the cheapest training that reaches a loss, by a fitted law, on each hardware profile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgpt import flops
from cgpt.collect import short
from cgpt.cost import forecast
from cgpt.errors import UserError
from cgpt.scaling.law import FittedLaw, Interval
from cgpt.spec import Hardware, Model

WIDTHS = (*range(32, 256, 16), *range(256, 1024, 64), *range(1024, 4096, 128), *range(4096, 20481, 512))
WIDTH_PER_LAYER = 80  # of Cerebras-GPT: 77 to 85 up to 2.7B, 128 above
N_WIDTHS, WIDEST = 120, 32  # tried where the proportions are those of an experiment's runs, up to 32 times their widest
BUDGET_STEPS = 30


@dataclass(frozen=True)
class Target:
    """What is asked: a loss in the law's unit, and perhaps a budget of wall-clock hours or of energy."""

    loss: float
    hardware: tuple[str, ...]
    budget_hours: float | None = None
    budget_kwh: float | None = None


def target(asked: Target, law: FittedLaw, batch_law: tuple[float, float], profiles: Mapping[str, Hardware]
           ) -> dict[str, Any]:  # fmt: skip
    """The cheapest model, tokens and batch for each profile, with the time and energy that they take.

    `batch_law`: factor and exponent of the batch in tokens, for a law whose runs' own batch is not known. Raises
    UserError where the law never reaches the loss.
    """
    if law.batch_tokens:
        batch_law = (law.batch_tokens, 0.0)
    for key in ("budget_hours", "budget_kwh"):
        given = getattr(asked, key)
        if given is not None and not 0 < given < math.inf:
            raise UserError(f"--{key.replace('_', '-')}: must be greater than 0, not {given}; write a positive number")
    if not law.lowest_loss() < asked.loss < math.inf:
        least = f"{law.lowest_loss():.3f}, the law's irreducible loss"
        raise UserError(f"--target-loss: {asked.loss} is not above {least}; write a higher one")
    found = [_on_profile(asked, law, batch_law, name, profiles) for name in asked.hardware]
    return {"target_loss": asked.loss, "law": law.name, "fitted_to": "L(C)" if law.convention else "L(N, D)",
            "profiles": found}  # fmt: skip


def models(law: FittedLaw) -> Iterator[Model]:
    """Sizes of the proportions of the law's runs, else of Cerebras-GPT's, from small to large, with its vocabulary and
    context."""
    for n_layer, d_model, n_head in _like_runs(law.shapes) if law.shapes else _like_cerebras_gpt():
        yield Model("", n_layer, d_model, n_head, law.seq_len, vocab_size=law.vocab_size)


def _like_cerebras_gpt() -> Iterator[tuple[int, int, int]]:
    for width in WIDTHS:
        n_head = max(1, width // (128 if width >= 2048 else 64))
        n_head = next(count for count in range(n_head, 0, -1) if width % count == 0)
        yield max(2, round(width / WIDTH_PER_LAYER)), width, n_head


def _like_runs(shapes: tuple[tuple[int, int, int], ...]) -> Iterator[tuple[int, int, int]]:
    """Heads as wide as the widest run's; layers between those of the runs, as deep for their width beyond them."""
    layers, widths = ([shape[place] for shape in shapes] for place in (0, 1))
    head = widths[-1] // shapes[-1][2]
    for n_head in sorted({round(count) for count in np.geomspace(1, WIDEST * shapes[-1][2], N_WIDTHS)}):
        width = n_head * head
        deeper = max(1.0, width / widths[-1])
        yield max(1, round(float(np.interp(width, widths, layers)) * deeper)), width, n_head


def _on_profile(asked: Target, law: FittedLaw, batch_law: tuple[float, float], name: str,
                profiles: Mapping[str, Hardware]) -> dict[str, Any]:  # fmt: skip
    """The candidate that takes the fewest hours; the ends of its interval are those of the law's draws."""

    def run(model: Model, tokens: float) -> dict[str, Any]:
        return _run(model, tokens, batch_law, name, profiles)

    candidates = [(model, law.tokens_to(asked.loss, model)) for model in models(law)]
    reaching = [(model, tokens) for model, tokens in candidates if tokens[0] < math.inf]
    if not reaching:
        largest = short(flops.n_parameters(candidates[-1][0]))
        raise UserError(
            f"--target-loss: {asked.loss} takes a model of more than {largest} parameters; write a higher one"
        )
    if law.convention:  # the law holds at its own tokens per parameter only
        model, tokens = min(reaching, key=lambda pair: _off_ratio(pair[0], pair[1][0], law))
        runs = [run(model, tokens[0])]
    else:
        tried = [(run(model, tokens[0]), model, tokens) for model, tokens in reaching]
        fitting = [each for each in tried if each[0]["hours"] is not None] or tried[:1]
        best, model, tokens = min(fitting, key=lambda each: each[0]["hours"] or math.inf)
        runs = [best]
    runs += [run(model, end) if end < math.inf else {} for end in tokens[1:]]
    found = {"hardware": name, "n_parameters": flops.n_parameters(model), "n_layer": model.n_layer,
             "d_model": model.d_model, "tokens": _finite(tokens), **{key: runs[0][key] for key in (
                 "batch_tokens", "systems", "fits", "problem", "extrapolated", "timing")},
             **{key: [each.get(key) for each in runs] for key in ("hours", "energy_kwh", "price_usd")}}  # fmt: skip
    return found | _within_budget(asked, law, run, runs[0])


def _off_ratio(model: Model, tokens: float, law: FittedLaw) -> float:
    return abs(math.log(tokens / flops.n_parameters(model) / law.tokens_per_parameter))


def _run(model: Model, tokens: float, batch_law: tuple[float, float], name: str, profiles: Mapping[str, Hardware]
         ) -> dict[str, Any]:  # fmt: skip
    """What training the model takes, with the law's batch for as many tokens."""
    factor, exponent = batch_law
    hardware = profiles.get(name)
    systems = hardware.systems if hardware else 1
    batch = max(1, round(factor * tokens**exponent / model.seq_len / systems))
    request = forecast.Request("target", None, name, batch_per_system=batch, tokens=tokens)
    found = forecast.forecast(request, {"target": model}, profiles)
    return found | {"batch_tokens": batch * systems * model.seq_len,
                    "hours": None if found["days"] is None else 24 * found["days"]}  # fmt: skip


def _within_budget(asked: Target, law: FittedLaw, run: Any, cheapest: dict[str, Any]) -> dict[str, Any]:
    """Whether the target stays within the budget, and the lowest loss that the budget buys."""
    budgets = {"hours": asked.budget_hours, "energy_kwh": asked.budget_kwh}
    given = {key: limit for key, limit in budgets.items() if limit is not None}
    if not given:
        return {}
    known = all(cheapest[key] is not None for key in given)
    bought = [(model, tokens) for model in models(law) if (tokens := _tokens_bought(model, given, run))]
    if law.convention and bought:
        bought = [min(bought, key=lambda pair: _off_ratio(pair[0], pair[1], law))]
    losses = [(law.loss_of(model, tokens), model, tokens) for model, tokens in bought]
    best = min(losses, key=lambda each: each[0][0], default=None)
    return {
        "within_budget": all(cheapest[key] <= limit for key, limit in given.items()) if known else None,
        "budget_loss": best[0] if best else None,
        "budget_n_parameters": flops.n_parameters(best[1]) if best else None,
        "budget_tokens": best[2] if best else None,
    }


def _tokens_bought(model: Model, budget: Mapping[str, float], run: Any) -> float | None:
    """The most tokens that the model can be trained on within the budget; None where not even a step fits."""

    def spent(tokens: float) -> float:
        found = run(model, tokens)
        return max(math.inf if found[key] is None else found[key] / limit for key, limit in budget.items())

    low, high = math.log(1e5), math.log(1e15)
    if spent(math.exp(low)) > 1:
        return None
    for _ in range(BUDGET_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(math.exp(middle)) <= 1 else (low, middle)
    return math.exp(low)


def _finite(values: Interval) -> list[float | None]:
    return [value if value < math.inf else None for value in values]


def as_text(found: dict[str, Any]) -> str:
    """One paragraph a profile; `~` marks what is modeled, [a, b] the 95 % interval of the law."""
    lines = [f"Loss {found['target_loss']} by {found['fitted_to']} of {found['law']}: for its text and vocabulary only"]
    return "\n".join(line for each in (lines, *map(_profile_lines, found["profiles"])) for line in each)


def _profile_lines(found: dict[str, Any]) -> list[str]:
    note = ", extrapolated" if found["extrapolated"] else ""
    systems = f"{found['systems']} system{'s' if found['systems'] > 1 else ''}"
    lines = [f"{found['hardware']} ({systems}), {found['timing']}{note}"]
    lines += [f"  DOES NOT FIT: {found['problem']}"] if found["problem"] else []
    size, batch = short(found["n_parameters"]), short(found["batch_tokens"])
    lines.append(f"  model     {size} parameters: {found['n_layer']} layers of {found['d_model']}")
    lines.append(f"  tokens    {_words(found['tokens'], short)}, {batch} a batch")
    for key, label in (("hours", "hours"), ("energy_kwh", "kWh"), ("price_usd", "USD")):
        if found[key][0] is not None:
            lines.append(f"  {label:9} {_words(found[key], lambda value: f'~{value:,.4g}')}")
    if "within_budget" in found:
        lines.append("  in budget " + {True: "yes", False: "no", None: "not known"}[found["within_budget"]])
    if found.get("budget_loss"):
        size, tokens = short(found["budget_n_parameters"]), short(found["budget_tokens"])
        loss = _words(found["budget_loss"], lambda value: f"{value:.3f}")
        lines.append(f"  it buys   loss {loss}: {size} parameters, {tokens} tokens")
    return lines


def _words(values: list[float | None], number: Any) -> str:
    low, high = ("not reached" if value is None else number(value) for value in values[1:])
    return f"{number(values[0])} [{low}, {high}]"
