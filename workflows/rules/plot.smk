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
        answers=report(
            "results/{experiment}/figures/answers.svg",
            caption="../report/answers.rst",
            category="{experiment}",
            labels={"shows": "correct answers against loss"},
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
        spec=question_and_runs,
        code=code_sha256("report.figures.plot"),
    shell:
        "python -m cgpt plot {wildcards.experiment} 2>&1 | tee -i {log} >&2"


# The figure of what an experiment varies.
rule plot_vary:
    input:
        records,
    output:
        vary=report(
            "results/{experiment}/figures/vary.svg",
            caption="../report/vary.rst",
            category="{experiment}",
            labels={"shows": "loss and scores against what varies"},
        ),
        png="results/{experiment}/figures/vary.png",
    log:
        "results/runs/logs/plot_vary/{experiment}.log",
    benchmark:
        "results/runs/benchmarks/plot_vary/{experiment}.tsv"
    wildcard_constraints:
        experiment=any_of(WITH_VARY),
    params:
        spec=question_and_runs,
        code=code_sha256("report.vary_figure.plot_vary"),
    shell:
        "python -m cgpt plot-vary {wildcards.experiment} 2>&1 | tee -i {log} >&2"


# The figures of the machines of an experiment that has modeled ones.
rule plot_hardware:
    input:
        records,
        curves,
    output:
        time_to_loss=report(
            "results/{experiment}/figures/time_to_loss.svg",
            caption="../report/time_to_loss.rst",
            category="{experiment}",
            labels={"shows": "time and energy to reach a loss"},
        ),
        step_time=report(
            "results/{experiment}/figures/step_time.svg",
            caption="../report/step_time.rst",
            category="{experiment}",
            labels={"shows": "what a step is made of"},
        ),
        roofline=report(
            "results/{experiment}/figures/roofline.svg",
            caption="../report/roofline.rst",
            category="{experiment}",
            labels={"shows": "rooflines of the modeled machines"},
        ),
        png=expand("results/{{experiment}}/figures/{figure}.png", figure=HARDWARE_FIGURES),
    log:
        "results/runs/logs/plot_hardware/{experiment}.log",
    benchmark:
        "results/runs/benchmarks/plot_hardware/{experiment}.tsv"
    wildcard_constraints:
        experiment=any_of(WITH_MODELED),
    params:
        spec=question_and_runs,
        code=code_sha256("report.machines.figures.plot_hardware"),
    shell:
        "python -m cgpt plot-hardware {wildcards.experiment} 2>&1 | tee -i {log} >&2"
