# What a pretrained model would take on a modeled machine.
rule meter:
    input:
        upstream("meter"),
    output:
        multiext("results/runs/meter/{run}/", "run.json", "kernels.csv"),
    log:
        "results/runs/logs/meter/{run}.log",
    benchmark:
        "results/runs/benchmarks/meter/{run}.tsv"
    threads: 1
    params:
        spec=spec("meter"),
        code=code_sha256("stages.meter"),
    shell:
        "python -m cgpt meter {wildcards.run} --threads {threads} > {log} 2>&1"
