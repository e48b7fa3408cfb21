"""The cost of an experiment: what was measured, and apart from it what a model says that it takes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cgpt.formats import amount, dollars, duration, energy
from cgpt.report.columns import Row, column_key, column_names
from cgpt.report.machines.table import anywhere
from cgpt.report.page import Cell, Table, table_of
from cgpt.report.rows import Rows

if TYPE_CHECKING:
    from cgpt.experiment.run import Plan
    from cgpt.hardware import Hardware

SECONDS_PER_HOUR, JOULES_PER_KWH = 3600.0, 3.6e6
NO_METER, NO_PRICE = "no meter was read", "the profile has no price_per_hour_usd"


def cost_tables(rows: Rows, plan: "Plan") -> list[Table]:
    """Two tables at most: seconds and money by stage and machine, measured; and what the cost model or a nameplate
    gives, each value with a `~`. Cells that are not known are empty and say why."""
    profiles = {run.execution.hardware.name: run.execution.hardware for run in plan.runs if run.execution.hardware}
    tables = [_measured(timed_runs(rows), profiles), _modeled(rows, profiles)]
    return [table for table in tables if table.rows]


def timed_runs(rows: Rows) -> list[Row]:
    """`stage`, `hardware` and `seconds` of every run that a clock was beside, each once."""
    trained = [row for row in rows.runs if row["timing"] == "measured"]
    scored = {row["run"]: row | {"stage": "baseline" if row["stage"] == "baseline" else "evaluate"}
              for row in rows.scores if row["evaluate_run"] or row["stage"] == "baseline"}  # fmt: skip
    return [*trained, *(row for row in scored.values() if row["timing"] != "modeled")]


def _measured(runs: Sequence[Row], profiles: Mapping[str, "Hardware"]) -> Table:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in runs:
        groups.setdefault((row["stage"], row["hardware"]), []).append(row)
    body: list[list[str | Cell]] = []
    total_s = 0.0
    for (stage, hardware), of_stage in groups.items():
        seconds = [row["seconds"] for row in of_stage if row["seconds"] is not None]
        unknown = len(of_stage) - len(seconds)
        total_s += sum(seconds)
        time = Cell(_time(sum(seconds)), f"of {unknown} not known" if unknown else "")
        price = _price(sum(seconds), profiles.get(hardware))
        body.append([stage, hardware, str(len(of_stage)), time if seconds else Cell("", "not known"),
                     Cell("", NO_METER), price])  # fmt: skip
    if len(body) > 1:
        body.append([Cell("all", strong=True), "", str(len(runs)), Cell(_time(total_s), strong=True), "", ""])
    header: list[str | Cell] = ["stage", "hardware", "runs", Cell("time", "summed over runs"), "energy", "money"]
    notes = ["Fetching, tokenizing and drawing are not in it; runs side by side count each for itself."]
    return Table("Measured", *_cells(header, body), notes=notes)


def _price(seconds: float, profile: "Hardware | None") -> Cell:
    if profile is None or profile.price_per_hour_usd is None:
        return Cell("", NO_PRICE)
    return Cell(dollars(seconds / SECONDS_PER_HOUR * profile.price_per_hour_usd * profile.systems))


def _modeled(rows: Rows, profiles: Mapping[str, "Hardware"]) -> Table:
    """A row for each metered run, and for each measured machine with a nameplate its energy."""
    names = column_names(map(anywhere, [*rows.metered, *(row for row in rows.runs if row["timing"] == "modeled")]))
    body: list[list[str | Cell]] = []
    for row in rows.metered:
        notes = [f"{row['systems']} systems"] if row["systems"] > 1 else []
        notes += ["does not fit in memory"] if row["in_memory"] is False else []
        notes += ["extrapolated"] if row["extrapolated"] else []
        tuned = f"fine-tuned on {row['task']}" if row["task"] else ""
        body.append([Cell(names[column_key(anywhere(row))], tuned), Cell(row["hardware"], ", ".join(notes)),
                     str(row["seed"]),
                     _known(row["seconds"], _time, "the cost model gives none"),
                     _known(row["energy_j"], _energy, "the profile has no power_w"),
                     _known(row["price_usd"], dollars, NO_PRICE)])  # fmt: skip
    for hardware, seconds in _seconds_by_machine(timed_runs(rows)).items():
        power = getattr(profiles.get(hardware), "power_w", None)
        if power is not None and seconds:
            joules = seconds * power * profiles[hardware].systems
            body.append(["all runs", hardware, "", Cell("", "measured, above"),
                         Cell(f"~{_energy(joules)}", "nameplate power times measured time"), ""])  # fmt: skip
    header: list[str | Cell] = ["model", "hardware", "seed", Cell("time", "to train"), "energy", "money"]
    return Table("Modeled", *_cells(header, body), in_groups=True)


def _seconds_by_machine(runs: Iterable[Row]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for row in runs:
        seconds[row["hardware"]] = seconds.get(row["hardware"], 0.0) + (row["seconds"] or 0.0)
    return seconds


def _known(value: float | None, text: Any, why_not: str) -> Cell:
    return Cell("", why_not) if value is None else Cell(f"~{text(value)}")


def _energy(joules: float) -> str:
    return energy(joules / JOULES_PER_KWH)


def _time(seconds: float) -> str:
    return f"{amount(seconds)} s" if 1 <= seconds < 120 else duration(seconds)


def _cells(header: list[str | Cell], body: list[list[str | Cell]]) -> tuple[Sequence[Cell], Sequence[Sequence[Cell]]]:
    table = table_of("", header, body)
    return table.header, table.rows
