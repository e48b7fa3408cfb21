# A tokenizer and the token shards of a corpus.
rule tokenize:
    input:
        upstream("tokenize"),
    output:
        multiext("results/runs/tokens/{run}/", "tokens.json", "tokenizer.json", "train.bin", "validation.bin"),
    log:
        "results/runs/logs/tokenize/{run}.log",
    benchmark:
        "results/runs/benchmarks/tokenize/{run}.tsv"
    threads: 8
    params:
        spec=spec("tokenize"),
        code=code_sha256("stages.tokenize"),
    shell:
        "python -m cgpt tokenize {wildcards.run} --threads {threads} > {log} 2>&1"
