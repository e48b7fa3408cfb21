"""Numbers as people write and read them, and text in columns."""

import math
import re
from collections.abc import Sequence

from cgpt.errors import UserError

SIZES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
COUNT = re.compile(r"([0-9][0-9_]*\.?[0-9]*(?:e\+?[0-9]+)?|\.[0-9]+(?:e\+?[0-9]+)?)\s*([kmbt]?)", re.IGNORECASE)
MOST_TOKENS = 1e18
YEAR_S = 365.25 * 86_400
# Seconds of a unit, its name, and from how many seconds on it is used.
TIMES = ((YEAR_S, "years", 2 * YEAR_S), (86_400.0, "days", 2 * 86_400.0), (3600.0, "hours", 2 * 3600.0),
         (60.0, "minutes", 120.0), (1.0, "s", 0.1), (1e-3, "ms", 1e-4), (1e-6, "us", 0.0))  # fmt: skip
PREFIXES = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0, "m": 1e-3, "µ": 1e-6}
# Kilowatt-hours of a unit and its name; each is used from one of it on.
ENERGIES = ((1e6, "GWh"), (1e3, "MWh"), (1.0, "kWh"), (1e-3, "Wh"))


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """One line a row, of rows of one length; the first `left` columns begin where their width does, the others end
    there."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) if number < left else cell.rjust(width)
                      for number, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]  # fmt: skip


def short(count: float | None) -> str:
    """A count with three digits and K, M, B or T: 1234567 is `1.23 M`."""
    if count is None:
        return ""
    for unit in "TBMK":
        if count >= 0.9995 * SIZES[unit]:
            value = count / SIZES[unit]
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{count:.0f}"


def parse_tokens(text: str) -> float:
    """The number that `300M`, `20B`, `1_000_000` or `1.5e9` is; raises UserError for what is none."""
    match = COUNT.fullmatch(text.strip())
    value = float(match[1].replace("_", "")) * SIZES[match[2].upper()] if match else math.nan
    if not 1 <= value <= MOST_TOKENS:
        wrong = "is no number of tokens" if math.isnan(value) else f"must be from 1 to {MOST_TOKENS:g}"
        raise UserError(f"--tokens: '{text}' {wrong}; write e.g. 300M, 20B or 1.5e9")
    return value


def count(number: int | None) -> str:
    """`1,234,567`; unknown is empty."""
    return "" if number is None else f"{number:,}"


def power(number: float | None) -> str:
    """`1.23e+15`; unknown is empty."""
    return "" if number is None else f"{number:.2e}"


def mebibytes(n_bytes: int | None) -> str:
    """`1,234 MiB`; unknown and none are empty."""
    return f"{n_bytes / 2**20:,.0f} MiB" if n_bytes else ""


def score(value: float | None) -> str:
    """A score with three decimals, or four digits where it is large; unknown is empty."""
    if value is None:
        return ""
    return f"{round(value, 3) + 0.0:.3f}" if abs(value) < 10 else f"{value:.4g}"  # + 0.0: -0.000 is 0.000


def spread(value: float) -> str:
    """A standard deviation or error as a score, but with its first digit where three decimals would make it zero."""
    return f"{value:.1g}" if 0 < value < 0.0005 else score(value)


def amount(value: float) -> str:
    """`0.0123`, `3,101`, `64,512`: three digits, and all before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def short_amount(value: float) -> str:
    """As `amount`, but `645 K` from a hundred thousand on, and `inf`."""
    if not math.isfinite(value):
        return "inf"
    return short(value) if value >= 1e5 else amount(value)


def with_prefix(value: float, unit: str) -> str:
    """Three digits with a decimal prefix: 0.0144 s is `14.4 ms`, 7.5e15 FLOP/s `7.5 PFLOP/s`."""
    prefix = next((prefix for prefix, size in PREFIXES.items() if value >= size), "µ")
    return f"{value / PREFIXES[prefix]:.3g} {prefix}{unit}"


def duration(seconds: float) -> str:
    """`3.2 hours`: in the largest unit of which there are about two."""
    size, name, _ = next(each for each in TIMES if seconds >= each[2])
    return f"{_three_digits(seconds / size)} {name}"


def energy(kwh: float) -> str:
    """`1.2 MWh`: in the largest unit of which there is one."""
    size, name = next((each for each in ENERGIES if kwh >= each[0]), ENERGIES[-1])
    return f"{_three_digits(kwh / size)} {name}"


def dollars(usd: float) -> str:
    """`12,300 USD`, with three digits."""
    return f"{_three_digits(usd)} USD"


def rate(number: float) -> str:
    """`1.24 M`, or with its fraction where there is less than a thousand."""
    return short(number) if number >= 999.5 else _three_digits(number)


def _three_digits(value: float) -> str:
    if value == 0 or 1e-3 <= value < 1e15:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"
    return f"{value:.3g}"
