# Benchmarks: results/bench/<level>/table.md asks for all, results/bench/<level>/<name>.csv for one. The level is native,
# or an older one that all programs are held to. Each takes all of Snakemake's cores, to have the machine for itself.
BENCHMARKS = {
    "pretrain-2m": "compare.py pretrain --model bench-2m --batch-size 32",
    "pretrain-7m": "compare.py pretrain --model bench-7m --batch-size 8",
    "pretrain-34m": "compare.py pretrain --model bench-34m --batch-size 4",
    "evaluate-7m": "compare.py evaluate --model bench-7m",
    "generate-7m-1": "compare.py generate --model bench-7m --batch-size 1",
    "generate-7m-5": "compare.py generate --model bench-7m --batch-size 5",
    "generate-111m-1": "compare.py generate --model cerebras-gpt-111m --batch-size 1",
    "generate-111m-5": "compare.py generate --model cerebras-gpt-111m --batch-size 5",
    "tokenize": "compare.py tokenize",
    "startup": "startup.py --model bench-7m --batch-size 8",
    "scaling": "scaling.py",
}


rule bench:
    input:
        lambda wildcards: only_in_checkout(f"workflows/bench/{BENCHMARKS[wildcards.name].split()[0]}")(wildcards),
    output:
        "results/bench/{level}/{name}.csv",
    log:
        "results/bench/{level}/logs/{name}.log",
    wildcard_constraints:
        name="|".join(BENCHMARKS),
        level="native|x86-64-v[234]",
    threads: 1000  # Snakemake gives no more than it has
    params:
        command=lambda wildcards: BENCHMARKS[wildcards.name],
        code=code_sha256("bench.benchmarks"),
    shell:
        "CGPT_CPU={wildcards.level} python workflows/bench/{params.command} --threads {threads} --out {output} 2>&1"
        " | tee -i {log} >&2"


rule plot_scaling:
    input:
        csv="results/bench/{level}/scaling.csv",
        script=only_in_checkout("workflows/bench/plot_scaling.py"),
    output:
        multiext("results/bench/{level}/scaling", ".svg", ".png"),
    log:
        "results/bench/{level}/logs/plot_scaling.log",
    shell:
        "python {input.script} {input.csv} --out results/bench/{wildcards.level}/scaling 2>&1 | tee -i {log} >&2"


rule bench_table:
    input:
        comparisons=[
            f"results/bench/{{level}}/{name}.csv" for name, command in BENCHMARKS.items() if "compare" in command
        ],
        startup="results/bench/{level}/startup.csv",
        figure="results/bench/{level}/scaling.svg",
        script=only_in_checkout("workflows/bench/table.py"),
    output:
        multiext("results/bench/{level}/", "table.md", "table.csv"),
    log:
        "results/bench/{level}/logs/table.log",
    shell:
        "python {input.script} {input.comparisons} --startup {input.startup} --out results/bench/{wildcards.level} 2>&1"
        " | tee -i {log} >&2"
