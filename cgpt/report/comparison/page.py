"""A comparison as a page, and a page as text for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from textwrap import wrap
from typing import Any

from cgpt.errors import one_line
from cgpt.formats import aligned, amount, score, spread
from cgpt.report.columns import Mean
from cgpt.report.comparison.compare import Comparison, Cost, Pair
from cgpt.report.comparison.difference import BEYOND, SEEDS
from cgpt.report.page import Cell, Page, Table, table_of

MARK = "*"
WIDTH = 110  # of sentences on a terminal
HEADERS = {"n_labels": "labels"}
COST_LABELS = {"step_s": "step time (s)", "tokens_per_s": "tokens per second", "seconds": "time to train (s)",
               "energy_j": "energy to train (J)", "price_usd": "price (USD)"}  # fmt: skip
LOSS_LABELS = {"validation_loss": "loss (nats per token)", "validation_bits_per_byte": "bits per byte"}
VALUES = ["A", "B", "B less A", "se", "z", "better", "se over"]
WORDS = (
    ("se", "standard error of the difference. Over seeds: by Welch, where both sides have two seeds or more. Over "
           "documents, paired: from each document's difference, where both sides' samples are here and of the same "
           "documents; over documents: from both sides' standard errors, as if of different documents. The last two "
           "say nothing of how far training seeds differ"),
    ("z", "the difference in standard errors; with few seeds or documents, the z that is as improbable as their t"),
    ("better", f"the side with the better value; in brackets where the difference is not beyond {BEYOND} standard "
               "errors, or none is known"),
)  # fmt: skip


def make_page(comparison: Comparison) -> Page:
    """The page of a comparison: the sides, how many differences to believe, the tables, and what only one side has."""
    facts = [("A", _side(comparison.a.name, comparison.a.folder)), ("B", _side(comparison.b.name, comparison.b.folder))]
    facts += [(f"differs as a whole: {key}", f"{a} | {b}") for key, (a, b) in comparison.apart.items()]
    facts += WORDS if comparison.judged else ()
    tables = [table for table in (
        _pairs_table("Scores", comparison.scores, {}),
        _pairs_table("Losses of pretraining", comparison.losses, LOSS_LABELS),
        _costs_table(comparison.costs), _alone_table(comparison),
    ) if table.rows]  # fmt: skip
    return Page(f"{comparison.a.name} compared with {comparison.b.name}", _counts(comparison), facts, tables)


def text(page: Page) -> str:
    """The page as lines for a terminal, without a last line end; how to read it comes last."""
    first = [(word, about) for word, about in page.facts if (word, about) not in WORDS]
    lines = [page.title, f"  {page.question}", *(f"  {word}: {about}" for word, about in first)]
    for table in page.tables:
        header = [cell.text for cell in table.header]
        left = header.index("A") if "A" in header else len(header)
        rows = [[f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row] for row in table.rows]
        lines += ["", table.title, *aligned([header, *rows], left), *(f"  {note}" for note in table.notes)]
    if len(first) < len(page.facts):
        words = [
            wrap(f"{word}: {about}", WIDTH, initial_indent="  ", subsequent_indent="    ") for word, about in WORDS
        ]
        lines += ["", "How to read it", *chain.from_iterable(words)]
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """The line with nothing that a terminal would act upon; the spaces that it begins with stay."""
    return line[: len(line) - len(line.lstrip())] + one_line(line, longest=len(line))


def _counts(comparison: Comparison) -> str:
    """How many differences there are, how many are beyond noise, and how many would be by chance."""
    n, n_judged = len(comparison.scores) + len(comparison.losses), len(comparison.judged)
    if not n:
        return f"No score and no loss is on both sides{'; costs are' if comparison.costs else ''}."
    texts = [f"{comparison.n_same} of {n} scores and losses are the same"] if comparison.n_same else []
    if n_judged:
        texts.append(f"{comparison.n_beyond} of {n_judged} differences are beyond {BEYOND} standard errors, where "
                     f"{comparison.expected_by_chance:.1f} would be by chance, were nothing different")  # fmt: skip
        if not any(difference.by == SEEDS for difference in comparison.judged):
            texts.append("not both sides have several seeds, so how far seeds differ is no part of it")
    if unknown := n - comparison.n_same - sum(difference.value != 0 for difference in comparison.judged):
        texts.append(f"{unknown} {'has' if unknown == 1 else 'have'} no known standard error")
    return "; ".join(texts) + "."


def _side(name: str, folder: object) -> str:
    return name if name == str(folder) else f"{name} ({folder})"


def _pairs_table(title: str, pairs: Sequence[Pair], labels: Mapping[str, str]) -> Table:
    columns = _columns([pair.names for pair in pairs], without=("metric",))
    rows: list[list[str | Cell]] = []
    conditions = {}
    for pair in pairs:
        names = [str(pair.names[column] or "") for column in columns]
        what = labels.get(pair.quantity, pair.quantity)
        difference = pair.difference
        better = pair.better or ""
        rows.append([
            *names, Cell(f"{what} {MARK}" if pair.differs else what), _mean(pair.a), _mean(pair.b),
            _signed(difference.value) if difference.value else "same",
            "" if difference.standard_error is None else spread(difference.standard_error),
            "" if difference.z is None else f"{difference.z:+.1f}",
            better if difference.is_beyond or better in ("", "same") else f"({better})", _over(pair),
        ])  # fmt: skip
        conditions[" ".join(filter(None, [*names, what]))] = pair.differs
    header = [*(HEADERS.get(column, column) for column in columns), "metric" if title == "Scores" else "loss", *VALUES]
    return _with_notes(table_of(title, header, rows), conditions)


def _costs_table(costs: Sequence[Cost]) -> Table:
    columns = _columns([cost.names for cost in costs])
    rows: list[list[str | Cell]] = []
    conditions = {}
    for cost in costs:
        names = [str(cost.names[column] or "") for column in columns]
        sides = zip((cost.a, cost.b), cost.timing, cost.extrapolated, strict=True)
        values = [_amount(value, timing, extrapolated) for value, timing, extrapolated in sides]
        modeled = "~" if "modeled" in cost.timing else ""
        what = COST_LABELS[cost.quantity]
        rows.append([*names, Cell(f"{what} {MARK}" if cost.differs else what), *values,
                     "" if cost.ratio is None else f"{modeled}{amount(cost.ratio)}"])  # fmt: skip
        conditions[" ".join(names)] = cost.differs
    table = _with_notes(table_of("Costs of pretraining", [*columns, "cost", "A", "B", "B / A"], rows), conditions)
    notes = [*table.notes]
    if any("modeled" in cost.timing for cost in costs):
        notes.append("~: modeled, not measured.")
    if any(cost.timing[0] != cost.timing[1] for cost in costs):
        notes.append("No ratio of a measured and a modeled value: they are not of one kind.")
    return Table(table.title, table.header, table.rows, notes=notes)


def _alone_table(comparison: Comparison) -> Table:
    """Rows that only one side has; in one row where the other has nothing of the kind."""
    alone = sorted(comparison.alone, key=lambda each: (each.table, each.side))
    rows = []
    for (table, side), of_side in groupby(alone, key=lambda each: (each.table, each.side)):
        names = [[str(value) for value in each.names.values() if value not in (None, "none")] for each in of_side]
        none = not getattr(comparison, table) and {each.side for each in alone if each.table == table} == {side}
        other = "B" if side == "A" else "A"
        rows += [
            [side, table, row]
            for row in ([f"all {len(names)}; {other} has none"] if none and len(names) > 1 else map(", ".join, names))
        ]
    return table_of("On one side only", ["side", "table", "row"], rows)


def _columns(names: Iterable[Mapping[str, Any]], without: Sequence[str] = ()) -> list[str]:
    """The columns that name a row: those that joined it, but for ones that are the same in all rows and say nothing."""
    listed = list(names)
    columns = [column for column in (listed[0] if listed else ()) if column not in without]
    varying = [column for column in columns if len({each[column] for each in listed}) > 1]
    return [column for column in columns if column in varying or column in ("task", "condition", "model")]


def _with_notes(table: Table, conditions: Mapping[str, Sequence[str]]) -> Table:
    """The table with a sentence for each condition that the sides do not share, and the rows that it holds for.
    `conditions` are those of each row, by its names."""
    rows_of: dict[str, list[str]] = {}
    for row, of_row in conditions.items():
        for condition in of_row:
            rows_of.setdefault(condition, []).append(row)
    notes = [f"{MARK} {condition}: {'all rows' if len(rows) == len(conditions) else '; '.join(rows)}."
             for condition, rows in rows_of.items()]  # fmt: skip
    lead = [f"{MARK} the sides (A | B) differ in more than what is compared:"] if notes else []
    return Table(table.title, table.header, table.rows, table.in_groups, [*lead, *notes])


def _mean(of_side: Mean) -> Cell:
    notes = [f"sd {spread(of_side.sd)}, n {of_side.n}"] if of_side.sd is not None else []
    notes += [f"se {spread(of_side.se)}"] if of_side.se is not None else []
    return Cell(score(of_side.value), ", ".join(notes))


def _signed(value: float) -> str:
    return ("+" if value > 0 else "-") + spread(abs(value))


def _over(pair: Pair) -> str:
    n = pair.difference.n
    if n is None:
        return pair.difference.by
    return f"{' and '.join(f'{each:,}' for each in (n if n[0] != n[1] else n[:1]))} {pair.difference.by}"


def _amount(value: float | None, timing: str, extrapolated: bool) -> Cell:
    if value is None:
        return Cell("")
    return Cell(("~" if timing == "modeled" else "") + amount(value), "extrapolated" if extrapolated else "")
