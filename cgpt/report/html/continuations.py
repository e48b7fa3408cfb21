"""The continuations of each model: continuations.json, as far as the page shows it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgpt.errors import UserError
from cgpt.files.json_object import read_object
from cgpt.report.visible import cut

LONGEST = 600  # characters shown of each text
REDO = "delete it, so that it is made again"


@dataclass(frozen=True)
class Continuation:
    """The text that one model wrote after a prompt, and how many characters of it are not shown."""

    model: str
    text: str
    left_out: int


@dataclass(frozen=True)
class Prompt:
    """A prompt, how its document goes on, and what each model wrote instead."""

    text: str
    followed_by: str
    continuations: Sequence[Continuation]


def read_continuations(path: Path, runs: Collection[str]) -> tuple[str, list[Prompt]] | None:
    """How the texts were drawn, in words, and the prompts with all models' continuations; None where there are none.
    Raises UserError for a file that is damaged, or of a run that is not among `runs`."""
    if not path.is_file():
        return None
    raw = read_object(path, REDO)
    try:
        if strange := [model["run"] for model in raw["models"] if model["run"] not in runs]:
            raise UserError(f"{path}: is of {strange[0]}, which is no run of the experiment; {REDO}")
        drawn = {f"temperature {model['temperature']}, seed {model['seed']}": None for model in raw["models"]}
        return (" and ".join(drawn), _by_prompt(raw["models"])) if drawn else None
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {error}: is missing or of the wrong kind; {REDO}") from None


def _by_prompt(models: Sequence[dict[str, Any]]) -> list[Prompt]:
    prompts: dict[tuple[str, str], list[Continuation]] = {}
    for model in models:
        name = ", ".join(filter(None, (str(model["model"]), str(model.get("setting") or ""))))
        for text in model["texts"]:
            key = cut(text["prompt"], LONGEST, True)[0], cut(text["followed_by"], LONGEST)[0]
            prompts.setdefault(key, []).append(Continuation(name, *cut(text["continuation"], LONGEST)))
    return [Prompt(*key, written) for key, written in prompts.items()]
