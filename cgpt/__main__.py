# PYTHON_ARGCOMPLETE_OK
"""The command line: `cgpt <verb>`. Progress and problems go to standard error, numbers to standard output."""

import argparse
import io
import json
import sys
from collections.abc import Callable

from cgpt import __version__, jobs
from cgpt.commands import (
    bench,
    clean,
    compare,
    completion,
    doctor,
    ending,
    forecast,
    generate,
    huggingface,
    init,
    listing,
    measure,
    plan,
    report,
    run_stage,
)
from cgpt.host import check_threads

# Verbs in `--help`, in this order; a verb that names none of them stands in the last.
GROUPS = ("start", "tables and reports", "models", "forecasts", "comparing and cleaning", "stages", "others")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 1 with one line a problem where a user can mend it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no result is lost because a terminal cannot show a character
    parser = make_parser()
    completion.complete(parser)
    asked = parser.parse_args(arguments)
    with ending.reported(asked.verb) as end:
        jobs.stop_with_workflow()
        if isinstance(getattr(asked, "threads", None), int):
            check_threads(asked.threads)
        if asked.verb in run_stage.STAGES:
            with run_stage.prepared(asked) as (stage, job):
                result, text = stage(job), ""
        else:
            result, text = asked.run(asked)
        print(json.dumps(result) if asked.json else text, end="\n" if asked.json or text else "", flush=True)
    return end.code


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs, each with its example, which ends the verb's `--help`."""
    called = "python -m cgpt" if sys.argv[0].endswith("__main__.py") else "cgpt"
    parser = argparse.ArgumentParser(
        prog=called,
        usage="%(prog)s [-h] [--version] verb ...",
        description="Declarative GPT scaling experiments.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cgpt {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb", prog=called, help=argparse.SUPPRESS)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")
    lines: dict[str, list[str]] = {group: [] for group in GROUPS}

    def add_verb(
        name: str, run: Callable | None, help: str, group: str = GROUPS[-1], example: str = ""
    ) -> argparse.ArgumentParser:
        """Add a verb; `example` holds arguments that it can be called with."""
        words = f"example: {called} {name} {example}".rstrip()
        verb = verbs.add_parser(name, parents=[shared], help=help, description=help, epilog=words)
        verb.set_defaults(run=run)
        lines[group].append(f"  {name:18} {help}")
        return verb

    modules = (
        init, listing, plan, doctor, measure, report, compare, clean, generate, huggingface, forecast, run_stage, bench
    )  # fmt: skip
    for module in modules:
        module.add_verbs(add_verb)
    shown = ["\n".join([f"{group}:", *lines[group]]) for group in GROUPS if lines[group]]
    parser.epilog = "\n\n".join([*shown, f"`{called} <verb> --help` explains one of them and ends with an example."])
    return parser


if __name__ == "__main__":
    sys.exit(main())
