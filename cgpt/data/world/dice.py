"""Seeded choices that come out the same on every machine and Python version.

Only `random.Random.random()` is used: Python promises its sequence for a seed, but not that of `choice` or `shuffle`.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

GROUPS = 4
"""Row i and column j of a table meet in cell group (i + j) mod GROUPS; whole groups are held out."""

CELL_GROUPS = {"train": (2, 3), "validation": (1,), "test": (0,)}
"""Which cell groups a split draws from. The corpus draws from those of `train`."""


class Dice:
    """A seeded source of choices."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._random() * n)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """k different items in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(k)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in random order."""
        return self.sample(items, len(items))

    def weighted(self, items: Sequence[tuple[float, T]]) -> T:
        """One of the (weight, item) pairs' items; the weights sum to 1."""
        left = self._random()
        for weight, item in items:
            left -= weight
            if left < 0:
                return item
        return items[-1][1]

    def column(self, row: int, columns: Sequence[T], split: str) -> T:
        """A column that may meet this row in this split. The number of columns is a multiple of GROUPS."""
        first = (self.choice(CELL_GROUPS[split]) - row) % GROUPS
        return self.choice(columns[first::GROUPS])

    def cell(self, rows: Sequence[str], columns: Sequence[T], split: str) -> tuple[str, T]:
        """A row and a column that may meet in this split."""
        row = self.below(len(rows))
        return rows[row], self.column(row, columns, split)


def split_of(row: int, column: int) -> str:
    """The split in which this row and this column of a table may meet."""
    group = (row + column) % GROUPS
    return next(split for split, groups in CELL_GROUPS.items() if group in groups)
