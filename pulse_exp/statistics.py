"""Intervals and paired tests over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 9999
CONFIDENCE = 0.95


def bootstrap_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of the mean of `values`, one value an image.

    Efron & Tibshirani 1993, section 13.3. With few images it is too narrow: on normal data it
    covered the mean in 86 % of trials at n = 5, 89 % at n = 10, 93 % at n = 30 (the BCa interval
    did no better). NaN at both ends where resampling says nothing: fewer than two values, or no
    two that differ.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2 or np.all(array == array[0]):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 1000):  # in parts: thousands of images stay within memory
        part = means[start : start + 1000]
        part[:] = array[rng.integers(len(array), size=(len(part), len(array)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def paired_p_value(values: ArrayLike, baseline: ArrayLike) -> float:
    """Two-sided Wilcoxon signed-rank test of pairs, one pair an image.

    1 where no pair differs; NaN where there is no pair. Pairs without a difference are dropped
    (Wilcoxon 1945). Exact for few pairs, by scipy's normal approximation for many.
    """
    from scipy.stats import wilcoxon

    differences = np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    if len(differences) == 0:
        return float("nan")
    differences = differences[differences != 0]
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for being several (Holm 1979), in the order given; NaN stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    order = [index for index in np.argsort(p, kind="stable") if not np.isnan(p[index])]
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, p[index] * (len(order) - rank)))
        adjusted[index] = running
    return adjusted
