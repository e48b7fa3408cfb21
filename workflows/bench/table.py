"""All comparisons in one CSV and one page: ours against each peer, then how fast programs start."""

import argparse
from pathlib import Path
from typing import Any

from columns import COMPARISON, STARTUP, read_rows
from sides import OUR_SIDES
from startup import EMPTY

from cgpt.files.csv_file import write_csv
from cgpt.files.whole import write_whole
from cgpt.report.page import Cell, Page, Table, markdown

Row = dict[str, Any]
QUESTION = "How fast are pretraining, evaluation, generation and tokenization, against what one would otherwise use?"
# Share of the machine's time from which on ratios are not believed: programs whose threads wait for each other suffer
# most. A virtual machine of a shared host loses a tenth and more at all times, to all programs alike.
MUCH_ELSEWHERE = 0.25
FACTS = [
    ("tokens/s", "median over rounds; in a round every program has one burst of steps, one after the other"),
    ("cgpt / side", "median (least to greatest) of the rounds' ratios; for cgpt itself, to the best peer of a round"),
    ("difference", "largest difference from cgpt in the first ten losses (nats), in any log-likelihood (nats), or in "
                   "any token; above 1e-3 nats, or one token, there would be no table"),
    ("int8", "cgpt int8 keeps weights in 8 bits and computes in float32, CTranslate2 int8 also rounds the inputs of "
             "products; they are compared with each other, and their tokens may be others"),
    ("first step", "from the start of the program to the end of its first step, imports and compiling included"),
    ("peak memory", "largest resident size of the program"),
    ("GEMM", "share of a step in matrix products, and the speed if a step were these alone"),
    ("shards", "share of a step that reading its batch takes"),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comparisons", nargs="+", type=Path, help="CSV files of compare.py")
    parser.add_argument("--startup", type=Path, required=True, help="the CSV of startup.py")
    parser.add_argument("--out", type=Path, required=True, help="a folder for table.csv and table.md")
    arguments = parser.parse_args()
    rows = [row for path in arguments.comparisons for row in read_rows(path, COMPARISON)]
    starts = read_rows(arguments.startup, STARTUP)
    page = Page("Benchmarks", QUESTION, facts(rows, starts), [comparison_table(rows), startup_table(starts)])
    write_csv(arguments.out / "table.csv", COMPARISON, rows)
    write_whole(arguments.out / "table.md", markdown(page).encode())


def facts(rows: list[Row], starts: list[Row]) -> list[tuple[str, str]]:
    """Where and with what it was measured, and what the columns mean."""
    every = rows + starts
    seen = [
        ("Machine", {f"{machine(row)}, {row['n_cores']} cores, {row['threads']:.0f} threads" for row in every}),
        ("Versions", {row["versions"] for row in every}),
        ("Commit", {row["commit"] or "not recorded" for row in every}),
        ("Date", {row["date"][:10] for row in every}),
    ]
    busy = max(row["busy_elsewhere_share"] or 0 for row in every)
    measured = [(word, "; ".join(sorted(texts))) for word, texts in seen]
    share = (f"at most {busy:.0%} of the machine's time went to other programs or guests; from {MUCH_ELSEWHERE:.0%} on "
             "no target counts as met")  # fmt: skip
    measured.append(("Busy elsewhere", share))
    return measured + FACTS


def machine(row: Row) -> str:
    """The processor, and the level that all programs are held to, if any."""
    return row["host_cpu"] if row["level"] == "native" else f"{row['host_cpu']} held to {row['level']}"


def comparison_table(rows: list[Row]) -> Table:
    """A row per side, those of a comparison together."""
    header = [Cell(text) for text in ("benchmark", "side", "tokens/s", "cgpt / side", "target", "difference")]
    header += [Cell("first step", "s"), Cell("peak memory", "MiB"), Cell("GEMM"), Cell("shards")]
    return Table("Speed", header, [_comparison_cells(row) for row in rows], in_groups=True)


def words(row: Row) -> str:
    """The benchmark, its model and batch."""
    batch = f"batch {row['batch_size']:.0f}" if row["batch_size"] and row["benchmark"] != "evaluate" else ""
    return " ".join(filter(None, (row["benchmark"], row["model"], batch)))


def _comparison_cells(row: Row) -> list[Cell]:
    mine = row["side"] in OUR_SIDES
    limit = f"{row['sgemm_tokens_per_s']:,.0f} tokens/s" if row["sgemm_tokens_per_s"] else ""
    return [
        Cell(words(row)),
        Cell(row["side"]),
        Cell(f"{row['tokens_per_s']:,.0f}"),
        Cell(f"{row['ratio']:.2f}", f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}"),
        Cell(f"{row['target']:g}", _met(row, row["ratio"] >= row["target"])) if mine else Cell(""),
        Cell("" if row["difference"] is None else f"{row['difference']:.1g}"),
        Cell(f"{row['first_step_s']:.1f}" if row["benchmark"] == "pretrain" else ""),
        Cell(f"{row['peak_memory_bytes'] / 2**20:,.0f}"),
        Cell(_percent(row["gemm_share"]), limit),
        Cell(_percent(row["shard_read_share"])),
    ]


def startup_table(rows: list[Row]) -> Table:
    """Seconds to the first finished optimizer step: a row per side and number of layers."""
    body = []
    for side, n_layer in dict.fromkeys((row["side"], row["n_layer"]) for row in rows):
        here = {row["caches"]: row for row in rows if (row["side"], row["n_layer"]) == (side, n_layer)}
        body.append([Cell(side), Cell(f"{n_layer:.0f}"), *map(_startup_cell, here.values())])
    header = [Cell("side"), Cell("layers"), *(Cell(f"{caches} caches", "s") for caches in (EMPTY, "warm"))]
    return Table(f"From the start to the first optimizer step, {rows[0]['model']}", header, body)


def _startup_cell(row: Row) -> Cell:
    seconds, target = row["first_step_s"], row["target_s"]
    if target is None:
        return Cell(f"{seconds:.1f}")
    return Cell(f"{seconds:.1f}", f"target {target:.1f}, {_met(row, seconds <= target)}")


def _met(row: Row, reached: bool) -> str:
    if (row["busy_elsewhere_share"] or 0) >= MUCH_ELSEWHERE:
        return "not known, machine busy"
    return "met" if reached else "not met"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2g} %"


if __name__ == "__main__":
    main()
