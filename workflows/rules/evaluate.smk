# The scores of a model on a task: those that the process of its fine-tuning made with the same code, else its own.
rule evaluate:
    input:
        upstream("evaluate"),
    output:
        multiext("results/runs/evaluate/{run}/", "scores.json", "samples.jsonl"),
    log:
        "results/runs/logs/evaluate/{run}.log",
    benchmark:
        "results/runs/benchmarks/evaluate/{run}.tsv"
    threads: threads("evaluate")
    resources:
        mem_mb=mem_mb("evaluate"),
        gpu=gpu("evaluate"),
        runtime=runtime("evaluate"),
    params:
        spec=spec("evaluate"),
        code=code_sha256("stages.evaluate"),
    shell:
        "early=results/runs/early/{params.code}/{wildcards.run}; "
        "if [ -f $early/scores.json ]; "
        "then mv $early/* results/runs/evaluate/{wildcards.run}/ && rmdir $early && echo scored by its fine-tuning > {log}; "
        "else python -m cgpt evaluate {wildcards.run} --threads {threads} > {log} 2>&1; fi"
