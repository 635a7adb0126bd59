"""The test of a race: which variants are worse than the one that leads, from very few seeds."""

import numpy as np
import numpy.typing as npt

from trialrun.statistics.best import fit_prior, one_sided_p_values, squeeze, variances_of_pairs
from trialrun.statistics.spread import Floats, describe

# With fewer, too little is known of what the variances have in common.
_FEWEST_VARIANTS, _FEWEST_SEEDS = 8, 3
_MOST_DF = 1e6


def race_p_values(losses: npt.ArrayLike, leader: int) -> Floats:
    """One-sided p-values, small if a variant's mean is above the leader's.

    Differences from the leader are taken seed by seed and tested by the moderated t-test: from
    three seeds and eight variants on, each variance is drawn towards what is typical of a
    difference between two variants, and none counts as less than that. With fewer, it is Student's
    t. The p-values are not corrected for the number of variants.

    Args:
        losses: (variants, seeds); NaN where a seed has no value. Small is good.
        leader: Index of the variant with the smallest mean.

    Returns:
        (variants,); 1 for the leader and where less than two seeds are shared with it.

    References:
        Smyth (2004), see `statistics.best.moderated_variances`.
    """
    losses = np.asarray(losses, np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        spread = describe(losses - losses[leader])
    df = np.maximum(spread.n - 1.0, 1.0)
    variances = np.square(spread.sd)
    num_measured = np.count_nonzero(describe(losses).n > 1)
    if num_measured >= _FEWEST_VARIANTS and spread.n[leader] >= _FEWEST_SEEDS:
        prior = fit_prior(*variances_of_pairs(losses))
        variances = np.maximum(squeeze(variances, df, prior), prior.variance)
        df = df + min(prior.df, _MOST_DF)
    p_values = one_sided_p_values(spread.mean, variances, spread.n, df)
    p_values[leader] = 1.0
    return p_values
