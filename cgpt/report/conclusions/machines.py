"""Which machine trains fastest, with the least energy and for the least money: what is modeled carries a `~`."""

from collections.abc import Mapping, Sequence
from typing import Any

from cgpt.formats import amount
from cgpt.report.columns import Row, column_key, column_names
from cgpt.report.conclusions.conclusion import Conclusion, listed, plural
from cgpt.report.machines.table import anywhere, hardware_rows
from cgpt.report.rows import Rows

# Of each cost: its key, its unit, its factor, and what the least of it is.
_COSTS = (("seconds", "s", 1.0, "is the fastest"), ("energy_j", "kJ", 1e-3, "takes the least energy"),
          ("price_usd", "USD", 1.0, "costs the least"))  # fmt: skip
BASIS = ("A ~ is computed by the cost model, which gives no interval; a measured time is of one run on a machine that "
         "may have done other work. Energy is nameplate power.")  # fmt: skip


def cheapest_machines(rows: Rows) -> Conclusion | None:
    """The machine that takes least of each cost for the largest model, and for how many models it does; None where
    nothing was modeled."""
    if not rows.metered:
        return None
    of_models: dict[tuple, list[Row]] = {}
    machines = hardware_rows(rows)
    for row in machines:
        if row["in_memory"] is not False:
            of_models.setdefault(column_key(anywhere(row)), []).append(row)
    if not of_models:
        return Conclusion("Which machine is best cannot be told: none holds the training in its memory.")
    names = column_names(map(anywhere, machines))
    texts = [text for cost in _COSTS if (text := _least(cost, of_models, names))]
    counted = len({row["hardware"] for row in machines})
    if not texts:
        return Conclusion("Which machine is best cannot be told: of none is a time known.")
    return Conclusion(f"Of {plural(counted, 'machine')}, {listed(texts)}.", (), (BASIS,))


def _least(cost: tuple[str, str, float, str], of_models: Mapping[tuple, Sequence[Row]], names: Mapping[tuple, str]
           ) -> str:  # fmt: skip
    key, unit, factor, words = cost
    best: dict[tuple, Row] = {}
    for model, rows in of_models.items():
        known = [row for row in rows if row[key] is not None]
        if len({row["hardware"] for row in known}) > 1:
            best[model] = min(known, key=lambda row: row[key])
    if not best:
        return ""
    model, row = list(best.items())[-1]
    alike = sum(each["hardware"] == row["hardware"] for each in best.values())
    others = [each for each in of_models[model] if each[key] is not None and each["hardware"] != row["hardware"]]
    other = max(others, key=lambda each: (each["timing"] == "measured", each[key]))
    shown = f"{_amount(row, key, factor)} {unit} for {names[model]}"
    against = f"where {other['hardware']} takes {_amount(other, key, factor)} {unit}"
    return f"{row['hardware']} {words} ({shown}, {against}; the same for {alike} of {plural(len(best), 'model')})"


def _amount(row: Mapping[str, Any], key: str, factor: float) -> str:
    mark = "~" if row["timing"] == "modeled" else ""
    return mark + amount(row[key] * factor)
