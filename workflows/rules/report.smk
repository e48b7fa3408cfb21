# The page that answers an experiment's question, of all that was made for it.
rule report:
    input:
        records,
        curves,
        samples,
        of_experiment(rule_values.table_files),
    output:
        "results/{experiment}/report.html",
    log:
        "results/runs/logs/report/{experiment}.log",
    benchmark:
        "results/runs/benchmarks/report/{experiment}.tsv"
    params:
        spec=question_and_runs,
        rates=of_experiment(lambda experiment, _: rule_values.power_and_price(experiment, WORKFLOW.hardware)),
        code=code_sha256("report.html.report"),
        page=rule_values.page_sha256(),
    shell:
        "python -m cgpt report {wildcards.experiment} 2>&1 >/dev/null | tee -i {log} >&2"
