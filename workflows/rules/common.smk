# What the rules ask of the plan. Every YAML file is read here, when Snakemake parses, also where all outputs exist.
import os
import subprocess
import sys
from pathlib import Path

from cgpt import jobs
from cgpt.provenance import code_sha256
from cgpt.errors import UserError
from cgpt.experiment import checkpoint_rows, load, rule_values
from cgpt.experiment.plans import make_plans
from cgpt.experiment.progress_line import ProgressLine
from cgpt.experiment.rule_values import HARDWARE_FIGURES, FIGURES, any_of
from cgpt.files import declarations
from cgpt.files.layers import shipped_file

# Jobs use the Python that runs Snakemake, whether or not its environment is activated; a failed stage fails its pipe to tee.
shell.prefix(f'set -euo pipefail; export PATH="{Path(sys.executable).parent}:$PATH"; ')

os.environ[jobs.WORKFLOW_PID] = str(os.getpid())  # jobs stop when this process is gone


def stop(error):
    print(*error.problems, sep="\n", file=sys.stderr)
    sys.exit(1)


try:
    DECLARING = declarations.folder_of(Path.cwd())
    DECLARED = declarations.contents(DECLARING)
    WORKFLOW = load.read_workflow(Path.cwd(), DECLARING)
    if checkpoint_rows.fetch_configs(WORKFLOW, rule_values.asked_for(sys.argv[1:], WORKFLOW), Path.cwd()):
        WORKFLOW = load.read_workflow(Path.cwd(), DECLARING)
    PLANS = make_plans(WORKFLOW)
    rule_values.refuse_broken(sys.argv[1:], WORKFLOW, PLANS)
except UserError as error:
    stop(error)

EXPERIMENTS = {name: (WORKFLOW.experiments[name], plan) for name, plan in PLANS.by_experiment.items()}
PROGRESS = []
WITH_MODELED = [name for name, (_, plan) in EXPERIMENTS.items() if plan.of("meter")]
WITH_VARY = [name for name, (experiment, _) in EXPERIMENTS.items() if experiment.vary]
WITH_HARDWARE_LAWS = [name for name, (experiment, _) in EXPERIMENTS.items() if "hardware" in experiment.fit]


def known_run(stage, run_id):
    """The run of an id that a file's path holds; where no experiment has it, that is said and all stops."""
    try:
        return PLANS.find_run(stage, run_id)
    except UserError as error:
        stop(error)


def of_run(value):
    """A value of the run that the wildcards name, to a rule of the stage."""
    return lambda stage: lambda wildcards: value(known_run(stage, wildcards.run))


upstream, spec, code = map(of_run, (rule_values.upstream_files, rule_values.spec, rule_values.code))
threads, mem_mb = of_run(rule_values.threads), of_run(rule_values.mem_mb)
gpu, runtime = of_run(rule_values.gpu), of_run(rule_values.runtime)
shortest_first = of_run(rule_values.priority)("pretrain")


def of_dataset(value):
    """A value of the data set that the wildcards name."""
    return lambda wildcards: value(WORKFLOW.datasets[known_run("fetch", wildcards.run).id])


def of_plan(value):
    """A value of the plan of the experiment that the wildcards name."""
    return lambda wildcards: value(PLANS.by_experiment[wildcards.experiment])


def of_experiment(value):
    """A value of the experiment that the wildcards name, and of its plan."""
    return lambda wildcards: value(*EXPERIMENTS[wildcards.experiment])


records, curves = of_plan(rule_values.record_files), of_plan(rule_values.curve_files)
samples = of_plan(rule_values.sample_files)
question_and_runs = of_experiment(rule_values.question_and_runs)


def default_files(wildcards):
    """Input: the report files that no target asks for, where what they need is wrong only then."""
    try:
        return rule_values.default_files(WORKFLOW, PLANS)
    except UserError as error:
        stop(error)


def only_in_checkout(path):
    """Input: a file of cgpt's repository that is not installed with it; a study that asks for it is told so."""

    def file(wildcards):
        if not Path(path).is_file():
            stop(UserError(f"{path}: is of cgpt's own repository and not installed with it; ask for it there"))
        return path

    return file


def begin(log=None):
    """Before the first job: keep the files that this began with, pass signals on, and see that jobs can run."""
    try:
        os.environ[declarations.STARTED_WITH] = str(declarations.keep(DECLARED, Path.cwd()))
        rule_values.refuse_no_compiler(PLANS.runs.values())
    except UserError as error:
        stop(error)
    jobs.pass_signals_on()
    check_tasks()
    show_progress()


def check_tasks():
    """Stop before the first job where a task that will be trained or scored on has a document that cannot be used."""
    stages = ("finetune", "baseline", "evaluate")
    runs = [job.wildcards.run for job in workflow.dag.needrun_jobs() if job.rule.name in stages]
    if runs and subprocess.run([sys.executable, "-m", "cgpt", "check"], input="\n".join(runs), text=True).returncode:
        sys.exit(1)


def show_progress():
    """One line for the whole workflow, until `end_progress`; the jobs' own are in their logs, or shown with `-p`."""
    settings, jobs_of_all = workflow.output_settings, workflow.dag.needrun_jobs()
    keys = [(job.rule.name, job.wildcards.get("run")) for job in jobs_of_all]
    line = ProgressLine([PLANS.runs[key] for key in keys if key in PLANS.runs], workflow.resource_settings.cores)
    if not settings.quiet:
        line.start(hide_jobs=not (settings.verbose or settings.printshellcmds))
        PROGRESS.append(line)


def end_progress(log=None):
    for line in PROGRESS:
        line.end()


# A run's id is looked up by `known_run`: a pattern that names all of them is slow to compile, once for each output.
wildcard_constraints:
    run="[^/]+",
    experiment=any_of(EXPERIMENTS),
