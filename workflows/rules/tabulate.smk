# The tables of an experiment, whose figures come with them.
rule tabulate:
    input:
        records,
        of_experiment(rule_values.figure_files),
    output:
        scores="results/{experiment}/scores.csv",
        runs="results/{experiment}/runs.csv",
        hardware="results/{experiment}/hardware.csv",
        markdown="results/{experiment}/table.md",
        html=report(
            "results/{experiment}/table.html",
            caption="../report/table.rst",
            category="{experiment}",
            labels={"shows": "table"},
        ),
    log:
        "results/runs/logs/tabulate/{experiment}.log",
    benchmark:
        "results/runs/benchmarks/tabulate/{experiment}.tsv"
    params:
        spec=question_and_runs,
        code=code_sha256("report.tables.tabulate"),
    shell:
        "python -m cgpt tabulate {wildcards.experiment} 2>&1 | tee -i {log} >&2"
