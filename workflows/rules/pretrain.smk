# A model trained on token shards. Its resume state, results/runs/state/, is no output: Snakemake deletes outputs before a retry.
rule pretrain:
    input:
        upstream("pretrain"),
    output:
        multiext(
            "results/runs/pretrain/{run}/",
            "run.json",
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "loss.csv",
        ),
    log:
        "results/runs/logs/pretrain/{run}.log",
    benchmark:
        "results/runs/benchmarks/pretrain/{run}.tsv"
    priority: shortest_first
    threads: threads("pretrain")
    resources:
        mem_mb=mem_mb("pretrain"),
        gpu=gpu("pretrain"),
        runtime=runtime("pretrain"),
    params:
        spec=spec("pretrain"),
        code=code("pretrain"),
    shell:
        "python -m cgpt pretrain {wildcards.run} --threads {threads} > {log} 2>&1"
