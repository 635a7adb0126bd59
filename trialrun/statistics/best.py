"""Which variants may be the best, given that the leader was chosen by the same seeds.

The leader of many variants is partly just lucky. A test against it that corrects only for the
number of tests finds a difference between equal variants in every third run. Here variants are
called worse so that, in at least 95 of 100 runs, no variant that is as good as the best is called
worse, whichever variant leads. The variants that are left are a set that holds the best.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Counts, Floats, describe

LEVEL = 0.05
# Relative differences that float32 rounding makes between equal trials in different packs.
ROUNDING = 1e-6
# With fewer variants or seeds, too little is known of what the variances have in common.
_FEWEST_VARIANTS, _FEWEST_SEEDS = 8, 5
# Subtracted from the prior's degrees of freedom. A prior of less than that means that the variances
# are unequal, and must not add any certainty.
_PRIOR_DISCOUNT = 10.0
_NUM_PARTNERS = 5
_WILD = 1000.0  # times the median variance, which is thirty times the deviation


class Prior(NamedTuple):
    """The distribution of variances from which each one is taken to come.

    Attributes:
        df: Its weight in degrees of freedom; inf if all variances are the same.
        variance: The typical variance.
    """

    df: float
    variance: float


class Worse(NamedTuple):
    """How sure it is that variants are worse than the leader, one entry per variant.

    Attributes:
        p_values: (variants,) the smallest level at which the variant leaves the set that holds the
            best; NaN for the leader and for variants without a value.
        num_pairs: (variants,) int64 number of seeds that the variant shares with the leader.
        pairing: (variants,) the factor by which pairing by seed reduces the variance of the
            difference from the leader. It has the effect of that many times the seeds. NaN where it
            is not known.
        variances: (variants,) variances of the differences from the leader, 0 where they are only
            rounding; NaN for less than two pairs.
    """

    p_values: Floats
    num_pairs: Counts
    pairing: Floats
    variances: Floats


def worse_than_leader(losses: npt.ArrayLike, leader: int) -> Worse:
    """How sure it is that each variant is worse than the leader in its mean over all seeds.

    Differences from the leader are taken seed by seed. Their one-sided p-values by Student's t are
    multiplied, starting with the smallest of V variants, by `(V - k) * (V - 1)` for `k` = 0, 1, ...
    This is the number of ordered pairs of a variant that is still in the set and another one. So
    the level holds for every pair that chance may have put at the top, and the set holds the best
    variant (all of them if several are equally good) in at least 95 of 100 runs. This is a subset
    selection in the sense of Gupta with the step-down of Holm; Hsu's multiple comparisons with the
    best give the same statement.

    From 8 variants and 5 seeds on, variances are shared between variants (`moderated_variances`).
    Differences that are the same in all n seeds have no variance; their p-value is that of the
    sign-flip test, `1 / 2^n`.

    Args:
        losses: (variants, seeds); NaN where a seed has no value. Small is good.
        leader: Index of the variant with the smallest mean; with another index fewer variants are
            found worse.

    References:
        Gupta, "On Some Multiple Decision (Selection and Ranking) Rules" (Technometrics, 1965);
        Hsu, "Constrained Simultaneous Confidence Intervals for Multiple Comparisons with the Best"
        (Annals of Statistics, 1984); Holm (1979); Smyth (2004), see `moderated_variances`.
    """
    losses = np.asarray(losses, np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
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
    p_values[known] = one_sided_p_values(spread.mean, variances, spread.n, df)[known]
    p_values[same_values(losses, leader)] = 1.0
    p_values[leader] = np.nan
    return Worse(_step_down(p_values), spread.n, _pairing(losses, leader, own), own)


def one_sided_p_values(mean: Floats, variances: Floats, n: Counts, df: Floats) -> Floats:
    """The one-sided p-values of mean differences, small if above zero; 1 if nothing is known."""
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
    """The p-values corrected: of the m known ones the smallest times `(m + 1) * m`, the next times
    `m * m`, and so on.
    """
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]
    num_compared = len(order)
    factors = num_compared * (num_compared + 1 - np.arange(num_compared))
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def same_values(losses: Floats, of: int) -> npt.NDArray[np.bool_]:
    """Whether the other variants have the same value as one variant in every seed, up to rounding.

    Args:
        losses: (variants, seeds); NaN where a seed has no value.
        of: The index of that one variant.

    Returns:
        bool (variants,); False for the variant itself.
    """
    with np.errstate(invalid="ignore"):
        near = np.abs(losses - losses[of]) <= ROUNDING * np.abs(losses[of])
    near |= np.isnan(losses) & np.isnan(losses[of])
    same: npt.NDArray[np.bool_] = near.all(axis=1)
    same[of] = False
    return same


def _pairing(losses: Floats, leader: int, variances: Floats) -> Floats:
    """The variance of a difference of unpaired values, divided by that of the paired difference."""
    shared = ~np.isnan(losses) & ~np.isnan(losses[leader])
    ours = describe(np.where(shared, losses[leader], np.nan)).sd
    theirs = describe(np.where(shared, losses, np.nan)).sd
    gain = np.full(len(losses), np.nan)
    np.divide(np.square(ours) + np.square(theirs), variances, out=gain, where=variances > 0)
    return gain


# Variances ---------------------------------------------------------------------------------------


def moderated_variances(losses: Floats, leader: int) -> tuple[Floats, Floats]:
    """The variances of the differences from the leader, shared between variants.

    A few seeds determine a variance badly, but all variants together show what is typical. Each
    variance is drawn towards the typical one, and has the degrees of freedom of both (the moderated
    t-test). It is the larger of two variances: that of the differences themselves, and the sum of
    both variants' variances around the effect that a seed has on all variants. None of the latter
    counts as less than the upper quartile of the better half, because a leader is often one that
    had the luck not to show its bad seeds. Variants that scatter far more than the others are left
    out when the typical variance is estimated.

    Args:
        losses: (variants, seeds); NaN where a seed has no value. Small is good.
        leader: The index of the leader.

    Returns:
        (variants,) variances, NaN for less than two pairs, and (variants,) degrees of freedom.

    References:
        Smyth, "Linear Models and Empirical Bayes Methods for Assessing Differential Expression in
        Microarray Experiments" (2004), sections 4 and 6.2; R's limma, `squeezeVar`.
    """
    with np.errstate(invalid="ignore"):
        spread = describe(losses - losses[leader])
    df = np.maximum(spread.n - 1.0, 1.0)
    around, around_df = _variances_around_seeds(losses)
    tame = _tame(around)
    pairs = fit_prior(*variances_of_pairs(losses[tame]))
    paired = squeeze(np.square(spread.sd), df, pairs)
    variants = fit_prior(around[tame], around_df[tame])
    single = squeeze(around, np.maximum(around_df, 1.0), variants)
    better = tame[np.argsort(describe(losses[tame]).mean)[: -(-len(tame) // 2)]]
    single = np.fmax(single, np.nanquantile(single[better], 0.75))
    shared_df = max(0.0, min(pairs.df, variants.df, 1e6) - _PRIOR_DISCOUNT)
    return np.maximum(paired, single + single[leader]), df + shared_df


def _tame(variances: Floats) -> npt.NDArray[np.intp]:
    """Indices of the variants that do not scatter far more than others, as diverging ones do."""
    typical = np.nanmedian(variances)
    return np.flatnonzero(variances <= _WILD * typical if typical > 0 else ~np.isnan(variances))


def variances_of_pairs(losses: Floats) -> tuple[Floats, Floats]:
    """Variances of the differences between some pairs of variants, and their degrees of freedom."""
    order = np.random.default_rng(0).permutation(len(losses))
    mixed = losses[order]
    with np.errstate(invalid="ignore"):
        spreads = [
            describe(mixed - np.roll(mixed, shift, axis=0))
            for shift in range(1, min(_NUM_PARTNERS, len(losses) // 2) + 1)
        ]
    return (
        np.concatenate([np.square(spread.sd) for spread in spreads]),
        np.concatenate([spread.n - 1.0 for spread in spreads]),
    )


def _variances_around_seeds(losses: Floats) -> tuple[Floats, Floats]:
    """Each variant's variance without the effect that a seed has on all, and degrees of freedom."""
    with np.errstate(invalid="ignore"):
        centered = losses - describe(losses).mean[:, np.newaxis]
        # The median, so that a variant with extreme values does not change the residuals of all.
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
        variances: (n,) measured; those that are not finite or have no degrees of freedom are left
            out.
        df: (n,) their degrees of freedom.

    Returns:
        The distribution; it has no weight if fewer than three variances are known, or half of them
        are zero.

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
        prior: The result of `fit_prior`.

    References:
        Smyth (2004), equation 3; R's limma, `squeezeVar`.
    """
    if np.isinf(prior.df):
        return np.where(np.isnan(variances), np.nan, prior.variance)
    squeezed: Floats = (prior.df * prior.variance + df * variances) / (prior.df + df)
    return squeezed


def trigamma_inverse(value: float) -> float:
    """The x at which the trigamma function has a value, by Newton's method on 1/trigamma.

    Args:
        value: Above 0.

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
    """How far the best of some equally good variants lies from their mean, in standard deviations.

    This is the expected maximum of standard normal values; 0 for a single one.

    Args:
        num_equal: How many variants there are.

    References:
        Blom, "Statistical Estimates and Transformed Beta-Variables" (1958), for the approximation.
    """
    from scipy.special import ndtri

    return float(ndtri((num_equal - 0.375) / (num_equal + 0.25))) if num_equal > 1 else 0.0
