# The scaling laws of an experiment that asks for them with `fit:`.
rule fit:
    input:
        "results/{experiment}/runs.csv",
    output:
        json="results/{experiment}/fits.json",
        markdown="results/{experiment}/fits.md",
        png="results/{experiment}/figures/law.png",
        law=report(
            "results/{experiment}/figures/law.svg",
            caption="../report/law.rst",
            category="{experiment}",
            labels={"shows": "scaling laws"},
        ),
    log:
        "results/runs/logs/fit/{experiment}.log",
    benchmark:
        "results/runs/benchmarks/fit/{experiment}.tsv"
    params:
        fit=lambda wildcards: WORKFLOW.experiments[wildcards.experiment].fit,
        code=provenance.code_sha256("fit"),
    shell:
        "python -m cgpt fit {wildcards.experiment} 2>&1 >/dev/null | tee -i {log} >&2"
