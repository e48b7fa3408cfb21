# The scores of a model on a task.
rule evaluate:
    input:
        upstream("evaluate"),
    output:
        multiext("results/runs/evaluate/{run}/", "scores.json", "samples.jsonl"),
    log:
        "results/runs/logs/evaluate/{run}.log",
    benchmark:
        "results/runs/benchmarks/evaluate/{run}.tsv"
    wildcard_constraints:
        run=ids("evaluate"),
    threads: threads("evaluate")
    resources:
        mem_mb=mem_mb("evaluate"),
        gpu=gpu("evaluate"),
        runtime=runtime("evaluate"),
    params:
        spec=spec("evaluate"),
        code=code_sha256("stages.evaluate"),
    shell:
        "python -m cgpt evaluate {wildcards.run} --threads {threads} > {log} 2>&1"
