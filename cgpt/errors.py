"""The one exception for what a user can cause; the command line prints its lines and exits with 1."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Iterable


class UserError(Exception):
    """One or more problems, each one line: `file: key: what was wrong; what to write instead`."""

    def __init__(self, *problems: str):
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the nearest known name, else the list of what is known."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return "known: " + ", ".join(known) if known else "none is defined"
