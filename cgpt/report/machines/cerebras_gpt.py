"""A forecast of the training of the seven Cerebras-GPT on every profile, as a table."""

from pathlib import Path

from cgpt.cost.cerebras_gpt import COLUMNS, Row
from cgpt.cost.forecast import JOULES_PER_KWH, SECONDS_PER_DAY
from cgpt.files.csv_file import write_csv
from cgpt.files.whole import write_whole
from cgpt.report.machines.table import amount_cell
from cgpt.report.page import Cell, Page, markdown, table_of


def write(rows: list[Row], path: Path) -> None:
    """Write `path`.csv and `path`.md."""
    write_csv(path.with_name(path.name + ".csv"), COLUMNS, rows)
    write_whole(path.with_name(path.name + ".md"), markdown(as_page(rows)).encode())


def as_page(rows: list[Row]) -> Page:
    """The table for people; all of it is modeled, so that every time and energy carries a `~`."""
    header: list[str | Cell] = [
        "model", "hardware", Cell("batch", "sequences"), Cell("step time", "s"), "tokens per second",
        Cell("utilisation", "% of the dense peak"), Cell("energy per token", "J"), Cell("time to train", "days"),
        Cell("energy to train", "MWh"), "bound by", "in memory",
    ]  # fmt: skip
    facts = [
        ("~", "computed by a model of the hardware; nothing here was run or measured"),
        ("systems", "those of the paper; of a profile that is a cluster as many as divide the batch"),
        ("extrapolated", "no rate of that hardware is public for so many systems or a model so narrow or wide; and "
                         "the processor's, whose one rate was measured on far smaller models"),
        ("energy", "nameplate power of the systems, of a GPU without its host, times the time"),
        ("time to train", "with compilation, loading and one checkpoint; the 13B model is trained in two stretches, of "
                          "720 and 1080 sequences, and its rates are those of the second"),
        ("empty cell", "not known, or it does not fit"),
        ("source of batch sizes, steps and systems", "cerebras_gpt_runs.csv"),
    ]  # fmt: skip
    question = "What would the training of the seven Cerebras-GPT take on other machines?"
    table = table_of("Machines", header, map(_cells, rows), in_groups=True)
    return Page("Cerebras-GPT by forecast", question, facts, [table])


def _cells(row: Row) -> list[str | Cell]:
    notes = [f"{row['systems']} systems"] if row["systems"] > 1 else []
    notes += ["extrapolated"] if row["extrapolated"] else []
    return [
        Cell(row["model"], f"{row['tokens'] / 1e9:.3g} B tokens"), Cell(row["hardware"], ", ".join(notes)),
        f"{row['batch_size']:,}", amount_cell(row["step_s"]), amount_cell(row["tokens_per_s"]),
        amount_cell(row["utilisation"], 100), amount_cell(row["energy_j_per_token"]),
        amount_cell(row["seconds"], 1 / SECONDS_PER_DAY), amount_cell(row["energy_j"], 1 / JOULES_PER_KWH / 1000),
        (row["bound_by"] or "").replace("_", " "),
        {True: "yes", False: "no", None: ""}[row["in_memory"]],
    ]  # fmt: skip
