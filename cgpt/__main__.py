"""The command line: `python -m cgpt <verb>`. Progress and problems go to standard error, numbers to standard output."""

import argparse
import io
import json
import sys
from collections.abc import Callable

from cgpt import jobs
from cgpt.commands import bench, doctor, ending, forecast, generate, huggingface, measure, plan, report, run_stage
from cgpt.host import check_threads


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 1 with one line a problem where a user can mend it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no result is lost because a terminal cannot show a character
    asked = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cgpt", description="Declarative GPT scaling experiments.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")

    def add_verb(name: str, run: Callable | None, help: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, parents=[shared], help=help)
        verb.set_defaults(run=run)
        return verb

    for group in (plan, run_stage, report, doctor, bench, measure, generate, huggingface, forecast):
        group.add_verbs(add_verb)
    return parser


if __name__ == "__main__":
    sys.exit(main())
