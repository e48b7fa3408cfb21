"""The text that `forecast` prints: a page for one hardware profile, a table for several. `~` marks what is modeled."""

from collections.abc import Sequence
from typing import Any

from cgpt.formats import aligned, dollars, duration, energy, rate, short

EXTRAPOLATED = "extrapolated: no rate is public for this hardware at this size, or its constants are another machine's"
Forecast = dict[str, Any]


def page(forecast: Forecast) -> str:
    """All that is known of one model on one profile."""
    systems = f"{forecast['systems']:,} system{'s' if forecast['systems'] > 1 else ''}"
    lines = [_title(forecast, f"{forecast['hardware']} ({systems})")]
    if forecast["problem"]:
        lines.append(f"DOES NOT FIT: {forecast['problem']}")
    if forecast["extrapolated"]:
        lines.append(EXTRAPOLATED)
    facts = [("batch", _batch(forecast)), ("time of a step", _modeled(forecast["step_s"], duration)),
             ("sequences", _per_second(forecast["samples_per_s"])), ("tokens", _per_second(forecast["tokens_per_s"])),
             ("utilisation", _modeled(forecast["utilisation"], lambda share: f"{share:.1%} of the dense peak")),
             ("energy of a token", _joules(forecast)),
             ("bound by", (forecast["bound_by"] or "").replace("_", " ")), *_whole_run(forecast)]  # fmt: skip
    lines += [f"  {name:18} {text}" for name, text in facts if text]
    lines += [f"  step: {part.replace('_', ' '):22} ~{duration(seconds)}"
              for part, seconds in forecast["parts_s"].items() if seconds]  # fmt: skip
    lines += [f"  memory: {what.replace('_', ' '):30} {held / 1e9:.4g} GB"
              for what, held in forecast["memory_bytes"].items()]  # fmt: skip
    lines += [f"  layout: {what.replace('_', ' '):14} {value}" for what, value in forecast["layout"].items()]
    return "\n".join(lines)


def table(rows: Sequence[Forecast]) -> str:
    """One row a profile, of one model; an empty cell is what its file does not say, or what does not fit."""
    of_run, of_training = "tokens" in rows[0], rows[0]["task"] == "training"
    costs = ["time of steps", "start-up", "energy", "price"] if of_run else ["energy a token"]
    header = ["hardware", "systems", *(["batch", "a step"] if of_training else ["a pass"]), "tokens/s", *costs, ""]
    lines = [_title(rows[0], f"{len(rows)} profiles"), "", *aligned([header, *map(_row, rows)]), ""]
    if of_training:
        source = rows[0].get("batch_source")
        lines.append("batch: sequences of a step, all systems together" + (f", {source}" if source else ""))
    if of_run:
        lines.append("energy and price: of steps and start-up, all systems together; nameplate power, listed price")
    lines += [f"{row['hardware']}: does not fit: {row['problem']}" for row in rows if row["problem"]]
    if any(row["extrapolated"] for row in rows):
        lines.append(EXTRAPOLATED)
    return "\n".join(lines)


def _row(forecast: Forecast) -> list[str]:
    notes = (["does not fit"] if forecast["problem"] else []) + (["extrapolated"] if forecast["extrapolated"] else [])
    costs = [text for _, text in _whole_run(forecast)] or [_joules(forecast)]
    batch = [f"{forecast['batch_sequences']:,}"] if forecast["batch_sequences"] else []
    speed = [_modeled(forecast["step_s"], duration), _modeled(forecast["tokens_per_s"], rate)]
    return [forecast["hardware"], f"{forecast['systems']:,}", *batch, *speed, *costs, ", ".join(notes)]


def _title(forecast: Forecast, where: str) -> str:
    length = f" on {short(forecast['tokens'])} tokens" if "tokens" in forecast else ""
    size = f"{short(forecast['n_parameters'])} parameters"
    return f"{forecast['model']} ({size}), {forecast['task']}{length}: {where}; modeled"


def _whole_run(forecast: Forecast) -> list[tuple[str, str]]:
    """The lines of a training on so many tokens; none where no number was given."""
    if "tokens" not in forecast:
        return []
    return [
        ("time of the steps", _modeled(forecast["steps_s"], duration)),
        ("start-up", _modeled(forecast["job_overhead_s"] or None, duration)),
        ("energy", _modeled(forecast["energy_kwh"], energy)),
        ("price", _modeled(forecast["price_usd"], dollars)),
    ]


def _joules(forecast: Forecast) -> str:
    return _modeled(forecast["energy_j_per_token"], lambda joules: f"{joules:.3g} J")


def _batch(forecast: Forecast) -> str:
    if not forecast["batch_sequences"]:
        return ""
    shared = f", {forecast['batch_per_system']:,} a system" if forecast["systems"] > 1 else ""
    source = f" ({forecast['batch_source']})" if forecast.get("batch_source") else ""
    return f"{forecast['batch_sequences']:,} sequences{shared}{source}"


def _per_second(number: float | None) -> str:
    return _modeled(number, lambda value: f"{rate(value)} a second")


def _modeled(value: float | None, words: Any) -> str:
    return "" if value is None else f"~{words(value)}"
