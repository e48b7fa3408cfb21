"""Completion in a shell: of verbs, flags, and the names of experiments, tasks, models and hardware profiles."""

import argparse
import os
from functools import partial
from typing import Any

KINDS = {"experiment": "experiments", "model": "models", "hardware": "hardware"}  # of arguments by what they are


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell where it asks for completions, and end; else do nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for verb in verbs.choices.values():
        for action in verb._actions:
            if action.dest in KINDS:
                action.completer = partial(names, KINDS[action.dest])
    argcomplete.autocomplete(parser)


def names(kind: str, **_: Any) -> list[str]:
    """The names of all entries of a kind that are right; none where nothing can be read."""
    from cgpt.commands.plan import read_workflow
    from cgpt.errors import UserError

    try:
        return sorted(getattr(read_workflow(), kind))
    except UserError:
        return []
