"""The one exception for what a user can cause; the command line prints its lines and exits with 1."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_PROBLEM, LONGEST_NAME = 2000, 200  # characters


class UserError(Exception):
    """One or more problems, each one line: `file: key: what was wrong; what to write instead`."""

    def __init__(self, *problems: str):
        self.problems = tuple(map(one_line, problems))
        super().__init__("\n".join(self.problems))


def one_line(text: str, longest: int = LONGEST_PROBLEM) -> str:
    """`text` on one line that a terminal prints as it stands, whatever a user put into it; cut where too long."""
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]} ... {text[-longest // 3 :]}"
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else repr(c)[1:-1] for c in text.strip())


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the nearest known name, else the list of what is known."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6) if len(name) <= LONGEST_NAME else []
    if near:
        return f"did you mean '{near[0]}'?"
    return "known: " + ", ".join(known) if known else "none is defined"
