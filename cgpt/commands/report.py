"""The verbs that write tables, figures and fits: of an experiment, and of the coordinate check."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from cgpt.commands.plan import make_plan, read_workflow
from cgpt.experiment.run import LOCKS, RESULTS
from cgpt.files import cache
from cgpt.files.whole import lock

GROUP = "tables and reports"
# Of each verb: its help, and the module of the function that has the verb's name.
VERBS = {
    "tabulate": ("write an experiment's scores.csv and tables", "tables"),
    "plot": ("write an experiment's figures", "figures"),
    "plot-vary": ("write the figure of what an experiment varies", "vary_figure"),
    "continuations": ("write what an experiment's models write after beginnings of documents", "continuations"),
    "plot-hardware": ("write the figures of an experiment's modeled machines", "machines.figures"),
    "report": ("write report.html: an experiment's question, its answer, and all that it rests on", "html.report"),
}


def add_verbs(add_verb: Any) -> None:
    """Add the verbs to a command line."""
    for name, (help_text, _) in VERBS.items():
        verb = add_verb(name, report, help_text, group=GROUP, example="quickstart")
        verb.add_argument("experiment", help="the name of a file of workflows/experiments")
        verb.add_argument("--partial", action="store_true", help="of the records that are there, in a folder `partial` "
                          "that says what is missing")  # fmt: skip
    verb = add_verb(
        "fit", fit, "fit scaling laws to an experiment's runs, with intervals", group=GROUP, example="scaling"
    )
    verb.add_argument("experiment", nargs="?", help="the name of a file of workflows/experiments")
    verb.add_argument("--published", action="store_true",
                      help="the published runs, and the experiment's or our reference runs of `scaling`")  # fmt: skip
    verb = add_verb("coordinate-check", coordinate_check, "measure how activations grow with width under SP and muP",
                    group=GROUP, example="--threads 2")  # fmt: skip
    verb.add_argument("--out", type=Path, default=RESULTS / "coordinate_check", help="the folder of table and figure")
    verb.add_argument("--threads", type=int, help="default: one per core")


def report(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the tables, the figures or the report of an experiment; the folder that they stand in. Raises UserError."""
    verb = arguments.verb
    if verb != "tabulate":
        cache.prepare_matplotlib()
    experiment, planned = make_plan(arguments.experiment, read_workflow())
    write = getattr(import_module(f"cgpt.report.{VERBS[verb][1]}"), verb.replace("-", "_"))
    with lock(LOCKS / "tables" / experiment.name, wait=True):
        folder = write(experiment, planned, RESULTS, arguments.partial)
    text = f"{folder}/report.html" if verb == "report" else str(folder) if arguments.partial else ""
    return {"experiment": experiment.name, "folder": str(folder)}, text


def fit(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Fit laws to an experiment's runs or to the published ones, as a mapping and as tables. Raises UserError."""
    cache.prepare_matplotlib()
    from cgpt.commands import fit  # imports SciPy, which no other verb need wait for

    return fit.run(arguments)


def coordinate_check(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Train models of several widths, and write how their activations grow. Raises UserError."""
    cache.prepare_matplotlib()
    from cgpt.report.laws.coordinate_check import coordinate_check
    from cgpt.training.coordinate_check import Settings

    result = coordinate_check(Settings(), arguments.out, arguments.threads)
    return result, f"{arguments.out}/coordinate_check.md"
