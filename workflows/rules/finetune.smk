# A model trained on a task's training split.
rule finetune:
    input:
        upstream("finetune"),
    output:
        multiext(
            "results/runs/finetune/{run}/",
            "run.json",
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "loss.csv",
        ),
    log:
        "results/runs/logs/finetune/{run}.log",
    benchmark:
        "results/runs/benchmarks/finetune/{run}.tsv"
    threads: threads("finetune")
    resources:
        mem_mb=mem_mb("finetune"),
        gpu=gpu("finetune"),
        runtime=runtime("finetune"),
    params:
        spec=spec("finetune"),
        code=code("finetune"),
    shell:
        "python -m cgpt finetune {wildcards.run} --threads {threads} > {log} 2>&1"
