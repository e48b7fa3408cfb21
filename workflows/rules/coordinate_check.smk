# How activations of SP and muP models grow with width; trains small models of its own, no experiment's.
rule coordinate_check:
    output:
        multiext("results/coordinate_check/coordinate_check", ".csv", ".md", ".png"),
        figure=report(
            "results/coordinate_check/coordinate_check.svg",
            caption="../report/coordinate_check.rst",
            category="coordinate check",
            labels={"shows": "activations against width"},
        ),
    log:
        "results/runs/logs/coordinate_check.log",
    benchmark:
        "results/runs/benchmarks/coordinate_check.tsv"
    threads: 2
    params:
        code=code_sha256("report.laws.coordinate_check"),
    shell:
        "python -m cgpt coordinate-check --threads {threads} 2>&1 | tee -i {log} >&2"
