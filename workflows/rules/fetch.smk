# A dataset: downloaded or copied and verified, or made.
rule fetch:
    input:
        of_dataset(rule_values.local_files),
    output:
        "results/runs/data/{run}/fetched.json",
    log:
        "results/runs/logs/fetch/{run}.log",
    benchmark:
        "results/runs/benchmarks/fetch/{run}.tsv"
    threads: 1
    params:
        spec=spec("fetch"),
        content=of_dataset(rule_values.local_content),
        code=code_sha256("stages.fetch"),
    shell:
        "python -m cgpt fetch {wildcards.run} --threads {threads} 2>&1 | tee -i {log} >&2"
