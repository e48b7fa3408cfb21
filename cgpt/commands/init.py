"""The verb `init`: a new study, with an example experiment and the text and questions that it needs."""

import argparse
import csv
import io
import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgpt import SHIPPED
from cgpt.data.world.dice import Dice
from cgpt.errors import UserError
from cgpt.files.whole import writing

TEMPLATE = Path(__file__).parent / "study"
PROFILE = "profiles/default/profile.yaml"
N_DAYS = {"train": 400, "validation": 100, "test": 200}  # of the task; the text has others
N_TEXT_DAYS = 3000
TIMES = ("In the morning", "At noon", "In the evening")
BAD_AND_GOOD = (
    ("the rain came in", "the sun came out"),
    ("the bread was stale", "the bread was warm"),
    ("a bill came by post", "a friend wrote a letter"),
    ("the bus was late", "the bus was early"),
    ("the soup was cold", "the soup was hot"),
    ("the cat ran away", "the cat came home"),
    ("the neighbours shouted", "the neighbours sang"),
    ("the roses froze", "the roses opened"),
    ("the tap dripped", "the tea was ready"),
    ("I lost my keys", "I met an old friend"),
)


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line."""
    verb = add_verb("init", init, "make a folder for a study of your own, with an example", group="start",
                    example="my-study")  # fmt: skip
    verb.add_argument("folder", type=Path, help="a new folder, or one that has none of the study's files yet")


def init(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write a study's files into a folder; their names as a mapping, and what to do next. Raises UserError."""
    folder: Path = arguments.folder
    files = dict(_files())
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    if there := sorted(name for name in files if (folder / name).exists()):
        raise UserError(f"{folder}: has {there[0]} already, and nothing is overwritten; name a new folder")
    with writing(folder):
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("xb") as file:
                file.write(content)
    enter = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    text = (
        f"{folder}: a study with the example experiment `days`; next:\n  {enter}cgpt plan days\n  snakemake --cores 2"
    )
    return {"folder": str(folder), "files": sorted(files)}, text


def _files() -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a new study."""
    for path in sorted(TEMPLATE.rglob("*")):
        if path.is_file():
            yield path.relative_to(TEMPLATE).as_posix().replace("gitignore", ".gitignore"), path.read_bytes()
    yield PROFILE, (SHIPPED / PROFILE).read_bytes()
    dice = Dice(0)
    days = [_day(dice) for _ in range(N_TEXT_DAYS)]
    yield "data/days.txt", "".join(f"{day} It was a {('bad', 'good')[good]} day.\n" for day, good in days).encode()
    others = (day for _ in itertools.count() if (day := _day(dice)) not in days)
    for split, n in N_DAYS.items():
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("day", "good"), *itertools.islice(others, n)])
        yield f"data/good_day_{split}.csv", table.getvalue().encode()


def _day(dice: Dice) -> tuple[str, int]:
    """The events of a day, and 1 where most of it was good, else 0."""
    events = [(pair[kind := dice.below(2)], kind) for pair in dice.sample(BAD_AND_GOOD, len(TIMES))]
    text = " ".join(f"{time} {what}." for time, (what, _) in zip(TIMES, events, strict=True))
    return text, int(2 * sum(kind for _, kind in events) > len(events))
