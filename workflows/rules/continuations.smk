# What the first pretrained model of each row writes after three beginnings of documents.
rule continuations:
    input:
        of_plan(rule_values.first_trained_files),
    output:
        "results/{experiment}/continuations.json",
    log:
        "results/runs/logs/continuations/{experiment}.log",
    benchmark:
        "results/runs/benchmarks/continuations/{experiment}.tsv"
    threads: of_plan(lambda plan: min(map(rule_values.threads, plan.first_trained()), default=1))
    resources:
        mem_mb=of_plan(lambda plan: max(map(rule_values.mem_mb, plan.first_trained()), default=1000)),
    params:
        vary=of_experiment(lambda experiment, _: sorted(experiment.vary)),
        code=code_sha256("report.continuations.continuations"),
    shell:
        "python -m cgpt continuations {wildcards.experiment} 2>&1 | tee -i {log} >&2"
