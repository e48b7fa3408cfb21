# What counting words reaches with the same labels.
rule baseline:
    input:
        upstream("baseline"),
    output:
        multiext("results/runs/baseline/{run}/", "scores.json", "samples.jsonl"),
    log:
        "results/runs/logs/baseline/{run}.log",
    benchmark:
        "results/runs/benchmarks/baseline/{run}.tsv"
    threads: 1
    params:
        spec=spec("baseline"),
        code=code_sha256("stages.baseline"),
    shell:
        "python -m cgpt baseline {wildcards.run} --threads {threads} > {log} 2>&1"
