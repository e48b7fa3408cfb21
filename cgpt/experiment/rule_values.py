"""Inputs, parameters and resources of the workflow's rules, from the runs and experiments that they are for."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cgpt.data import content
from cgpt.errors import UserError
from cgpt.experiment.load import Workflow
from cgpt.experiment.plans import Plans
from cgpt.experiment.run import Plan, Run, last_file
from cgpt.files.layers import is_checkout, layers_of
from cgpt.hardware import Hardware
from cgpt.host import level
from cgpt.kernels.compiler import find_compiler
from cgpt.kernels.native.engine import named_engine
from cgpt.provenance import code_sha256
from cgpt.spec import Dataset, Experiment

FIGURES = ("loss", "scores", "answers", "compute")  # of every experiment
HARDWARE_FIGURES = ("time_to_loss", "step_time", "roofline")  # of one with modeled machines
TABLES = ("table.md", "table.html", "scores.csv", "runs.csv", "hardware.csv")
PAGE = (".jinja", ".css")  # files of the report that are no code
RUNTIME_MINUTES = 24 * 60  # after which a cluster may stop a job, where its profile names no time
SPARE_MEMORY = 1.5  # as a multiple of the plan's estimate


def asked_for(arguments: Sequence[str], workflow: Workflow) -> list[str]:
    """The experiments whose files the arguments of Snakemake's command ask for; all of the study's where they name no
    file of results."""
    folders = [match[1] for argument in arguments if (match := re.match(r"(?:.*/)?results/([^/]+)/", argument))]
    if folders:
        return [name for name in dict.fromkeys(folders) if name in workflow.experiments]
    return [name for name in workflow.experiments if not workflow.is_shipped("experiments", name)]


def refuse_broken(arguments: Sequence[str], workflow: Workflow, plans: Plans) -> None:
    """Raise UserError where an experiment whose files are asked for is wrong; name the other wrong entries, which are
    left out. `arguments` are those of Snakemake's command."""
    folders = [re.match(r"(?:.*/)?results/([^/]+)/", argument) for argument in arguments]
    asked = [folder[1] for folder in folders if folder and folder[1] in workflow.experiments]
    for name in asked:
        find_plan(name, workflow, plans)
    workflow.warn_of_others(*asked)
    for name in plans.broken.keys() - workflow.experiments.broken.keys() - workflow.shipped.get("experiments", set()):
        print(f"warning: not used here, and left out: {plans.broken[name][0]}", file=sys.stderr)


def find_plan(experiment: str, workflow: Workflow, plans: Plans) -> Plan:
    """The plan of an experiment; raises UserError with what is wrong with it or with what it names."""
    workflow.asked(experiment)
    if experiment in plans.broken:
        raise UserError(*plans.broken[experiment])
    return plans.by_experiment[experiment]


def refuse_no_compiler(runs: Iterable[Run]) -> None:
    """Raise UserError where runs on the processor would find no compiler, level or engine of products."""
    if any(run.execution.hardware and run.execution.hardware.runs_on_host for run in runs):
        find_compiler()
        level()
        named_engine()


def any_of(names: Iterable[str]) -> str:
    """Wildcard constraint: one of these names; where there are none, a name that nothing has."""
    return "|".join(sorted(map(re.escape, names))) or "none"


def upstream_files(run: Run) -> list[str]:
    """Input: the files that show that a run's upstream runs are finished."""
    return [str(last_file(*key)) for key in run.upstream()]


def local_files(dataset: Dataset) -> list[str]:
    """Input: the files of a data set that is a local file or folder."""
    return [str(file) for file in content.local_files(dataset.path)] if dataset.path else []


def local_content(dataset: Dataset) -> str:
    """Parameter: the hash of what these files hold, whatever their times say."""
    try:
        return content.digest(content.of_local_files(dataset.path)) if dataset.path else ""
    except UserError:
        return "unreadable"  # which fetch says in its own words


def spec(run: Run) -> str:
    """Parameter: what decides the run's result, so that Snakemake redoes it when that changes."""
    return json.dumps(run.spec, sort_keys=True)


def code(run: Run) -> str:
    """Parameter: the code that decides the run's record: its stage's, and the cost model's where that gives times."""
    names = [f"stages.{run.stage}"] + (["cost.job"] if _hardware(run).timing == "modeled" else [])
    return " ".join(map(code_sha256, names))


def threads(run: Run) -> int:
    """Threads that the plan names for the run."""
    return run.execution.threads


def mem_mb(run: Run) -> int:
    """Memory: the hardware profile's, else the plan's estimate and half as much again."""
    named = run.execution.hardware.resources.mem_mb if run.execution.hardware else None
    return named or int(SPARE_MEMORY * (run.execution.memory_bytes or 0) / 1e6) or 1000


def gpu(run: Run) -> int:
    """Accelerators: the hardware profile's."""
    return _hardware(run).resources.gpu


def runtime(run: Run) -> int:
    """Minutes after which a cluster may stop the job."""
    return _hardware(run).resources.runtime_minutes or RUNTIME_MINUTES


def priority(run: Run) -> float:
    """Priority: of runs that share their first steps the shorter, as the longer can go on from what it leaves."""
    return 1 / run.spec["train"]["steps"] if run.execution.is_shared or run.execution.shorter else 0


def record_files(plan: Plan) -> list[str]:
    """Input: the records of every run of an experiment that has one."""
    return [str(last_file(*run.key)) for run in plan.runs if run.stage not in ("fetch", "tokenize")]


def curve_files(plan: Plan) -> list[str]:
    """Input: the loss curves of an experiment."""
    return [str(last_file(*run.key).with_name("loss.csv")) for stage in ("pretrain", "finetune")
            for run in plan.of(stage)]  # fmt: skip


def first_trained_files(plan: Plan) -> list[str]:
    """Input: the records of the first pretraining run of each model."""
    return [str(last_file(*run.key)) for run in plan.first_trained()]


def question_and_runs(experiment: Experiment, plan: Plan) -> str:
    """Parameter: what an experiment says and the runs it is made of."""
    return json.dumps({"question": experiment.question, "runs": [run.id for run in plan.runs]})


def power_and_price(experiment: Experiment, hardware: Mapping[str, Hardware]) -> str:
    """Parameter: what a second costs on each profile of an experiment."""
    profiles = [hardware[name] for name in experiment.hardware]
    return json.dumps({profile.name: [profile.power_w, profile.price_per_hour_usd] for profile in profiles})


def figure_names(experiment: Experiment, plan: Plan) -> list[str]:
    """The figures of an experiment's runs and scores."""
    return [*FIGURES, *(["vary"] if experiment.vary else []), *(HARDWARE_FIGURES if plan.of("meter") else [])]


def law_figures(experiment: Experiment) -> list[str]:
    """The figures of an experiment's laws, which are made from its tables."""
    return [*(["law"] if experiment.fit else []), *(["hardware_law"] if "hardware" in experiment.fit else [])]


def figure_files(experiment: Experiment, plan: Plan) -> list[str]:
    """The figures of an experiment's runs and scores, in both forms; those of laws are made from its tables."""
    return _drawn(experiment, figure_names(experiment, plan))


def sample_files(plan: Plan) -> list[str]:
    """Input: the single documents of every evaluation of an experiment."""
    return [str(last_file(*run.key).with_name("samples.jsonl")) for stage in ("evaluate", "baseline")
            for run in plan.of(stage)]  # fmt: skip


def table_files(experiment: Experiment, plan: Plan) -> list[str]:
    """The tables and figures of an experiment, its laws, and what its models write."""
    laws = ["fits.json", "fits.md"] if experiment.fit else []
    written = ["continuations.json"] if plan.of("pretrain") else []
    beside = [f"results/{experiment.name}/{name}" for name in (*TABLES, *laws, *written)]
    return [*beside, *_drawn(experiment, law_figures(experiment)), *figure_files(experiment, plan)]


def report_files(experiment: Experiment, plan: Plan) -> list[str]:
    """The report of an experiment and all that it shows."""
    return [f"results/{experiment.name}/report.html", *table_files(experiment, plan)]


def page_sha256() -> str:
    """Parameter: the hash of the report's template and style, which are no code."""
    pages = Path(__file__).parent.parent / "report" / "html"
    return content.digest(
        {path.name: content.sha256_of(path) for path in sorted(pages.iterdir()) if path.suffix in PAGE}
    )


def _drawn(experiment: Experiment, names: Iterable[str]) -> list[str]:
    return [f"results/{experiment.name}/figures/{name}.{kind}" for name in names for kind in ("svg", "png")]


def default_files(workflow: Workflow, plans: Plans) -> list[str]:
    """Input: the report files of all of a study's experiments, and in cgpt's checkout of its quickstart alone.

    Raises UserError where one of these experiments is wrong, or where a study has none.
    """
    names = [name for name in [*workflow.experiments, *workflow.experiments.broken]
             if not workflow.is_shipped("experiments", name)]  # fmt: skip
    if is_checkout(Path()):
        names = ["quickstart"]
    if not names:
        raise UserError("workflows/experiments: holds no experiment; write one, or name a file to make, such as "
                        "results/quickstart/table.md of cgpt's quickstart")  # fmt: skip
    of_name = {name: find_plan(name, workflow, plans) for name in names}
    return [file for name, plan in of_name.items() for file in report_files(workflow.experiments[name], plan)]


def declaration_files(*kinds: str) -> list[str]:
    """Input: the study's and cgpt's files of these kinds of entries."""
    return [str(path) for layer in layers_of(Path()) for kind in kinds for path in layer.files(kind)]


def _hardware(run: Run) -> Hardware:
    assert run.execution.hardware is not None, "a run of this stage has a profile"
    return run.execution.hardware
