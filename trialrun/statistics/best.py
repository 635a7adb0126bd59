"""Which variants may be the best, when the one that leads was chosen by the same seeds.

The leader of many variants is partly a lucky one, so that a test against it, corrected only for
the number of tests, tells equal variants apart in every third run. Here a variant is called worse
at 5% only if none that is as good as the best is called so in 95 of 100 runs, whichever of them
leads: the variants that are left are a set that holds the best.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Counts, Floats, describe

LEVEL = 0.05
# Differences that float32 training makes of the same trial in another pack.
ROUNDING = 1e-6
# With fewer variants or seeds, what the variances have in common is not known well enough.
_FEWEST_VARIANTS, _FEWEST_SEEDS = 8, 5
# A prior that weighs no more than this is one of unequal variances: it lends no certainty.
_PRIOR_DISCOUNT = 10.0
_NUM_PARTNERS = 5
_WILD = 1000.0  # times the median variance, thirty times the deviation


class Prior(NamedTuple):
    """Of what size variances are, before any is measured.

    Attributes:
        df: As many degrees of freedom as it weighs; inf where all variances are the same.
        variance: The typical one.
    """

    df: float
    variance: float


class Worse(NamedTuple):
    """How sure it is that variants are worse than the leader, one entry per variant.

    Attributes:
        p_values: (variants,) the smallest level at which the variant leaves the set that holds the
            best; NaN of the leader and of variants without a value.
        num_pairs: (variants,) int64 seeds that the variant shares with the leader.
        pairing: (variants,) by how much pairing by seed divides the variance of the difference from
            the leader: as if there were as many times the seeds. NaN where it is not known.
        variances: (variants,) of the differences from the leader, 0 where they are rounding; NaN
            for less than two pairs.
    """

    p_values: Floats
    num_pairs: Counts
    pairing: Floats
    variances: Floats


def worse_than_leader(losses: npt.ArrayLike, leader: int) -> Worse:
    """How sure it is that each variant is worse than the leader in its mean over all seeds.

    Differences from the leader are taken seed by seed. Their one-sided p-values by Student's t are
    multiplied, from the smallest of V variants on, by `(V - k) * (V - 1)`, `k` = 0, 1, ...: the
    number of ordered pairs of a variant that is still in the set and another. The level so holds
    for every pair that chance may have put at the top, and the set holds the best, all of the best
    if there are several, in at least 95 of 100 runs (a subset selection in the sense of Gupta, with
    the step-down of Holm; Hsu's multiple comparisons with the best give the same statement).

    From 8 variants and 5 seeds on, variances are shared between variants (`moderated_variances`).
    Differences that are the same in all of n seeds have no variance; their p-value is that of the
    sign-flip test, `1 / 2^n`.

    Args:
        losses: (variants, seeds); NaN where a seed has no value. Small is good.
        leader: Index of the variant with the smallest mean; another one makes fewer claims.

    References:
        Gupta, "On Some Multiple Decision (Selection and Ranking) Rules" (Technometrics, 1965);
        Hsu, "Constrained Simultaneous Confidence Intervals for Multiple Comparisons with the Best"
        (Annals of Statistics, 1984); Holm (1979); Smyth (2004), see `moderated_variances`.
    """
    losses = np.asarray(losses, np.float64)
    with np.errstate(invalid="ignore"):  # of infinities
        differences = losses - losses[leader]
    spread = describe(differences)
    own = np.square(spread.sd)
    own[own <= np.square(ROUNDING * spread.mean)] = 0.0
    own[same_values(losses, leader)] = 0.0
    variances, df = own, np.maximum(spread.n - 1, 1).astype(np.float64)
    known = np.flatnonzero(~np.isnan(losses).all(axis=1))
    num_measured = np.count_nonzero(describe(losses).n > 1)
    if num_measured >= _FEWEST_VARIANTS and spread.n[leader] >= _FEWEST_SEEDS:
        variances, df = moderated_variances(losses, leader)
    p_values = np.full(len(losses), np.nan)
    p_values[known] = _one_sided(spread.mean, variances, spread.n, df)[known]
    p_values[same_values(losses, leader)] = 1.0
    p_values[leader] = np.nan
    return Worse(_step_down(p_values), spread.n, _pairing(losses, leader, own), own)


def _one_sided(mean: Floats, variances: Floats, n: Counts, df: Floats) -> Floats:
    """The p-values of mean differences that are above zero; 1 where nothing is known."""
    from scipy import stats

    p_values = np.ones(len(mean))
    known = (n > 1) & np.isfinite(mean) & np.isfinite(variances)
    constant = known & (variances <= np.square(ROUNDING * mean))
    p_values[constant] = np.where(mean[constant] > 0, 0.5 ** n[constant], 1.0)
    tested = known & ~constant
    t = mean[tested] / np.sqrt(variances[tested] / n[tested])
    p_values[tested] = stats.t.sf(t, df[tested])
    return p_values


def _step_down(p_values: Floats) -> Floats:
    """The smallest p-value times `(m + 1) * m`, the next times `m * m`, ... of m that are known."""
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]
    num_compared = len(order)
    factors = num_compared * (num_compared + 1 - np.arange(num_compared))
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def same_values(losses: Floats, of: int) -> npt.NDArray[np.bool_]:
    """Whether the other variants have the values of one, seed for seed, but for rounding.

    Args:
        losses: (variants, seeds); NaN where a seed has no value.
        of: Index of a variant.

    Returns:
        (variants,), false of the variant itself.
    """
    with np.errstate(invalid="ignore"):
        near = np.abs(losses - losses[of]) <= ROUNDING * np.abs(losses[of])
    near |= np.isnan(losses) & np.isnan(losses[of])
    same: npt.NDArray[np.bool_] = near.all(axis=1)
    same[of] = False
    return same


def _pairing(losses: Floats, leader: int, variances: Floats) -> Floats:
    """The variance of a difference of two separate means over that of the paired one."""
    shared = ~np.isnan(losses) & ~np.isnan(losses[leader])
    ours = describe(np.where(shared, losses[leader], np.nan)).sd
    theirs = describe(np.where(shared, losses, np.nan)).sd
    gain = np.full(len(losses), np.nan)
    np.divide(np.square(ours) + np.square(theirs), variances, out=gain, where=variances > 0)
    return gain


# Variances ---------------------------------------------------------------------------------------


def moderated_variances(losses: Floats, leader: int) -> tuple[Floats, Floats]:
    """The variances of the differences from the leader, shared between variants.

    Few seeds know a variance badly, but all variants together know what variances are like here.
    Each is drawn towards what is typical, and has the degrees of freedom of both (the moderated t).
    It is the larger of two: that of the differences themselves, and the sum of the variances of
    both variants around what a seed does to all. Of these none counts as less than the upper
    quartile of the better half: a leader is often one that was lucky not to show its bad seeds.
    What is typical is learned without variants that went wild.

    Args:
        losses: (variants, seeds); NaN where a seed has no value. Small is good.
        leader: Index of a variant.

    Returns:
        (variants,) variances, NaN for less than two pairs, and their degrees of freedom.

    References:
        Smyth, "Linear Models and Empirical Bayes Methods for Assessing Differential Expression in
        Microarray Experiments" (2004), sections 4 and 6.2; R's limma, `squeezeVar`.
    """
    with np.errstate(invalid="ignore"):
        spread = describe(losses - losses[leader])
    df = np.maximum(spread.n - 1.0, 1.0)
    around, around_df = _variances_around_seeds(losses)
    tame = _tame(around)
    pairs = fit_prior(*_variances_of_pairs(losses[tame]))
    of_pairs = squeeze(np.square(spread.sd), df, pairs)
    variants = fit_prior(around[tame], around_df[tame])
    single = squeeze(around, np.maximum(around_df, 1.0), variants)
    better = tame[np.argsort(describe(losses[tame]).mean)[: -(-len(tame) // 2)]]
    single = np.fmax(single, np.nanquantile(single[better], 0.75))
    shared_df = max(0.0, min(pairs.df, variants.df, 1e6) - _PRIOR_DISCOUNT)
    return np.maximum(of_pairs, single + single[leader]), df + shared_df


def _tame(variances: Floats) -> npt.NDArray[np.intp]:
    """Indices of the variants that do not scatter beyond all others, as diverging ones do."""
    typical = np.nanmedian(variances)
    return np.flatnonzero(variances <= _WILD * typical if typical > 0 else ~np.isnan(variances))


def _variances_of_pairs(losses: Floats) -> tuple[Floats, Floats]:
    """The variances of the differences of some pairs of variants, and their degrees of freedom."""
    order = np.random.default_rng(0).permutation(len(losses))
    mixed = losses[order]
    with np.errstate(invalid="ignore"):
        spreads = [
            describe(mixed - np.roll(mixed, shift, axis=0))
            for shift in range(1, min(_NUM_PARTNERS, len(losses) // 2) + 1)
        ]
    return (
        np.concatenate([np.square(of.sd) for of in spreads]),
        np.concatenate([of.n - 1.0 for of in spreads]),
    )


def _variances_around_seeds(losses: Floats) -> tuple[Floats, Floats]:
    """The variance of each variant without what a seed does to all, and degrees of freedom."""
    with np.errstate(invalid="ignore"):
        centered = losses - describe(losses).mean[:, np.newaxis]
        # The median: one variant that is wild must not make all of them wild.
        residuals = centered - describe(centered.T).median
        df = np.count_nonzero(~np.isnan(residuals), axis=1) - 1.0
        sums = np.nansum(np.square(residuals), axis=1)
    variances = np.full(len(losses), np.nan)
    np.divide(sums, df, out=variances, where=df > 0)
    return variances, df


def fit_prior(variances: Floats, df: Floats) -> Prior:
    """The scaled inverse chi-squared distribution that variances come from, by two moments.

    With `e = log(s^2) - digamma(df / 2) + log(df / 2)`, the mean of e and its variance beyond
    `trigamma(df / 2)` give `variance` and `df`. Variances of zero count as a little above it.

    Args:
        variances: (n,) measured; what is not finite or has no degrees of freedom is left out.
        df: (n,) their degrees of freedom.

    Returns:
        Of no weight where fewer than three are known or half of them are zero.

    References:
        Smyth (2004), section 6.2; R's limma, `fitFDist`.
    """
    from scipy.special import digamma, polygamma

    known = np.isfinite(variances) & (df > 0)
    variances, half = variances[known], df[known] / 2
    middle = float(np.median(variances)) if len(variances) else 0.0
    if len(variances) < 3 or not middle > 0:
        return Prior(0.0, middle)
    variances = np.maximum(variances, 1e-5 * middle)
    e = np.log(variances) - digamma(half) + np.log(half)
    beyond = float(e.var(ddof=1) - polygamma(1, half).mean())
    if beyond <= 0:
        return Prior(np.inf, float(variances.mean()))
    prior_half = trigamma_inverse(beyond)
    variance = np.exp(e.mean() + digamma(prior_half) - np.log(prior_half))
    return Prior(2 * prior_half, float(variance))


def squeeze(variances: Floats, df: Floats, prior: Prior) -> Floats:
    """Variances drawn towards a prior: `(d0 * s0^2 + d * s^2) / (d0 + d)`.

    Args:
        variances: (n,) measured.
        df: (n,) their degrees of freedom, more than 0.
        prior: Of `fit_prior`.

    References:
        Smyth (2004), equation 3; R's limma, `squeezeVar`.
    """
    if np.isinf(prior.df):
        return np.where(np.isnan(variances), np.nan, prior.variance)
    squeezed: Floats = (prior.df * prior.variance + df * variances) / (prior.df + df)
    return squeezed


def trigamma_inverse(value: float) -> float:
    """The x at which the trigamma function has a value above 0, by Newton's method on 1/trigamma.

    References:
        Smyth (2004), appendix.
    """
    from scipy.special import polygamma

    if value > 1e7:
        return float(1 / np.sqrt(value))
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / polygamma(2, x)
        x += step
        if -step / x < 1e-8:
            break
    return float(x)


def luck_of_the_first(num_equal: int) -> float:
    """How far the best of equal normal values lies from their mean, in standard deviations.

    References:
        Blom, "Statistical Estimates and Transformed Beta-Variables" (1958), for the approximation.
    """
    from scipy.special import ndtri

    return float(ndtri((num_equal - 0.375) / (num_equal + 0.25))) if num_equal > 1 else 0.0
