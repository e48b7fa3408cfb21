"""`forecast --target-loss`: the cheapest training that reaches a loss, by a fitted law, on each hardware profile."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cgpt.cost import forecast
from cgpt.errors import UserError
from cgpt.files.layers import file_of
from cgpt.formats import dollars, duration, energy, short
from cgpt.hardware import Hardware
from cgpt.recipe import flops
from cgpt.scaling.fitted_law import SAME_RATIO, FittedLaw, Interval, with_ends
from cgpt.spec import Model

WIDTHS = [*range(32, 64, 8), *range(64, 256, 16), *range(256, 1024, 64), *range(1024, 4096, 128)]
WIDTHS += range(4096, 20481, 512)
WIDTH_PER_LAYER = 80  # of Cerebras-GPT: 77 to 85 up to 2.7B, 128 above
N_WIDTHS, WIDEST = 120, 32  # tried where the proportions are those of an experiment's runs, up to 32 times their widest
FEW_HEADS = 8  # up to which widths go by quarters of a head, so that no size is far from its neighbours
PEOPLE: tuple[tuple[str, str, Callable[[float], str]], ...] = (  # key, label, and the unit that people read it in
    ("hours", "time", lambda hours: duration(3600 * hours)),
    ("energy_kwh", "energy", energy),
    ("price_usd", "price", dollars),
)
BUDGET_STEPS = 30
LEAST_TOKENS = 1e5  # of which a budget is asked whether it buys them
_Run = Callable[[Model, float], dict[str, Any]]  # the forecast of training a model on so many tokens


@dataclass(frozen=True)
class _Candidates:
    """Models from small to large, their parameters (n,), and the tokens that reach the loss, (n, n_draws)."""

    models: list[Model]
    sizes: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class Target:
    """A loss to reach, in the law's unit, and perhaps a budget of wall-clock hours or of energy."""

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
    guessing = math.log(law.vocab_size)
    if asked.loss >= guessing:
        raise UserError(f"--target-loss: {asked.loss} is not below {guessing:.3f}, ln {law.vocab_size}, which guessing "
                        "among the law's vocabulary has without training; write a lower one")  # fmt: skip
    if not law.lowest_loss() < asked.loss:
        least = f"{law.lowest_loss():.3f}, the law's irreducible loss"
        raise UserError(f"--target-loss: {asked.loss} is not above {least}; write a higher one")
    candidates = _candidates(asked.loss, law)
    by_profile = [_on_profile(asked, law, candidates, batch_law, name, profiles) for name in asked.hardware]
    return {"target_loss": asked.loss, "law": law.name, "fitted_to": "L(C)" if law.convention else "L(N, D)",
            "profiles": by_profile}  # fmt: skip


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
    """Heads about as wide as the widest run's; layers between those of the runs, as deep for their width beyond."""
    layers, widths, heads = zip(*shapes)
    head = widths[-1] // heads[-1]
    whole = {round(count) for count in np.geomspace(1, WIDEST * heads[-1], N_WIDTHS)}
    for width in sorted({round(count * head) for count in whole | set(np.arange(1, FEW_HEADS, 0.25))}):
        n_head = min((n for n in range(1, width + 1) if width % n == 0), key=lambda n: abs(n - width / head))
        deeper = max(1.0, width / widths[-1])
        yield max(1, round(float(np.interp(width, widths, layers)) * deeper)), width, n_head


def _candidates(loss: float, law: FittedLaw) -> _Candidates:
    """Every model of the law's proportions; raises UserError where none of them reaches the loss, or by L(C) none does
    at the law's tokens per parameter."""
    tried = list(models(law))
    sizes = np.array([float(flops.n_parameters(model)) for model in tried])
    candidates = _Candidates(tried, sizes, np.stack([law.tokens_by_draw(loss, model) for model in tried]))
    if law.convention:
        at_ratio = f" parameters at the law's {law.tokens_per_parameter:.3g} tokens for each"
        best = _at_ratio(sizes, candidates.tokens[:, :1], law)[0]
    else:
        at_ratio = " parameters"
        best = 0 if np.isfinite(candidates.tokens[:, 0]).any() else len(tried)
    if best == len(tried):
        raise UserError(f"--target-loss: {loss} takes a model of more than {short(sizes[-1])}{at_ratio}, and no larger "
                        "one is tried; write a higher one")  # fmt: skip
    if best < 0:
        raise UserError(f"--target-loss: {loss} takes a model of less than {short(sizes[0])}{at_ratio}, and no smaller "
                        "one is tried; write a lower one")  # fmt: skip
    return candidates


def _at_ratio(sizes: np.ndarray, tokens: np.ndarray, law: FittedLaw) -> np.ndarray:
    """Which of the models (n,) trains nearest to the law's tokens per parameter, (n_draws,), given the `tokens`
    (n, n_draws) of each; n where even the largest is too small for that, -1 where the smallest is too large."""
    with np.errstate(divide="ignore"):
        off = np.log(tokens / sizes[:, None] / law.tokens_per_parameter)
    nearest = np.argmin(np.abs(off), axis=0)
    nearest[off[-1] > math.log(SAME_RATIO)] = len(sizes)
    nearest[off[0] < -math.log(SAME_RATIO)] = -1
    return nearest


def _cheapest(candidates: _Candidates, law: FittedLaw, run: _Run) -> np.ndarray:
    """Which of the models takes the fewest hours, (n_draws,); n where none reaches the loss. A draw's tokens go at the
    rate that the model has with the fit's. Where the cost model has hours for none, the one of the fewest FLOPs."""
    hours = np.full(candidates.tokens.shape, math.inf)
    for n, (model, size, tokens) in enumerate(zip(candidates.models, candidates.sizes, candidates.tokens)):
        fitted_tokens = tokens[0] if tokens[0] < math.inf else law.tokens_per_parameter * size
        taken = run(model, fitted_tokens)
        if taken["hours"] is not None:
            overhead = taken["job_overhead_s"] / 3600
            hours[n] = overhead + (taken["hours"] - overhead) * tokens / fitted_tokens
    spent = candidates.tokens * np.array([[flops.flops_per_token(model)] for model in candidates.models])
    cost = np.where(np.isfinite(hours).any(axis=0), hours, spent)
    return np.where(np.isfinite(cost).any(axis=0), np.argmin(cost, axis=0), len(candidates.sizes))


def _on_profile(asked: Target, law: FittedLaw, candidates: _Candidates, batch_law: tuple[float, float], name: str,
                profiles: Mapping[str, Hardware]) -> dict[str, Any]:  # fmt: skip
    """The candidate of the law's ratio, or by L(N, D) that takes the fewest hours. Ends of the model's size are those
    of the draws' own choices; of all else, what this model takes by the draws."""
    run = partial(_run, batch_law=batch_law, name=name, profiles=profiles)
    sizes = candidates.sizes
    best = _at_ratio(sizes, candidates.tokens, law) if law.convention else _cheapest(candidates, law, run)
    model, tokens = candidates.models[best[0]], with_ends(candidates.tokens[best[0]])
    runs = [run(model, end) if end < math.inf else {} for end in tokens]
    best_sizes = with_ends(np.append(sizes, math.inf)[np.maximum(best, 0)])
    training = {
        "hardware": name, "n_parameters": flops.n_parameters(model), "n_parameters_ends": _finite(best_sizes)[1:],
        "n_layer": model.n_layer, "d_model": model.d_model, "tokens": _finite(tokens),
        **{key: runs[0][key] for key in ("batch_tokens", "systems", "in_memory", "problem", "extrapolated", "timing")},
        "batch_tokens_ends": [each.get("batch_tokens") for each in runs[1:]],
        "law_extrapolated": law.beyond_runs(asked.loss, model, tokens[0]),
        **{key: [each.get(key) for each in runs] for key in ("hours", "energy_kwh", "price_usd")},
    }  # fmt: skip
    return training | _within_budget(asked, law, candidates, run, runs[0])


def _run(model: Model, tokens: float, batch_law: tuple[float, float], name: str, profiles: Mapping[str, Hardware]
         ) -> dict[str, Any]:  # fmt: skip
    """Forecast of training the model, with the law's batch for as many tokens."""
    factor, exponent = batch_law
    hardware = profiles.get(name)
    systems = hardware.systems if hardware else 1
    batch = max(1, round(factor * tokens**exponent / model.seq_len / systems))
    request = forecast.Request("target", None, name, batch_per_system=batch, tokens=tokens)
    training = forecast.forecast(request, {"target": model}, profiles)
    return training | {"batch_tokens": batch * systems * model.seq_len,
                       "hours": None if training["days"] is None else 24 * training["days"]}  # fmt: skip


def _within_budget(asked: Target, law: FittedLaw, candidates: _Candidates, run: _Run, cheapest: dict[str, Any]
                   ) -> dict[str, Any]:  # fmt: skip
    """Whether the target stays within the budget, and the lowest loss that the budget buys, or why none is known."""
    budgets = {"hours": asked.budget_hours, "energy_kwh": asked.budget_kwh}
    given = {key: limit for key, limit in budgets.items() if limit is not None}
    if not given:
        return {}
    nothing = dict.fromkeys(("budget_loss", "budget_n_parameters", "budget_tokens", "budget_extrapolated"))
    if any(cheapest[key] is None for key in given):
        unknown = f"{file_of('hardware', cheapest['hardware'])} has no power_w, which --budget-kwh needs"
        unknown = unknown if cheapest["hours"] is not None else str(cheapest["problem"])
        return {"within_budget": None, **nothing, "budget_problem": unknown}
    within = {"within_budget": all(cheapest[key] <= limit for key, limit in given.items())}
    bought = [(model, _tokens_bought(model, given, run)) for model in candidates.models]
    if law.convention:
        bought = _bought_at_ratio(bought, candidates.sizes, law)
    losses = [(law.loss_of(model, tokens), model, tokens) for model, tokens in bought if tokens]
    if not losses:
        return within | nothing | {"budget_problem": _too_small(given, law, candidates.models[0], run)}
    loss, model, tokens = min(losses, key=lambda each: each[0][0])
    return within | {
        "budget_loss": loss,
        "budget_n_parameters": flops.n_parameters(model),
        "budget_tokens": tokens,
        "budget_extrapolated": law.beyond_runs(loss[0], model, tokens),
        "budget_problem": None,
    }


def _bought_at_ratio(bought: list[tuple[Model, float | None]], sizes: np.ndarray, law: FittedLaw
                     ) -> list[tuple[Model, float | None]]:  # fmt: skip
    """The one that is nearest to the law's tokens per parameter; the largest where all could be trained on more."""
    tokens = np.array([[tokens or 0.0] for _, tokens in bought])
    nearest = int(_at_ratio(sizes, tokens, law)[0])
    if nearest < len(bought):
        return bought[nearest : nearest + 1] if nearest >= 0 else []
    return [(bought[-1][0], law.tokens_per_parameter * sizes[-1])]


def _too_small(budget: Mapping[str, float], law: FittedLaw, model: Model, run: _Run) -> str:
    """The cost of the least training that the law says anything of, in words; `model` is the smallest."""
    size = flops.n_parameters(model)
    tokens = law.tokens_per_parameter * size if law.convention else LEAST_TOKENS
    least = run(model, tokens)
    taken = " and ".join("~" + words(least[key]) for key, _, words in PEOPLE if key in budget)
    return f"its smallest model, {short(size)} parameters, takes {taken} for {short(tokens)} tokens"


def _tokens_bought(model: Model, budget: Mapping[str, float], run: _Run) -> float | None:
    """The most tokens that the model can be trained on within the budget; None where not even a step fits."""

    def spent(tokens: float) -> float:
        cost = run(model, tokens)
        return max(math.inf if cost[key] is None else cost[key] / limit for key, limit in budget.items())

    low, high = math.log(LEAST_TOKENS), math.log(1e15)
    if spent(math.exp(low)) > 1:
        return None
    for _ in range(BUDGET_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(math.exp(middle)) <= 1 else (low, middle)
    return math.exp(low)


def _finite(values: Interval) -> list[float | None]:
    return [value if value < math.inf else None for value in values]


def as_text(answer: dict[str, Any]) -> str:
    """One paragraph a profile; `~` marks what is modeled, [a, b] the 95 % interval of the law."""
    law = f"{answer['fitted_to']} of {answer['law']}"
    profiles = [line for training in answer["profiles"] for line in _profile_lines(training)]
    return "\n".join([f"Loss {answer['target_loss']} by {law}: for its text and vocabulary only", *profiles])


def _profile_lines(training: dict[str, Any]) -> list[str]:
    note = ", extrapolated" if training["extrapolated"] else ""
    systems = f"{training['systems']} system{'s' if training['systems'] > 1 else ''}"
    lines = [f"{training['hardware']} ({systems}), {training['timing']}{note}"]
    lines += [f"  DOES NOT FIT: {training['problem']}"] if training["problem"] else []
    lines += [f"  law       EXTRAPOLATED: {training['law_extrapolated']}"] if training["law_extrapolated"] else []
    size = _words([training["n_parameters"], *training["n_parameters_ends"]], short)
    batch, ends = short(training["batch_tokens"]), training["batch_tokens_ends"]
    batch += f" [{', '.join(short(end) or 'not reached' for end in ends)}]" if len(set(ends)) > 1 else ""
    lines.append(f"  model     {size} parameters: {training['n_layer']} layers of {training['d_model']}")
    lines.append(f"  tokens    {_words(training['tokens'], short)}")
    lines.append(f"  batch     {batch} tokens")
    for key, label, words in PEOPLE:
        if training[key][0] is not None:
            lines.append(f"  {label:9} {_words(training[key], lambda value: '~' + words(value))}")  # noqa: B023
    return lines + (_budget_lines(training) if "within_budget" in training else [])


def _budget_lines(training: dict[str, Any]) -> list[str]:
    if training["within_budget"] is None:
        return [f"  in budget not known: {training['budget_problem']}"]
    lines = ["  in budget " + ("yes" if training["within_budget"] else "no")]
    if training["budget_problem"]:
        return [*lines, f"  it buys   nothing that the law can say: {training['budget_problem']}"]
    size, tokens = short(training["budget_n_parameters"]), short(training["budget_tokens"])
    loss = _words(training["budget_loss"], lambda value: f"{value:.3f}")
    beyond = f"; EXTRAPOLATED: {training['budget_extrapolated']}" if training["budget_extrapolated"] else ""
    return [*lines, f"  it buys   loss {loss}: {size} parameters, {tokens} tokens{beyond}"]


def _words(values: list[float | None], number: Any) -> str:
    low, high = ("not reached" if value is None else number(value) for value in values[1:])
    return f"{number(values[0])} [{low}, {high}]"
