"""Two sides' scores, losses and costs of pretraining as pairs with their differences."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from cgpt.report.columns import Mean, Row, mean
from cgpt.report.comparison.difference import BY_CHANCE, Difference, over_documents, over_paired_documents, over_seeds
from cgpt.report.comparison.documents import read_scored, same_documents
from cgpt.report.comparison.sides import RUN_KEYS, SCORE_KEYS, Joined, Side, differences_in, join
from cgpt.report.samples import read_samples

# Columns that should be the same on both sides for a difference to be of what is compared alone.
OF_SCORES = ("task_version", "n_shot", "documents", "n_samples", "n_prompts_cut", "chance", "higher_is_better")
OF_LOSSES = ("n_parameters", "tokens", "steps")
OF_COSTS = ("timing", "n_parameters", "tokens", "systems")
OF_ONE_TIMING = ("host_cpu", "threads", "batch_per_system", "weights_from")
LOSSES = ("validation_loss", "validation_bits_per_byte")
FILES_AT_ONCE = 32  # files of samples that are kept while their metrics are compared
COSTS = ("step_s", "tokens_per_s", "seconds", "energy_j", "price_usd")
BETTER = {True: 1, False: -1}  # sign of B less A where B is better, by higher_is_better


@dataclass(frozen=True)
class Pair:
    """A score or a loss on both sides. `names` are the columns that joined them, `quantity` is the metric or loss.

    `better`: A, B or same; None where that is not known. `differs`: conditions that the sides do not share, as
    `n_shot 0 | 3`.
    """

    names: Mapping[str, Any]
    quantity: str
    a: Mean
    b: Mean
    difference: Difference
    better: str | None
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """A cost of a pretraining on both sides, a mean over seeds. `ratio` is B / A; None of a measured and a modeled one,
    or where A is zero. `extrapolated`: by side, whether the cost model is used beyond what it was fitted to."""

    names: Mapping[str, Any]
    quantity: str
    a: float | None
    b: float | None
    timing: tuple[str, str]
    extrapolated: tuple[bool, bool]
    ratio: float | None
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Alone:
    """A row that only the side `side` (A or B) has, of the table `table`."""

    side: str
    table: str
    names: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """All that two sides have in common, and what only one has. `apart`: columns in which they differ as a whole."""

    a: Side
    b: Side
    scores: list[Pair]
    losses: list[Pair]
    costs: list[Cost]
    alone: list[Alone]
    apart: Mapping[str, tuple[str, str]]

    @property
    def judged(self) -> list[Difference]:
        """The differences of scores and losses that have a standard error."""
        differences = [pair.difference for pair in (*self.scores, *self.losses)]
        return [difference for difference in differences if difference.z is not None]

    @property
    def n_same(self) -> int:
        """How many scores and losses are the same on both sides."""
        return sum(pair.difference.value == 0 for pair in (*self.scores, *self.losses))

    @property
    def n_beyond(self) -> int:
        """How many of them lie beyond 1.96 standard errors."""
        return sum(difference.is_beyond for difference in self.judged)

    @property
    def expected_by_chance(self) -> float:
        """How many would, were nothing different."""
        return BY_CHANCE * len(self.judged)


def compare(a: Side, b: Side) -> Comparison:
    """Join the tables of two sides and take the differences B less A. Raises UserError where rows are ambiguous or
    where samples cannot be read."""
    scores, runs = join(a.scores, b.scores, SCORE_KEYS), join(a.runs, b.runs, RUN_KEYS)
    machines = join(a.machines, b.machines, RUN_KEYS)
    tables = {"scores": scores, "losses": runs, "costs": machines}
    alone = [Alone(side, table, names) for table, joined in tables.items() for side, names, _ in joined.alone]
    apart = {key: values for joined in tables.values() for key, values in joined.apart.items()}
    read = lru_cache(FILES_AT_ONCE)(lambda path: tuple(read_samples(path)))
    return Comparison(
        a, b, [_score(names, of_a, of_b, (a, b), read) for names, of_a, of_b in scores.pairs],
        [pair for loss in LOSSES for pair in _losses(loss, runs)], _costs(machines), alone, apart,
    )  # fmt: skip


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one JSON object."""
    lists: dict[str, Iterable[Any]] = {key: getattr(comparison, key) for key in ("scores", "losses", "costs", "alone")}
    return {
        "a": {"name": comparison.a.name, "folder": str(comparison.a.folder)},
        "b": {"name": comparison.b.name, "folder": str(comparison.b.folder)},
        "apart": comparison.apart,
        **{key: [asdict(each) for each in rows] for key, rows in lists.items()},
        "n_differences": len(comparison.judged),
        "n_same": comparison.n_same,
        "n_beyond": comparison.n_beyond,
        "expected_by_chance": comparison.expected_by_chance,
    }


def _score(names: Row, of_a: Sequence[Row], of_b: Sequence[Row], sides: tuple[Side, Side], read: Callable) -> Pair:
    def paired() -> Difference | None:
        a, b = (read_scored(rows, side.results, read) for rows, side in zip((of_a, of_b), sides))
        if a is None or b is None or not same_documents(a, b):
            return None
        return over_paired_documents(a.values, b.values)

    direction = {row.get("higher_is_better") for row in (*of_a, *of_b)}
    higher = {"true": True, "false": False}.get(str(next(iter(direction)))) if len(direction) == 1 else None
    differs = tuple(differences_in(OF_SCORES, of_a, of_b))
    return _pair(names, str(names["metric"]), of_a, of_b, "value", higher, differs, paired)


def _losses(loss: str, runs: Joined) -> list[Pair]:
    pairs = []
    for names, *sides in runs.pairs:
        of_a, of_b = ([row for row in rows if row[loss] is not None] for rows in sides)
        if of_a and of_b:
            differs = tuple(differences_in(OF_LOSSES, of_a, of_b))
            pairs.append(_pair(names, loss, of_a, of_b, loss, False, differs, lambda: None))
    return pairs


def _pair(names: Row, quantity: str, of_a: Sequence[Row], of_b: Sequence[Row], column: str, higher: bool | None,
          differs: tuple[str, ...], paired: Callable[[], Difference | None]) -> Pair:  # fmt: skip
    """The pair with the best standard error that there is: over seeds, else over the same documents, else over both;
    with none where the values are the same on both sides."""
    values_a, values_b = ([row[column] for row in rows] for rows in (of_a, of_b))
    a, b = (mean([row[column] for row in rows], [row.get("stderr") for row in rows]) for rows in (of_a, of_b))
    value = b.value - a.value
    if sorted(values_a) == sorted(values_b):  # the same runs, or a tie, which only documents can tell apart
        difference = paired() or Difference(0.0)
    else:
        difference = (
            over_seeds(values_a, values_b) or paired() or over_documents(value, a.se, b.se) or Difference(value)
        )
    better = "same" if value == 0 else None if higher is None else "B" if value * BETTER[higher] > 0 else "A"
    return Pair(names, quantity, a, b, difference, better, differs)


def _costs(machines: Joined) -> list[Cost]:
    costs = []
    for names, of_a, of_b in machines.pairs:
        timing = tuple("+".join(sorted({row["timing"] for row in rows})) for rows in (of_a, of_b))
        comparable = timing[0] == timing[1]
        conditions = OF_COSTS + (OF_ONE_TIMING if comparable else ())
        differs = tuple(differences_in(conditions, of_a, of_b))
        extrapolated = tuple(any(row.get("extrapolated") == "true" for row in rows) for rows in (of_a, of_b))
        for quantity in COSTS:
            a, b = (_known_mean(rows, quantity) for rows in (of_a, of_b))
            if a is not None or b is not None:
                ratio = b / a if a and b is not None and comparable else None
                costs.append(Cost(names, quantity, a, b, timing, extrapolated, ratio, differs))  # type: ignore[arg-type]
    return costs


def _known_mean(rows: Sequence[Row], quantity: str) -> float | None:
    """The mean over seeds; None where one is not known, or where some are measured and some modeled."""
    values = [row.get(quantity) for row in rows]
    return None if None in values or len({row["timing"] for row in rows}) > 1 else mean(values).value  # type: ignore
