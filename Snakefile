# Connects the runs of every experiment; each rule calls `python -m cgpt <stage> <run id>`, a line that a person can paste.
from snakemake.utils import min_version

min_version("9.0")


report: "workflows/report/workflow.rst"


include: "workflows/rules/common.smk"


# What `onstart:`, `onsuccess:` and `onerror:` say, also where a study uses this file as a module: of a module Snakemake
# would leave them out.
workflow._onstart = begin
workflow._onsuccess = workflow._onerror = end_progress


rule experiments:
    default_target: True
    input:
        default_files,


include: "workflows/rules/fetch.smk"
include: "workflows/rules/import.smk"
include: "workflows/rules/tokenize.smk"
include: "workflows/rules/pretrain.smk"
include: "workflows/rules/finetune.smk"
include: "workflows/rules/meter.smk"
include: "workflows/rules/baseline.smk"
include: "workflows/rules/evaluate.smk"
include: "workflows/rules/tabulate.smk"
include: "workflows/rules/plot.smk"
include: "workflows/rules/continuations.smk"
include: "workflows/rules/forecast.smk"
include: "workflows/rules/bench.smk"
include: "workflows/rules/fit.smk"
include: "workflows/rules/coordinate_check.smk"
include: "workflows/rules/report.smk"
