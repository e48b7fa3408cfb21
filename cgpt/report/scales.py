"""The scale that a metric is on, so that 0.41 of 100 is never read as 41 %.

What lm-evaluation-harness aggregates with decides (lm_eval/api/metrics.py); a plain mean has the range of the metric
that is averaged. A metric of a task's own has a scale here only where its aggregation gives one.
"""

from dataclasses import dataclass

from cgpt.records import ANSWER_BITS


@dataclass(frozen=True)
class Scale:
    """The least and the greatest value that a metric can have; None: no bound, or none that is known. `unit` follows a
    value that could be taken for a share of one."""

    low: float | None = None
    high: float | None = None
    unit: str = ""

    @property
    def text(self) -> str:
        """`0 to 100`, `1 and more`; empty where nothing is known."""
        if self.low is None:
            return ""
        return f"{self.low:g}{self.unit} and more" if self.high is None else f"{self.low:g} to {self.high:g}"

    @property
    def span(self) -> float | None:
        """Greatest less least value."""
        return None if self.low is None or self.high is None else self.high - self.low


SHARE, FROM_ZERO, FROM_ONE, UNKNOWN = Scale(0, 1), Scale(0), Scale(1), Scale()
HUNDRED = Scale(0, 100, " of 100")
EDITS = Scale(0, None, " %")  # edits per 100 words of the reference, as many as there are
BY_AGGREGATION = {  # of lm-evaluation-harness; mean, nanmean and median are not here, as they leave the scale
    "bleu": HUNDRED, "chrf": HUNDRED, "chrf++": HUNDRED, "ter": EDITS, "f1": SHARE, "brier_score": Scale(0, 2),
    "matthews_corrcoef": Scale(-1, 1), "perplexity": FROM_ONE, "weighted_perplexity": FROM_ONE,
    "bits_per_byte": FROM_ZERO,
}  # fmt: skip
BY_METRIC = {
    "acc": SHARE, "acc_norm": SHARE, "acc_bytes": SHARE, "acc_mutual_info": SHARE, "acc_all": SHARE,
    "exact_match": SHARE, "likelihood": SHARE, "f1": SHARE, "mcc": Scale(-1, 1), "brier_score": Scale(0, 2),
    "bleu": HUNDRED, "chrf": HUNDRED, "chrf++": HUNDRED, "ter": EDITS, "perplexity": FROM_ONE,
    "word_perplexity": FROM_ONE, "byte_perplexity": FROM_ONE, "bits_per_byte": FROM_ZERO, ANSWER_BITS: FROM_ZERO,
}  # fmt: skip
LEAVING = ("mean", "nanmean", "median")


def scale_of(metric: str, aggregation: str | None = None) -> Scale:
    """The scale of a metric of lm-evaluation-harness, or of a task's own that it aggregates in this way."""
    if aggregation is None or aggregation in LEAVING:
        return BY_METRIC.get(metric, UNKNOWN)
    return BY_AGGREGATION.get(aggregation, UNKNOWN)
