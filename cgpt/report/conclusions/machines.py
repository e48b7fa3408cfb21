"""Which machine trains fastest, with the least energy and for the least money: what is modeled carries a `~`."""

from collections.abc import Callable, Mapping, Sequence

from cgpt.formats import dollars, duration, energy
from cgpt.report.columns import Row, column_key, column_names
from cgpt.report.conclusions.conclusion import Conclusion, listed, plural
from cgpt.report.machines.table import anywhere, hardware_rows
from cgpt.report.rows import Rows

JOULES_PER_KWH = 3.6e6
# Of each cost: its key, how it is written, and what a machine does that takes the least of it.
_COSTS: tuple[tuple[str, Callable[[float], str], str], ...] = (
    ("seconds", duration, "is the fastest"),
    ("energy_j", lambda joules: energy(joules / JOULES_PER_KWH), "takes the least energy"),
    ("price_usd", dollars, "costs the least"),
)
BASIS = ("A ~ is computed by the cost model, which gives no interval; a measured time is of one run on a machine that "
         "may have done other work. Energy is nameplate power.")  # fmt: skip

EXTRAPOLATED = "No rate of that hardware is public for a model so narrow or wide, or for so many systems."


def cheapest_machines(rows: Rows) -> Conclusion | None:
    """The machine that takes least of each cost for the largest model, and for how many models it does; None where
    nothing was modeled."""
    machines = hardware_rows(rows)
    if not rows.metered or not machines:
        return None
    of_models: dict[tuple, list[Row]] = {}
    for row in machines:
        if row["in_memory"] is not False:
            of_models.setdefault(column_key(anywhere(row)), []).append(row)
    if not of_models:
        return Conclusion("Which machine is best cannot be told: none holds the training in its memory.")
    names = column_names(map(anywhere, machines))
    least = [_least(cost, of_models, names) for cost in _COSTS]
    named = [row for rows_named, _ in least for row in rows_named]
    if not named:
        return Conclusion(
            "Which machine is best cannot be told: no two have a known time, energy or price of the same model."
        )
    counted = plural(len({row["hardware"] for row in machines}), "machine")
    beyond = dict.fromkeys(row["hardware"] for row in named if row["extrapolated"])
    basis = [BASIS, *([f"Extrapolated: {listed(list(beyond))}. {EXTRAPOLATED}"] if beyond else [])]
    return Conclusion(f"Of {counted}, {listed([text for _, text in least if text])}.", (), basis)


def _least(cost: tuple[str, Callable[[float], str], str], of_models: Mapping[tuple, Sequence[Row]],
           names: Mapping[tuple, str]) -> tuple[list[Row], str]:  # fmt: skip
    """The rows of the best machine for the largest model and of one to compare it with, and the words; none where
    fewer than two machines have this cost."""
    key, written, does = cost
    best: dict[tuple, Row] = {}
    for model, rows in of_models.items():
        known = [row for row in rows if row[key] is not None]
        if len({row["hardware"] for row in known}) > 1:
            best[model] = min(known, key=lambda row: row[key])
    if not best:
        return [], ""
    model, row = list(best.items())[-1]
    others = [each for each in of_models[model] if each[key] is not None and each["hardware"] != row["hardware"]]
    other = min(others, key=lambda each: (each["timing"] != "measured", each[key]))
    alike = sum(each["hardware"] == row["hardware"] for each in best.values())
    counted = f"for {alike} of {plural(len(best), 'model')}"
    if alike == len(best):
        counted = "for the one model" if alike == 1 else f"for all {alike} models"
    shown, against = (("~" if each["timing"] == "modeled" else "") + written(each[key]) for each in (row, other))
    text = f"{row['hardware']} {does} {counted} ({names[model]}: {shown}, against {against} on {other['hardware']})"
    return [row, other], text
