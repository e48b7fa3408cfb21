"""report.html: an experiment's question, its answer with number and interval, and all that the answer rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from cgpt.experiment.rule_values import TABLES, figure_names, law_figures
from cgpt.files.json_object import read_object
from cgpt.files.whole import write_whole
from cgpt.records import ANSWER_BITS
from cgpt.report import flags
from cgpt.report.conclusions.conclude import conclude
from cgpt.report.html.bars import on_a_scale
from cgpt.report.html.continuations import read_continuations
from cgpt.report.html.costs import cost_tables
from cgpt.report.html.figures import embed_figures
from cgpt.report.html.runs import FEW_RUNS, made_with, runs_by_stage
from cgpt.report.html.tasks import view_tasks
from cgpt.report.page import Page, html_table
from cgpt.report.rows import Rows, collect, output_folder, refuse_stale
from cgpt.report.tables import make_page
from cgpt.report.visible import visible
from cgpt.spec import Experiment

if TYPE_CHECKING:
    from cgpt.experiment.run import Plan

HERE = Path(__file__).parent
TEMPLATE, STYLE = "report.html.jinja", "report.css"


def report(experiment: Experiment, plan: Plan, results: Path, partial: bool = False) -> Path:
    """Write report.html of an experiment whose tables and figures are there; return its folder. `partial`: of the
    records that are there, with figures drawn of them too. Raises UserError."""
    rows = collect(experiment, plan, results, partial)
    folder = output_folder(experiment, rows, results)
    if rows.missing:
        draw_of_the_rest(experiment, plan, results)
    else:
        refuse_stale(experiment, plan, results)
    content = render(experiment, plan, rows, results, folder)
    write_whole(folder / "report.html", content.encode())
    return folder


def render(experiment: Experiment, plan: Plan, rows: Rows, results: Path, folder: Path) -> str:
    """The page as HTML; links on it are relative to `folder`. Raises UserError where one of its sources cannot be read
    or is missing."""
    remedy = f"run `snakemake --cores 2 {results / experiment.name / 'report.html'}`, which makes it"
    laws = experiment.fit and not rows.missing
    fits = read_object(folder / "fits.json", remedy) if laws else None
    groups = {group.name for group in plan.groups}
    names = set(figure_names(experiment, plan)) | set(law_figures(experiment) if laws else ())
    page = make_page(experiment, rows)
    return _template().render(
        experiment=experiment,
        page=page,
        beware=list(_beware(page, rows)),
        conclusions=conclude(experiment, rows, results, fits, groups),
        figures=embed_figures(folder, names & set(_with_content(rows)), remedy),
        tasks=view_tasks(rows.scores, experiment.tasks, groups, results),
        continuations=read_continuations(folder / "continuations.json", {run.id for run in plan.of("pretrain")}),
        costs=cost_tables(rows, plan),
        stages=runs_by_stage(rows, plan, results, folder),
        made_with=made_with(rows),
        tables=[name for name in TABLES if (folder / name).is_file()],
        few_runs=FEW_RUNS,
        style=Markup((HERE / STYLE).read_text(encoding="utf-8")),
    )


def draw_of_the_rest(experiment: Experiment, plan: Plan, results: Path) -> None:
    """Draw the figures of the records that are there into the folder `partial`."""
    from cgpt.report.figures import plot
    from cgpt.report.machines.figures import plot_hardware
    from cgpt.report.vary_figure import plot_vary

    names = figure_names(experiment, plan)
    for draw, name in ((plot, "loss"), (plot_vary, "vary"), (plot_hardware, "roofline")):
        if name in names:
            draw(experiment, plan, results, True)


def _template() -> Any:
    """The template, which escapes whatever is put into it and fails on a name that it is not given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    environment.filters["table"] = lambda table: Markup(html_table(table))
    environment.filters["on_a_scale"] = on_a_scale
    environment.filters["unbroken"] = lambda sentence: sentence.replace(" %", "\N{NO-BREAK SPACE}%")
    return environment.get_template(TEMPLATE)


def _shown(value: Any) -> Any:
    """Texts with signs for what cannot be seen; HTML of ours as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _beware(page: Page, rows: Rows) -> Iterator[str]:
    """Sentences that a reader must know before trusting the answer: what is missing, diverged or flagged."""
    facts: Mapping[str, str] = dict(page.facts)
    if "Not complete" in facts:
        yield f"Not complete: {facts['Not complete']}."
    for row in rows.diverged:
        yield f"{row['run']} diverged at step {row['step']:,}."
    rules = (flags.ONE_ANSWER_RULE, flags.SCORE_RULE, flags.LOSS_RULE)
    notes = dict.fromkeys(note for table in page.tables for note in table.notes if note not in rules)
    yield from (note.removeprefix(flags.MARK).strip() for note in notes if note.startswith(flags.MARK))


def _with_content(rows: Rows) -> Iterator[str]:
    """The figures that show more than a sentence that there is nothing to show."""
    yield from ("law", "hardware_law", "vary", "time_to_loss", "step_time", "roofline")
    pretrained = [row for row in rows.runs if row["stage"] == "pretrain"]
    if pretrained:
        yield "loss"
    if any(row["primary"] for row in rows.scores):
        yield "scores"
    if any(row["metric"] == ANSWER_BITS and row["stage"] == "pretrain" for row in rows.scores):
        yield "answers"
    if len({row["flops"] for row in pretrained if row["validation_loss"] is not None}) > 1:
        yield "compute"
