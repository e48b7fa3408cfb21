"""Warnings of cells that a reader must not trust without looking, by rules that are stated under the table."""

from collections.abc import Sequence

from cgpt.formats import score
from cgpt.report.columns import Row
from cgpt.scaling.seeds import APART, TIMES_ERROR, TIMES_RANGE, apart

MARK = "†"
ONE_ANSWER_SHARE = 0.99
LEAST_DOCUMENTS = 10
MOST_SHOWN = 40  # first characters of an answer

ONE_ANSWER_RULE = (
    f"{MARK} one answer: the model gives the same answer to {100 * ONE_ANSWER_SHARE:.0f} % of the documents or more "
    f"(of {LEAST_DOCUMENTS} at least), so that the score is how often that answer is right."
)
_GAP = f"farther from the most of its setting than {TIMES_RANGE:g} times their range and than"
SCORE_RULE = (f"{MARK} seed apart: {_GAP} {100 * APART:.0f} % of the metric's range (without one: of the value) and "
              f"{TIMES_ERROR:g} standard errors of a difference; it is part of the mean.")  # fmt: skip
LOSS_RULE = f"{MARK} seed apart: {_GAP} {100 * APART:.0f} % of the loss; it is part of the mean."


def score_flags(seeds: Sequence[Row]) -> list[str]:
    """Warnings of one metric of one setting, a row per seed: one answer to all documents, a seed apart."""
    flags = []
    of_answers = seeds[0]["scale"].high is not None  # the others, such as perplexity, are of likelihoods
    alike = [row for row in seeds if of_answers and (row["commonest_answer_share"] or 0) >= ONE_ANSWER_SHARE
             and row["n_samples"] >= LEAST_DOCUMENTS]  # fmt: skip
    if alike:
        answers = [(row["commonest_answer"][:MOST_SHOWN], row["commonest_answer_share"]) for row in alike]
        shares = dict.fromkeys(f"'{answer}' to {100 * share:.3g} %" for answer, share in answers)
        flags.append(f"one answer{_of_seeds(alike, seeds)}: {', '.join(shares)} of the documents")
    errors = [row["stderr"] for row in seeds if row["stderr"] is not None]
    return flags + _apart(seeds, "value", seeds[0]["scale"].span, max(errors, default=None))


def loss_flags(runs: Sequence[Row]) -> list[str]:
    """Warnings of the validation loss of one setting, a row per seed."""
    known = [row for row in runs if row["validation_loss"] is not None]
    unknown = [row for row in runs if row["validation_loss"] is None]
    flags = [f"no validation loss{_of_seeds(unknown, runs)}"] if unknown else []
    return flags + _apart(known, "validation_loss", None, None)


def notes(flags: Sequence[tuple[str, str]], rules: Sequence[str]) -> list[str]:
    """Sentences under a table: its flags, given as (cell, flag) pairs, like ones together, and their rules."""
    cells: dict[str, list[str]] = {}
    for cell, flag in flags:
        cells.setdefault(flag, []).append(cell)
    sentences = [f"{MARK} {'; '.join(dict.fromkeys(of_flag))}: {flag}." for flag, of_flag in cells.items()]
    return sentences + [rule for rule in rules if any(flag.startswith(rule[2:].partition(":")[0]) for flag in cells)]


def _apart(rows: Sequence[Row], key: str, span: float | None, stderr: float | None) -> list[str]:
    values = [row[key] for row in rows]
    strange = apart(values, span, stderr)
    if not strange:
        return []
    others = [value for n, value in enumerate(values) if n not in strange]
    text = score if len(set(map(score, values))) == len(set(values)) else "{:.3g}".format
    each = ", ".join(f"seed {rows[n]['seed']} at {text(values[n])}" for n in strange)
    rest = f", the others at {text(min(others))} to {text(max(others))}" if len(others) > 1 else ""
    return [f"seed apart: {each}{rest}"]


def _of_seeds(some: Sequence[Row], all_seeds: Sequence[Row]) -> str:
    if len(some) == len(all_seeds):
        return ""
    return f" of seed {', '.join(str(row['seed']) for row in some)}"
