"""What `forecast` prints: a page for one hardware profile, a table for several. `~` marks what is modeled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cgpt.formats import aligned, dollars, duration, energy, rate, short

EXTRAPOLATED = "extrapolated: no rate is public for this hardware at this size, or its constants are another machine's"
Found = dict[str, Any]


def page(found: Found) -> str:
    """All that is known of one model on one profile."""
    lines = [_title(found, f"{found['hardware']} ({_systems(found['systems'])})")]
    if found["problem"]:
        lines.append(f"DOES NOT FIT: {found['problem']}")
    if found["extrapolated"]:
        lines.append(EXTRAPOLATED)
    facts = [("batch", _batch(found)), ("time of a step", _modeled(found["step_s"], duration)),
             ("sequences", _per_second(found["samples_per_s"])), ("tokens", _per_second(found["tokens_per_s"])),
             ("utilisation", _modeled(found["utilisation"], lambda share: f"{share:.1%} of the dense peak")),
             ("energy of a token", _joules(found)),
             ("bound by", (found["bound_by"] or "").replace("_", " ")), *_whole_run(found)]  # fmt: skip
    lines += [f"  {name:18} {text}" for name, text in facts if text]
    lines += [f"  step: {part.replace('_', ' '):22} ~{duration(seconds)}" for part, seconds in found["parts_s"].items()
              if seconds]  # fmt: skip
    lines += [f"  memory: {what.replace('_', ' '):30} {held / 1e9:.4g} GB"
              for what, held in found["memory_bytes"].items()]  # fmt: skip
    lines += [f"  layout: {what.replace('_', ' '):14} {value}" for what, value in found["layout"].items()]
    return "\n".join(lines)


def table(rows: Sequence[Found]) -> str:
    """One row a profile, of one model; an empty cell is what its file does not say, or what does not fit."""
    of_run, of_training = "tokens" in rows[0], rows[0]["task"] == "training"
    header = [
        "hardware",
        "systems",
        *(["batch"] if of_training else []),
        "a step" if of_training else "a pass",
        "tokens/s",
        *(["time of steps", "start-up", "energy", "price"] if of_run else ["energy a token"]),
        "",
    ]
    lines = [_title(rows[0], f"{len(rows)} profiles"), "", *aligned([header, *map(_row, rows)]), ""]
    if of_training:
        source = rows[0].get("batch_source")
        lines.append("batch: sequences of a step, all systems together" + (f", {source}" if source else ""))
    if of_run:
        lines.append("energy and price: of steps and start-up, all systems together; nameplate power, listed price")
    lines += [f"{found['hardware']}: does not fit: {found['problem']}" for found in rows if found["problem"]]
    if any(found["extrapolated"] for found in rows):
        lines.append(EXTRAPOLATED)
    return "\n".join(lines)


def _row(found: Found) -> list[str]:
    notes = (["does not fit"] if found["problem"] else []) + (["extrapolated"] if found["extrapolated"] else [])
    costs = [text for _, text in _whole_run(found)] or [_joules(found)]
    batch = [f"{found['batch_sequences']:,}"] if found["batch_sequences"] else []
    speed = [_modeled(found["step_s"], duration), _modeled(found["tokens_per_s"], rate)]
    return [found["hardware"], f"{found['systems']:,}", *batch, *speed, *costs, ", ".join(notes)]


def _title(found: Found, where: str) -> str:
    length = f" on {short(found['tokens'])} tokens" if "tokens" in found else ""
    size = f"{short(found['n_parameters'])} parameters"
    return f"{found['model']} ({size}), {found['task']}{length}: {where}; modeled"


def _whole_run(found: Found) -> list[tuple[str, str]]:
    """The lines of a training on so many tokens; none where no number was given."""
    if "tokens" not in found:
        return []
    return [
        ("time of the steps", _modeled(found["steps_s"], duration)),
        ("start-up", _modeled(found["job_overhead_s"] or None, duration)),
        ("energy", _modeled(found["energy_kwh"], energy)),
        ("price", _modeled(found["price_usd"], dollars)),
    ]


def _joules(found: Found) -> str:
    return _modeled(found["energy_j_per_token"], lambda joules: f"{joules:.3g} J")


def _batch(found: Found) -> str:
    if not found["batch_sequences"]:
        return ""
    shared = f", {found['batch_per_system']:,} a system" if found["systems"] > 1 else ""
    source = f" ({found['batch_source']})" if found.get("batch_source") else ""
    return f"{found['batch_sequences']:,} sequences{shared}{source}"


def _systems(number: int) -> str:
    return f"{number:,} system{'s' if number > 1 else ''}"


def _per_second(number: float | None) -> str:
    return _modeled(number, lambda value: f"{rate(value)} a second")


def _modeled(value: float | None, words: Any) -> str:
    return "" if value is None else f"~{words(value)}"
