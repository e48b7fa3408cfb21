"""Accuracy on a task from the loss: the second of the two steps compute -> loss -> accuracy.

A sigmoid with free ends, as in Bhagia et al. 2024 (arXiv 2412.04403): the lower end is not chance, because the most
likely text among the choices is the wrong one more often than not where a model knows nothing (arc_challenge: 0.17).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

TASKS = ("hellaswag", "piqa", "winogrande", "lambada_openai", "arc_easy", "arc_challenge", "openbookqa", "average7")


@dataclass(frozen=True)
class Sigmoid:
    """accuracy = low + (high - low) / (1 + exp(slope * (loss - middle)))."""

    low: float
    high: float
    slope: float
    middle: float

    def accuracy_at(self, loss: np.ndarray | float) -> np.ndarray:
        """Accuracy of each loss, in nats per token."""
        return self.low + (self.high - self.low) / (1 + np.exp(self.slope * (np.asarray(loss) - self.middle)))


def fit(loss: np.ndarray, accuracy: np.ndarray) -> Sigmoid:
    """Least squares of the accuracy; both (n,), n of 5 or more."""
    start = (max(0.01, accuracy.min() - 0.01), min(0.99, accuracy.max() + 0.2), 3.0, float(np.median(loss)))

    def residuals(p: np.ndarray) -> np.ndarray:
        return Sigmoid(*p).accuracy_at(loss) - accuracy

    bounds = ([0, accuracy.max() - 0.05, 0.1, 0], [accuracy.min() + 0.05, 1, 30, 5])
    return Sigmoid(*map(float, least_squares(residuals, start, bounds=bounds).x))


def leave_one_out_errors(loss: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Predicted minus observed accuracy of each model, by the sigmoid of all others, (n,)."""
    others = [np.arange(len(loss)) != left_out for left_out in range(len(loss))]
    predicted = [fit(loss[kept], accuracy[kept]).accuracy_at(loss[~kept])[0] for kept in others]
    return np.array(predicted) - accuracy
