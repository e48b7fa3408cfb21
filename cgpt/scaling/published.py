"""Published runs, from results/reference: the tables of Cerebras-GPT and the points of Chinchilla's figure 4."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.errors import UserError
from cgpt.files.csv_file import read_csv
from cgpt.recipe import flops
from cgpt.scaling.points import Points
from cgpt.spec import GPT2_VOCABULARY, Model

FAMILY = "published.csv"
CHINCHILLA = "chinchilla_points.csv"
SEQ_LEN = 2048
TOKENS_PER_BYTE = 0.29335  # of GPT-2's tokenizer on the Pile (Gao et al. 2020, table 1)
N_OUTLIERS = 5  # highest losses, which Besiroglu et al. leave out: their runs ended early
PAPER_LAW = (5.984e22, 0.0737, 0.5066)  # C0, alpha, E of equation 1 of Cerebras-GPT (arXiv 2304.03208)
COUNTS = ("n_layer", "d_model", "n_head", "d_ffn")
AMOUNTS = ("n_parameters", "tokens", "batch_tokens", "flops", "loss")
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Every row of published.csv or chinchilla_points.csv; raises UserError where the file cannot be read, or a number
    in it that a law needs is none."""
    try:
        rows = read_csv(path)
        for number, row in enumerate(rows, start=2):
            _check_numbers(row, number)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it comes with the project: restore it") from None
    return rows


def _check_numbers(row: Row, number: int) -> None:
    """Raises ValueError for a row that is not whole; of models that are not Cerebras-GPT's, cells may be empty."""
    needed = row.get("model", "Cerebras-GPT").startswith("Cerebras-GPT")
    for kinds, columns in ((int, COUNTS), (float, AMOUNTS), (float, ("value",))):
        for column in (column for column in columns if row.get(column) or (needed and column in row)):
            value = kinds(row[column])
            if not math.isfinite(value) or (value <= 0 and column != "value"):
                raise ValueError(f"row {number}: {column}: {value} is no amount")


def losses(rows: list[Row], prefix: str, variant: str) -> list[Row]:
    """The rows with the Pile's test loss of the models whose name starts with `prefix`, from small to large."""
    kept = [row for row in rows if row["task"] == "pile_test" and row["variant"] == variant
            and row["model"].startswith(prefix)]  # fmt: skip
    return sorted(kept, key=lambda row: float(row["flops"]))


def family_points(rows: list[Row], variant: str = "SP") -> Points:
    """Cerebras-GPT's own models; `reported` are the FLOPs that the paper prints, with two digits."""
    family = losses(rows, "Cerebras-GPT", variant)
    keys = ("n_layer", "d_model", "n_head", "d_ffn")
    sizes: list[dict[str, Any]] = [{key: int(row[key]) for key in keys} for row in family]
    shapes = [Model("", seq_len=SEQ_LEN, vocab_size=GPT2_VOCABULARY, **size) for size in sizes]
    tokens, loss = (np.array([float(row[key]) for row in family]) for key in ("tokens", "value"))
    by_convention = {name: tokens * [flops.flops_per_token(model, name) for model in shapes]
                     for name in flops.CONVENTIONS}  # fmt: skip
    return Points(
        models=tuple(row["model"] for row in family),
        setting_of=np.arange(len(family)),
        n_parameters=np.array([float(flops.n_parameters(model)) for model in shapes]),
        n_parameters_non_embedding=np.array([float(flops.n_parameters_non_embedding(model)) for model in shapes]),
        tokens=tokens,
        flops={"reported": np.array([float(row["flops"]) for row in family]), **by_convention},
        loss=loss,
        bits_per_byte=loss * TOKENS_PER_BYTE / math.log(2),
        vocab_size=GPT2_VOCABULARY,
        seq_len=SEQ_LEN,
    )


def chinchilla_points(rows: list[Row]) -> Points:
    """The points without the outliers; tokens are C / 6 N, as Besiroglu et al. take them."""
    kept = sorted(rows, key=lambda row: float(row["loss"]))[:-N_OUTLIERS]
    n, compute, loss = (np.array([float(row[key]) for row in kept]) for key in ("n_parameters", "flops", "loss"))
    return Points(
        models=("Chinchilla",) * len(kept), setting_of=np.arange(len(kept)), n_parameters=n,
        n_parameters_non_embedding=None, tokens=compute / 6 / n, flops={"6nd": compute}, loss=loss, bits_per_byte=None,
    )  # fmt: skip


def batch_tokens_law(rows: list[Row]) -> tuple[float, float]:
    """Factor and exponent of batch = factor * tokens^exponent, in tokens, through the paper's seven choices."""
    family = losses(rows, "Cerebras-GPT", "SP")
    tokens, batch = (np.log([float(row[key]) for row in family]) for key in ("tokens", "batch_tokens"))
    exponent, level = np.polyfit(tokens, batch, 1)
    return float(np.exp(level)), float(exponent)


def accuracies(rows: list[Row], task: str, prefix: str, variants: tuple[str, ...]
               ) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:  # fmt: skip
    """Models, their Pile losses (n,) and their zero-shot accuracies (n,) on a task, where both are published."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        wanted = row["model"].startswith(prefix) and row["variant"] in variants
        if wanted and (row["task"] == "pile_test" or (row["task"] == task and int(row["n_shot"]) == 0)):
            values.setdefault((row["model"], row["variant"]), {})[row["task"]] = float(row["value"])
    whole = {model: of for model, of in values.items() if {"pile_test", task} <= of.keys()}
    names = tuple(", ".join(filter(None, model)) for model in whole)
    return names, *(np.array([of[key] for of in whole.values()]) for key in ("pile_test", task))  # type: ignore[return-value]
