# A published checkpoint: fetched, verified and converted once, for every experiment that names it.
rule import:
    output:
        multiext("results/runs/import/{run}/", "run.json", "model.safetensors", "config.json", "tokenizer.json"),
    log:
        "results/runs/logs/import/{run}.log",
    benchmark:
        "results/runs/benchmarks/import/{run}.tsv"
    threads: 1
    resources:
        mem_mb=mem_mb("import"),
    params:
        spec=spec("import"),
        code=code_sha256("stages.import_checkpoint"),
    shell:
        "python -m cgpt import {wildcards.run} --threads {threads} 2>&1 | tee -i {log} >&2"
