# The figures of an experiment, as SVG for the report and as PNG.
rule plot:
    input:
        records,
        curves,
    output:
        loss=report(
            "results/{experiment}/figures/loss.svg",
            caption="../report/loss.rst",
            category="{experiment}",
            labels={"shows": "loss while training"},
        ),
        scores=report(
            "results/{experiment}/figures/scores.svg",
            caption="../report/scores.rst",
            category="{experiment}",
            labels={"shows": "scores before and after fine-tuning"},
        ),
        compute=report(
            "results/{experiment}/figures/compute.svg",
            caption="../report/compute.rst",
            category="{experiment}",
            labels={"shows": "loss against compute"},
        ),
        png=expand("results/{{experiment}}/figures/{figure}.png", figure=FIGURES),
    log:
        "results/runs/logs/plot/{experiment}.log",
    benchmark:
        "results/runs/benchmarks/plot/{experiment}.tsv"
    params:
        spec=experiment_spec,
        code=provenance.code_sha256("plot"),
    shell:
        "python -m cgpt plot {wildcards.experiment} 2>&1 | tee -i {log} >&2"
