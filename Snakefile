# Connects the runs of every experiment; each rule calls `python -m cgpt <stage> <run id>`, a line that a person can paste.
from snakemake.utils import min_version

min_version("9.0")


# The environment is the one that Snakemake runs in (`make setup`); this base image is used on request only, with --sdm.
container: "docker://python:3.11"


report: "workflows/report/workflow.rst"


include: "workflows/rules/common.smk"


onstart:
    begin()
    check_tasks()
    show_progress()


onsuccess:
    end_progress()


onerror:
    end_progress()


rule quickstart:
    default_target: True
    input:
        default_files,


include: "workflows/rules/fetch.smk"
include: "workflows/rules/tokenize.smk"
include: "workflows/rules/pretrain.smk"
include: "workflows/rules/finetune.smk"
include: "workflows/rules/meter.smk"
include: "workflows/rules/baseline.smk"
include: "workflows/rules/evaluate.smk"
include: "workflows/rules/tabulate.smk"
include: "workflows/rules/plot.smk"
include: "workflows/rules/forecast.smk"
include: "workflows/rules/bench.smk"
include: "workflows/rules/fit.smk"
include: "workflows/rules/coordinate_check.smk"
