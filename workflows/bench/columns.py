"""The columns of the benchmarks' CSV files, and reading them strictly."""

import sys
from pathlib import Path
from typing import Any

from cgpt.files.csv_file import read_numbers

PROVENANCE = ("host_cpu", "level", "n_cores", "versions", "code_sha256", "commit", "date")
# Of one program: seconds from its start to the end of its first step, what that step took longer than the median, ...
MEASURED = ("first_step_s", "compile_s", "cpu_step_s", "peak_memory_bytes", "gemm_share", "sgemm_tokens_per_s",
            "shard_read_share")  # fmt: skip
COMPARISON = (
    "benchmark", "model", "n_parameters", "vocab_size", "seq_len", "batch_size", "hardware", "threads", "side",
    "tokens_per_s", "ratio", "ratio_min", "ratio_max", "target", "difference", *MEASURED, "rounds",
    "busy_elsewhere_share", *PROVENANCE,
)  # fmt: skip
STARTUP = ("model", "n_layer", "batch_size", "threads", "side", "caches", "first_step_s", "repeats", "target_s",
           "busy_elsewhere_share", *PROVENANCE)  # fmt: skip
SCALING = ("model", "n_parameters", "seq_len", "batch_size", "threads", "tokens_per_s", "flops_per_token",
           "peak_memory_bytes", "busy_elsewhere_share", *PROVENANCE)  # fmt: skip
TEXTS = ("benchmark", "model", "hardware", "side", "caches", *PROVENANCE)


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a CSV that has exactly these columns; numbers as floats, an empty cell as None."""
    try:
        return read_numbers(path, columns, TEXTS)
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}; delete the file and measure again")
