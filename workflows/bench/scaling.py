"""Speed of our own pretraining over threads, model sizes and sequence lengths, with as many tokens in every step."""

import argparse
from pathlib import Path

from columns import SCALING
from sides import Elsewhere, made_by, ours, run_alone

from cgpt.files.csv_file import write_csv
from cgpt.host import granted_cores

TOKENS_PER_STEP = 2048
SEQ_LEN = 256
MODELS = ("gpt-2m", "gpt-3m", "bench-7m", "gpt-10m", "bench-34m")
SEQ_LENS, SEQ_LEN_MODEL = (128, 256, 512, 1024), "bench-7m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--threads", type=int, default=granted_cores(), help="the largest number")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS, help="rows of workflows/models.yaml")
    parser.add_argument("--seq-lens", nargs="+", type=int, default=SEQ_LENS)
    arguments = parser.parse_args()
    points = [(model, SEQ_LEN, threads) for model in arguments.models for threads in thread_counts(arguments.threads)]
    points += [(SEQ_LEN_MODEL, length, arguments.threads) for length in arguments.seq_lens if length != SEQ_LEN]
    rows = []
    for model, seq_len, threads in points:
        elsewhere, batch_size = Elsewhere(), TOKENS_PER_STEP // seq_len
        sizes = ("--seq-len", seq_len, "--batch-size", batch_size, "--threads", threads, "--steps", arguments.steps)
        record = run_alone(ours("pretrain", "--model", model, *sizes))
        known = {"busy_elsewhere_share": elsewhere.share(), **made_by()}
        rows.append({key: record[key] for key in SCALING if key not in known} | known)
    write_csv(arguments.out, SCALING, rows)


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... and the largest."""
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


if __name__ == "__main__":
    main()
