# What the training of the seven Cerebras-GPT would take on every hardware profile, by the cost model alone.
rule forecast_family:
    input:
        "results/reference/cerebras_gpt_runs.csv",
        "workflows/models.yaml",
        sorted(str(path) for path in Path("hardware_profiles").iterdir()),
    output:
        multiext("results/devices/cerebras-gpt", ".md", ".csv"),
    log:
        "results/runs/logs/forecast_family.log",
    params:
        code=code_sha256("report.machines.cerebras_gpt"),
    shell:
        "python -m cgpt forecast-family 2>&1 | tee -i {log} >&2"
