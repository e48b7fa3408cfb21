"""The verb `compare`: two experiments, two folders of results or two machines side by side."""

import argparse
from pathlib import Path
from typing import Any

from cgpt.errors import UserError
from cgpt.experiment.run import RESULTS
from cgpt.files.whole import write_whole

MOST_SIDES = 2


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line."""
    verb = add_verb("compare", run, "two experiments or machines side by side, with differences in standard errors",
                    group="comparing and cleaning", example="quickstart results/reference/quickstart")  # fmt: skip
    help_text = "two experiments, or folders with their tables; with --hardware one is enough"
    verb.add_argument("results", nargs="+", help=help_text)
    verb.add_argument("--hardware", nargs=2, metavar=("A", "B"), help="of the first the results on profile A, of the "
                      "second, or of the same, those on profile B")  # fmt: skip
    verb.add_argument("--out", type=Path, help="also write the comparison to this file, as .md or .html")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The comparison as a mapping and as text. Raises UserError where there are not two sides to compare."""
    from cgpt.report.comparison import compare, page
    from cgpt.report.comparison.sides import read_side
    from cgpt.report.page import html, markdown

    names, profiles = arguments.results, arguments.hardware or (None, None)
    if len(names) > MOST_SIDES or (len(names) == 1 and arguments.hardware is None):
        n_named = "1 is" if len(names) == 1 else f"{len(names)} are"
        raise UserError(f"compare: {n_named} named; name two experiments, or one and `--hardware A B`")
    writers = {".md": markdown, ".html": html}
    if arguments.out is not None and arguments.out.suffix not in writers:
        raise UserError(f"--out: '{arguments.out}' ends in neither .md nor .html; write one of the two")
    a, b = (read_side(name, RESULTS, profile) for name, profile in zip((names[0], names[-1]), profiles))
    if a.folder.resolve() == b.folder.resolve() and profiles[0] == profiles[1]:
        raise UserError(f"compare: both sides are {a.folder}; name another for one of them, or two profiles with "
                        "--hardware")  # fmt: skip
    comparison = compare.compare(a, b)
    shown = page.make_page(comparison)
    if arguments.out is not None:
        write_whole(arguments.out, writers[arguments.out.suffix](shown).encode())
    return compare.as_json(comparison), page.text(shown)
