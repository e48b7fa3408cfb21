"""Loss against parameters and tokens: L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, approach 3).

Fitted as Besiroglu et al. 2024 (arXiv 2404.10102) found that it must be: the sum, not the mean, of Huber losses of
log residuals, from a grid of starts, to the end by L-BFGS. Inside, N and D stand relative to their geometric means,
which decorrelates A from alpha and B from beta. Starts and bootstrap draws, of which there are thousands, go side by
side through reweighted least squares, which minimises the same objective.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from cgpt.scaling.statistics import interval

HUBER_DELTA = 1e-3
N_REFINED = 50  # starts of the grid that are followed up
REFINING_STEPS, DRAW_STEPS = 40, 150  # of reweighted least squares
LEAST_SPREAD = 0.1  # sd of log tokens around their power of N; below it N and D cannot be told apart
LEAST_VALUES = 3  # different N, and D: two say nothing of the bend that tells A / N^alpha from E
LEAST_EXPONENT = 0.01  # over a hundredfold of N or D such a term falls by 5 %
CONSTANTS = ("a", "b", "e", "alpha", "beta")


@dataclass(frozen=True)
class ParametricLaw:
    """The five constants; loss in the unit that it was fitted in, N parameters, D tokens, C = 6 N D."""

    a: float
    b: float
    e: float
    alpha: float
    beta: float

    def loss_at(self, n_parameters: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """L(N, D)."""
        return self.e + self.a / n_parameters**self.alpha + self.b / tokens**self.beta

    @property
    def n_exponent(self) -> float:
        """a of N* ~ C^a."""
        return self.beta / (self.alpha + self.beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """N* and D* of a budget C = 6 N D: N* = G (C/6)^(beta/(alpha+beta)), D* = (C/6) / N* (Hoffmann, eq. 4)."""
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        n_parameters = g * (flops / 6) ** self.n_exponent
        return n_parameters, flops / 6 / n_parameters

    def tokens_at(self, loss: float, n_parameters: float) -> float:
        """D that takes N parameters to the loss; infinite where no number of tokens does."""
        left = loss - self.e - self.a / n_parameters**self.alpha
        return float((self.b / left) ** (1 / self.beta)) if left > 0 else float("inf")


def can_tell_apart(n_parameters: np.ndarray, tokens: np.ndarray) -> bool:
    """Whether tokens vary enough beside what N alone tells of them for A / N^alpha and B / D^beta to be two terms.

    Both (n,). On any curve D ~ N^p, not only at one ratio, B / D^beta is a power of N like the other term.
    """
    x, y = (np.log(values) - np.log(values).mean() for values in (n_parameters, tokens))
    slope = x @ y / (x @ x) if x @ x else 0.0
    return float(np.std(y - slope * x)) >= LEAST_SPREAD


def fit(n_parameters: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> ParametricLaw:
    """L-BFGS from the best of the most promising starts of Hoffmann's grid; all arrays (n,)."""
    problem = _Problem(n_parameters, tokens, loss)
    grid, every = _starts(problem), np.ones((1, len(loss)))
    first = np.argsort(problem.objective(grid, every)[0])[:N_REFINED]
    ends = problem.reweighted(grid[first], np.repeat(every, N_REFINED, axis=0), REFINING_STEPS)
    best = ends[np.argmin(problem.objective(ends, every)[0])]

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        value, residual, slopes = problem.objective(p[None], every)
        return float(value[0]), np.clip(residual[0], -1, 1) @ slopes[0] / HUBER_DELTA

    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 1e-14, "gtol": 1e-7}
    return problem.law(minimize(objective, best, jac=True, method="L-BFGS-B", options=options).x)


def fit_draws(n_parameters: np.ndarray, tokens: np.ndarray, loss: np.ndarray, weights: np.ndarray, start: ParametricLaw
              ) -> list[ParametricLaw]:  # fmt: skip
    """The law of each draw's `loss`, (n,) or (n_draws, n), and `weights` (n_draws, n), from the law `start` on."""
    problem = _Problem(n_parameters, tokens, loss)
    begin = np.repeat(problem.centred(start)[None], len(weights), axis=0)
    return [problem.law(p) for p in problem.reweighted(begin, weights, DRAW_STEPS)]


def flat(law: ParametricLaw, draws: Sequence[ParametricLaw]) -> str | None:
    """Which of the two terms may be none, as its exponent or an end of the exponent's interval is 0 or below, so that
    it cannot be told from E; or None."""
    for name, what, more in (("alpha", "model size", "sizes"), ("beta", "number of tokens", "lengths")):
        exponent, low = getattr(law, name), interval(np.array([getattr(draw, name) for draw in draws]))[0]
        if min(exponent, low) < LEAST_EXPONENT:
            return (f"the loss of these runs may not fall with the {what} ({name} {exponent:.2g}, from {low:.2g} on), "
                    f"so that its term cannot be told from E; train {more} farther apart")  # fmt: skip
    return None


class _Problem:
    """The data (n,) and the objective at points (m, 5): log A', log B', log E, alpha, beta, N and D centred."""

    def __init__(self, n_parameters: np.ndarray, tokens: np.ndarray, loss: np.ndarray):
        self.centre_n, self.centre_d = np.mean(np.log(n_parameters)), np.mean(np.log(tokens))
        self.x, self.y = np.log(n_parameters) - self.centre_n, np.log(tokens) - self.centre_d
        self.log_loss = np.log(loss)

    def objective(self, p: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sum of Huber losses over delta^2 (m,), so that it is of order one a run; log residuals over delta (m, n);
        slopes of the log of the predicted loss (m, n, 5). Losses (m, n) are each of its own point."""
        log_a, log_b, log_e, alpha, beta = (p[:, [i]] for i in range(5))
        terms = np.stack(np.broadcast_arrays(log_a - alpha * self.x, log_b - beta * self.y, log_e), axis=-1)
        top = terms.max(axis=-1, keepdims=True)
        parts = np.exp(terms - top)
        total = parts.sum(axis=-1, keepdims=True)
        residual = ((top + np.log(total))[..., 0] - self.log_loss) / HUBER_DELTA
        parts /= total
        slopes = np.concatenate([parts, -parts[..., :1] * self.x[:, None], -parts[..., 1:2] * self.y[:, None]], axis=-1)
        size = np.abs(residual)
        huber = np.where(size <= 1, 0.5 * residual**2, size - 0.5)
        return (weights * huber).sum(axis=-1), residual, slopes

    def reweighted(self, p: np.ndarray, weights: np.ndarray, n_steps: int) -> np.ndarray:
        """Points (m, 5) after that many damped Gauss-Newton steps, each run weighed by Huber's slope over residual."""
        p, damping = p.copy(), np.full(len(p), 1e-3)
        value, residual, slopes = self.objective(p, weights)
        for _ in range(n_steps):
            weighed = slopes * (weights / np.maximum(1, np.abs(residual)))[..., None]
            curvature = weighed.transpose(0, 2, 1) @ slopes
            downhill = weighed.transpose(0, 2, 1) @ residual[..., None]
            diagonal = np.einsum("mii->mi", curvature)
            curvature += np.eye(5) * (damping[:, None] * diagonal + 1e-12)[:, None, :]
            tried = p - HUBER_DELTA * np.linalg.solve(curvature, downhill)[..., 0]
            new_value, new_residual, new_slopes = self.objective(tried, weights)
            better = new_value < value
            damping = np.clip(np.where(better, damping / 3, damping * 5), 1e-9, 1e6)
            p[better], value[better] = tried[better], new_value[better]
            residual[better], slopes[better] = new_residual[better], new_slopes[better]
        return p

    def law(self, p: np.ndarray) -> ParametricLaw:
        with np.errstate(over="ignore"):  # of a draw whose term is none, and its exponent anything
            a, b = np.exp(p[0] + p[3] * self.centre_n), np.exp(p[1] + p[4] * self.centre_d)
        return ParametricLaw(float(a), float(b), float(np.exp(p[2])), float(p[3]), float(p[4]))

    def centred(self, law: ParametricLaw) -> np.ndarray:
        a, b = np.log(law.a) - law.alpha * self.centre_n, np.log(law.b) - law.beta * self.centre_d
        return np.array([a, b, np.log(law.e), law.alpha, law.beta])


def _starts(problem: _Problem) -> np.ndarray:
    """Hoffmann's grid: log A, log B 0..25 by 5, log E -1..1 by 0.5, alpha, beta 0..2 by 0.5; centred, (4500, 5)."""
    scales, exponents = np.arange(0, 26, 5.0), np.arange(0, 2.1, 0.5)
    axes = np.meshgrid(scales, scales, np.arange(-1, 1.1, 0.5), exponents, exponents, indexing="ij")
    grid = np.stack([axis.ravel() for axis in axes], axis=-1)
    grid[:, 0] -= grid[:, 3] * problem.centre_n
    grid[:, 1] -= grid[:, 4] * problem.centre_d
    return grid
