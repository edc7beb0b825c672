"""Figures of paired rounds: medians, ratios, intervals. Pure.

Invariant: round i of one system is compared with round i of another alone: they ran one after the other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of paired ratios, and the 95 % interval of that median."""

    value: float
    low: float
    high: float


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """`ours` over `theirs`, round by round. ValueError where the rounds do not pair or a divisor is 0."""
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds against {len(theirs)}: they do not pair")
    if min(theirs) <= 0:
        raise ValueError("a round of the other system measured nothing")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = bootstrap_median(ratios)
    return Ratio(median(ratios), low, high)


def bootstrap_median(values: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile interval of the median. The same values give the same interval."""
    if not values:
        raise ValueError("no values")
    rng = random.Random(20221)
    medians = sorted(median(rng.choices(values, k=len(values))) for _ in range(resamples))
    return medians[int(0.025 * (resamples - 1))], medians[int(0.975 * (resamples - 1))]
