"""Do the runs follow the law? The F test for lack of fit, of the law's misses against the differences between seeds."""

from __future__ import annotations

import numpy as np
from scipy.stats import f


def lack_of_fit(values: np.ndarray, fitted: np.ndarray, cells: np.ndarray, n_free: int) -> dict[str, float] | None:
    """F of `values` (n,) against a fit of `n_free` constants, and the chance of one as large were the law true.

    `cells` (n,) numbers the settings; runs of one differ in nothing but their seed. None where no setting has several
    seeds or the constants use up all settings. Draper and Smith, Applied Regression Analysis, 3rd ed., section 2.1.
    """
    n_cells = len(set(cells.tolist()))
    pure_freedom, lack_freedom = len(values) - n_cells, n_cells - n_free
    if pure_freedom < 1 or lack_freedom < 1:
        return None
    means = np.bincount(cells, values)[cells] / np.bincount(cells)[cells]
    pure = float(np.sum((values - means) ** 2))
    lack = float(np.sum((values - fitted) ** 2)) - pure
    if pure == 0:
        return None
    ratio = (lack / lack_freedom) / (pure / pure_freedom)
    return {"f": ratio, "p": float(f.sf(ratio, lack_freedom, pure_freedom)),
            "lack_freedom": lack_freedom, "pure_freedom": pure_freedom}  # fmt: skip
