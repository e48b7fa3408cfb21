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
    wildcard_constraints:
        experiment=any_of(set(EXPERIMENTS) - set(WITH_HARDWARE_LAWS)),
    params:
        fit=of_experiment(lambda experiment, _: experiment.fit),
        code=code_sha256("commands.fit"),
    shell:
        "python -m cgpt fit {wildcards.experiment} 2>&1 >/dev/null | tee -i {log} >&2"


# The same where the laws of what training costs on each machine are asked for.
use rule fit as fit_hardware with:
    input:
        "results/{experiment}/runs.csv",
        "results/{experiment}/hardware.csv",
    output:
        json="results/{experiment}/fits.json",
        markdown="results/{experiment}/fits.md",
        png="results/{experiment}/figures/law.png",
        hardware_png="results/{experiment}/figures/hardware_law.png",
        law=report(
            "results/{experiment}/figures/law.svg",
            caption="../report/law.rst",
            category="{experiment}",
            labels={"shows": "scaling laws"},
        ),
        hardware_law=report(
            "results/{experiment}/figures/hardware_law.svg",
            caption="../report/hardware_law.rst",
            category="{experiment}",
            labels={"shows": "loss against seconds, joules and dollars"},
        ),
    wildcard_constraints:
        experiment=any_of(WITH_HARDWARE_LAWS),
    params:
        fit=of_experiment(lambda experiment, _: experiment.fit),
        rates=of_experiment(lambda experiment, _: rule_values.power_and_price(experiment, WORKFLOW.hardware)),
        code=code_sha256("commands.fit"),
