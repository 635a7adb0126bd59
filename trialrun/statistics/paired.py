"""Two variants compared seed by seed.

A seed gives every variant the same data, split, initial random numbers and batch order. So the
difference of two variants under one seed is free of the luck that both share, and a paired test
finds differences that two separate means hide (Bouthillier et al., MLSys 2021).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.statistics.intervals import mean_interval
from trialrun.statistics.spread import Floats, groups_of_equal_count

# Up to 24 seeds all 2^24 signs are counted exactly, in half a millisecond. With more seeds some of
# the signs are drawn, and with more than a thousand the sum is taken as normally distributed.
_MAX_EXACT, _MAX_DRAWN = 24, 1000
_NUM_BATCHES, _DRAWS_PER_BATCH = 11, 909
_NUM_DRAWS = _NUM_BATCHES * _DRAWS_PER_BATCH


class Comparison(NamedTuple):
    """Values of one variant against those of another, over the seeds that both have.

    Attributes:
        n: Number of seeds that both have.
        difference: Mean of first minus second; NaN if there are no such seeds.
        low, high: The 95% interval of the difference; see `mean_interval`.
        p_value: The p-value of the sign-flip test; 1 if there are no such seeds.
        probability_first_higher: The share of these seeds in which the first value is higher;
            equal values count half. NaN if there are no such seeds.
    """

    n: int
    difference: float
    low: float
    high: float
    p_value: float
    probability_first_higher: float


def compare(first: npt.ArrayLike, second: npt.ArrayLike, rng: np.random.Generator) -> Comparison:
    """Two variants compared over the seeds that both have.

    Args:
        first, second: (seeds,), the same seeds in the same order; NaN where one has no value.
        rng: Used for the interval, and for the test if there are many seeds.
    """
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return Comparison(0, np.nan, -np.inf, np.inf, 1.0, np.nan)
    low, high = mean_interval(differences, rng)
    return Comparison(
        n=len(differences),
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        p_value=float(sign_flip_p_values(differences, rng)),
        probability_first_higher=float(np.mean((np.sign(differences) + 1) / 2)),
    )


def sign_flip_p_values(differences: npt.ArrayLike, rng: np.random.Generator) -> Floats:
    """How often a sum as far from zero would come about if each difference had a random sign.

    This is the two-sided permutation test of paired values: if neither variant is better, the
    difference of a seed is as likely to be `d` as `-d`. The p-value is the share of all 2^n choices
    of signs for which `|sum|` is at least as large as the observed one. It is exact up to 24 seeds.
    Up to 1,000 seeds 9,999 choices are drawn, and the p-value is `(1 + hits) / (1 + draws)`, which
    is never 0. For more seeds it is that of the normal distribution with the same variance, the sum
    of `d^2`.

    Args:
        differences: (..., seeds) first minus second; NaN where a seed has no pair.
        rng: Draws the signs for more than 24 seeds.

    Returns:
        (...,) between 0 and 1; 1 if there are no differences.

    References:
        Good, "Permutation, Parametric, and Bootstrap Tests of Hypotheses" (2005), section 3.2;
        Phipson and Smyth, "Permutation P-values Should Never Be Zero" (2010).
    """
    differences = np.asarray(differences, np.float64)
    p_values = np.ones(differences.shape[:-1])
    key = int(rng.integers(1 << 62))
    for indices, rows in groups_of_equal_count(differences):
        num_seeds = rows.shape[1]
        if num_seeds <= _MAX_EXACT:
            p_values.flat[indices] = [_exact(row) for row in rows]
        elif num_seeds <= _MAX_DRAWN:
            p_values.flat[indices] = _drawn(rows, np.random.default_rng([key, num_seeds]))
        else:
            p_values.flat[indices] = _normal(rows)
    return p_values


def _least_extreme(rows: Floats) -> Floats:
    """The |sum| of each row, less what rounding may have added: equal sums must count as equal."""
    slack = 1e-12 * np.abs(rows).sum(axis=-1)
    least: Floats = np.abs(rows.sum(axis=-1)) - slack
    return least


def _exact(differences: Floats) -> float:
    """The p-value over all signs; sums of one half of the seeds are looked up in the other's."""
    least = _least_extreme(differences)
    if not least > 0:
        return 1.0
    half = len(differences) // 2
    here, there = _signed_sums(differences[:half]), np.sort(_signed_sums(differences[half:]))
    above = len(there) - np.searchsorted(there, least - here, side="left")
    below = np.searchsorted(there, -least - here, side="right")
    return float((above.sum() + below.sum()) / 2 ** len(differences))


def _signed_sums(values: Floats) -> Floats:
    """The 2^n sums of the values with every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _drawn(rows: Floats, rng: np.random.Generator) -> Floats:
    """The p-values of rows (groups, n) over drawn signs."""
    hits, least = np.zeros(len(rows)), _least_extreme(rows)
    for _ in range(_NUM_BATCHES):
        signs = rng.choice((-1.0, 1.0), size=(rows.shape[1], _DRAWS_PER_BATCH))
        hits += [
            np.count_nonzero(np.abs(row @ signs) >= bound)
            for row, bound in zip(rows, least, strict=True)
        ]
    return (1 + hits) / (1 + _NUM_DRAWS)


def _normal(rows: Floats) -> Floats:
    """The p-values of rows (groups, n) in the limit of many seeds."""
    from scipy.special import ndtr

    deviation = np.sqrt(np.square(rows).sum(axis=-1))
    scaled = np.zeros(len(rows))
    np.divide(np.abs(rows.sum(axis=-1)), deviation, out=scaled, where=deviation > 0)
    p_values: Floats = 2 * ndtr(-scaled)
    return p_values


def holm(p_values: npt.ArrayLike) -> Floats:
    """P-values corrected for their number: at 5%, the chance of any false alarm at all is 5%.

    Args:
        p_values: (tests,).

    Returns:
        (tests,): the k-th smallest of m p-values is multiplied by `m - k + 1`; the results are at
        most 1 and keep the order of the p-values. As statsmodels's `multipletests`, which empties
        Python's garbage on each call: up to a second in a process of many objects.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979).
    """
    p_values = np.asarray(p_values, np.float64)
    order, corrected = np.argsort(p_values), np.empty_like(p_values)
    multiplied = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(multiplied))
    return corrected


def num_seeds_needed(num_tests: int, *, level: float = 0.05) -> int:
    """The least number of seeds with which the sign-flip test can find a difference at all.

    The smallest p-value of n seeds is `2 / 2^n`, and Holm multiplies it by the number of tests. So
    with fewer seeds no difference is found, however large it is.

    >>> num_seeds_needed(1), num_seeds_needed(999)
    (6, 16)
    """
    return int(np.ceil(1 + np.log2(max(1, num_tests) / level)))
