# What the rules ask of the plan. Every YAML file is read here, when Snakemake parses, also where all outputs exist.
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from cgpt import jobs
from cgpt.code_hash import code_sha256
from cgpt.data import content
from cgpt.errors import UserError
from cgpt.experiment import load, plans
from cgpt.experiment.run import last_file
from cgpt.files import declarations
from cgpt.host import level
from cgpt.kernels.backend import on_host
from cgpt.kernels.compiler import find_compiler

# Jobs use the Python that runs Snakemake, whether or not its environment is activated; a failed stage fails its pipe to tee.
shell.prefix(f'set -euo pipefail; export PATH="{Path(sys.executable).parent}:$PATH"; ')

os.environ[jobs.WORKFLOW_PID] = str(os.getpid())  # jobs stop when this process is gone


def stop(*problems):
    print(*problems, sep="\n", file=sys.stderr)
    sys.exit(1)


def refuse_broken():
    """Stop where an experiment whose files are asked for is wrong; name the other wrong entries, which are left out."""
    folders = [re.match(r"(?:.*/)?results/([^/]+)/", argument) for argument in sys.argv[1:]]
    asked = [found[1] for found in folders if found and found[1] in WORKFLOW.experiments]
    for name in asked:
        WORKFLOW.asked(name)
        if name in BROKEN:
            raise UserError(*BROKEN[name])
    WORKFLOW.warn_of_others(*asked)
    for name in BROKEN.keys() - WORKFLOW.experiments.broken.keys():
        print(f"warning: not used here, and left out: {BROKEN[name][0]}", file=sys.stderr)


try:
    DECLARING = declarations.folder_of(Path.cwd())
    DECLARED = declarations.contents(DECLARING)
    WORKFLOW = load.read_workflow(Path.cwd(), DECLARING)
    PLANS, BROKEN = plans.make_plans(WORKFLOW)
    refuse_broken()
except UserError as error:
    stop(*error.problems)
RUNS = plans.runs_of(PLANS.values())

FIGURES = ("loss", "scores", "answers", "compute")
DEVICE_FIGURES = ("time_to_loss", "step_time", "roofline")
WITH_MODELED = [name for name, planned in PLANS.items() if planned.of("meter")]
WITH_VARY = [name for name in PLANS if WORKFLOW.experiments[name].vary]
WITH_HARDWARE_LAWS = [name for name in PLANS if "hardware" in WORKFLOW.experiments[name].fit]


def ids(stage):
    """Wildcard constraint: the ids of the stage's runs."""
    return "|".join(sorted(re.escape(run_id) for kind, run_id in RUNS if kind == stage)) or "none"


def upstream(stage):
    """Input: what shows that the run's upstream runs are finished."""
    return lambda wildcards: [str(last_file(*run)) for run in RUNS[stage, wildcards.run].upstream()]


def local_files(wildcards):
    """Input: the files of a dataset that is a local file or folder."""
    path = WORKFLOW.datasets[wildcards.run].path
    return [str(file) for file in content.local_files(path)] if path else []


def local_content(wildcards):
    """Parameter: what these files hold, whatever their times say."""
    path = WORKFLOW.datasets[wildcards.run].path
    try:
        return content.digest(content.of_local_files(path)) if path else ""
    except UserError:
        return "unreadable"  # which fetch says in its own words


def spec(stage):
    """Parameter: what decides the run's result, so that Snakemake redoes it when that changes."""
    return lambda wildcards: json.dumps(RUNS[stage, wildcards.run].spec, sort_keys=True)


def code(stage):
    """Parameter: the code that decides the run's record: the stage's, and the cost model's where that gives the times."""

    def hashes(wildcards):
        modeled = RUNS[stage, wildcards.run].execution.hardware.timing == "modeled"
        return " ".join(
            map(code_sha256, [f"stages.{stage}", "cost.job"] if modeled else [f"stages.{stage}"])
        )

    return hashes


def threads(stage):
    """Threads that the plan names for the run."""
    return lambda wildcards: RUNS[stage, wildcards.run].execution.threads


def shortest_first(wildcards):
    """Priority: of runs that share their first steps the shorter, as the longer can go on from what it leaves."""
    run = RUNS["pretrain", wildcards.run]
    return 1 / run.spec["train"]["steps"] if run.execution.leads_on or run.execution.shorter else 0


def mem_mb(stage):
    """Memory: the hardware profile's, else the plan's estimate and half as much again."""

    def asked(wildcards):
        cost = RUNS[stage, wildcards.run].execution
        return cost.hardware.resources.mem_mb or int(1.5 * (cost.memory_bytes or 0) / 1e6) or 1000

    return asked


def gpu(stage):
    """Accelerators: the hardware profile's."""
    return lambda wildcards: RUNS[stage, wildcards.run].execution.hardware.resources.gpu


def runtime(stage):
    """Minutes after which a cluster may stop the job: the hardware profile's, else a day."""
    return lambda wildcards: RUNS[stage, wildcards.run].execution.hardware.resources.runtime_minutes or 1440


def records(wildcards):
    """Input: the records of every run of an experiment that has one."""
    runs = PLANS[wildcards.experiment].runs
    return [str(last_file(run.stage, run.id)) for run in runs if run.stage not in ("fetch", "tokenize")]


def curves(wildcards):
    """Input: the loss curves of an experiment."""
    trained = [run for run in PLANS[wildcards.experiment].runs if run.stage in ("pretrain", "finetune")]
    return [f"results/runs/{run.stage}/{run.id}/loss.csv" for run in trained]


def experiment_spec(wildcards):
    """Parameter: what an experiment says and the runs it is made of."""
    runs = [run.id for run in PLANS[wildcards.experiment].runs]
    return json.dumps({"question": WORKFLOW.experiments[wildcards.experiment].question, "runs": runs})


def watts_and_prices(wildcards):
    """Parameter: what a second costs on each profile of an experiment."""
    profiles = [WORKFLOW.hardware[name] for name in WORKFLOW.experiments[wildcards.experiment].hardware]
    return json.dumps({profile.name: [profile.power_w, profile.price_per_hour_usd] for profile in profiles})


def figures(experiment):
    """The figures of an experiment's runs and scores; those of laws are made from its tables."""
    names = FIGURES + (("vary",) if experiment in WITH_VARY else ())
    names += DEVICE_FIGURES if experiment in WITH_MODELED else ()
    return [f"results/{experiment}/figures/{name}.{kind}" for name in names for kind in ("svg", "png")]


def report_files(experiment):
    """The tables and figures of an experiment."""
    tables = [
        f"results/{experiment}/{name}" for name in ("table.md", "table.html", "scores.csv", "runs.csv", "hardware.csv")
    ]
    laws = (
        ["fits.json", "fits.md", "figures/law.svg", "figures/law.png"] if WORKFLOW.experiments[experiment].fit else []
    )
    laws += ["figures/hardware_law.svg", "figures/hardware_law.png"] if experiment in WITH_HARDWARE_LAWS else []
    return tables + figures(experiment) + [f"results/{experiment}/{name}" for name in laws]


def default_files(wildcards):
    """Input: the tables and figures of the quickstart, which is wrong only where nothing else is asked for."""
    if "quickstart" not in PLANS:
        try:
            WORKFLOW.asked("quickstart")
            stop(*BROKEN["quickstart"])
        except UserError as error:
            stop(*error.problems)
    return report_files("quickstart")


def begin():
    """Before the first job: keep the files that this began with, pass signals on, and see that jobs can run."""
    try:
        os.environ[declarations.STARTED_WITH] = str(declarations.keep(DECLARED, Path.cwd()))
        need_compiler()
    except UserError as error:
        stop(*error.problems)
    jobs.pass_signals_on()


def need_compiler():
    """Raise UserError where runs on the processor would find no compiler; a dry run needs none."""
    profiles = [run.execution.hardware for run in RUNS.values()]
    if any(profile and on_host(profile) for profile in profiles):
        find_compiler()
        level()


def check_tasks():
    """Stop before the first job where a task that will be trained or scored on has a document that cannot be used."""
    stages = ("finetune", "baseline", "evaluate")
    runs = [job.wildcards.run for job in workflow.dag.needrun_jobs() if job.rule.name in stages]
    if runs and subprocess.run([sys.executable, "-m", "cgpt", "check"], input="\n".join(runs), text=True).returncode:
        sys.exit(1)


wildcard_constraints:
    experiment="|".join(re.escape(name) for name in PLANS),
