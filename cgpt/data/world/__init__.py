"""The builtin world: a seeded corpus about a few people, and three tasks drawn from the same world.

The facts of a person are told again and again and never change; moods follow from what happened, with negation and
contrast; topics show in words that share company. The tasks ask for combinations (a person and a question, a thing
and an adjective, a pattern and a noun) that occur neither in the corpus nor in the training split.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cgpt.data.world.dice import Dice
from cgpt.data.world.stories import document
from cgpt.data.world.tasks import N_EXAMPLES, TASKS, examples
from cgpt.files.whole import write_whole

N_DOCUMENTS = 15_000


def write_world(seed: int, out: Path) -> list[str]:
    """Write corpus.jsonl and <task>_<split>.jsonl into `out`, the same bytes for a seed on every machine.

    Returns the names of the files. Raises OSError where the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    dice = Dice(seed)
    names = ["corpus.jsonl"]
    _write_lines(out / names[0], ({"text": document(dice)} for _ in range(N_DOCUMENTS)))
    for task in TASKS:
        for split in N_EXAMPLES:
            names.append(f"{task}_{split}.jsonl")
            _write_lines(out / names[-1], examples(dice, task, split))
    return names


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_whole(path, text.encode())
