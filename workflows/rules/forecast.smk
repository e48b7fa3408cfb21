# What the training of the seven Cerebras-GPT would take on every hardware profile, by the cost model alone.
rule forecast_family:
    input:
        shipped_file("results/reference/cerebras_gpt_runs.csv"),
        rule_values.declaration_files("models", "hardware"),
    output:
        multiext("results/devices/cerebras-gpt", ".md", ".csv"),
    log:
        "results/runs/logs/forecast_family.log",
    params:
        code=code_sha256("report.machines.cerebras_gpt"),
    shell:
        "python -m cgpt forecast-family 2>&1 | tee -i {log} >&2"
