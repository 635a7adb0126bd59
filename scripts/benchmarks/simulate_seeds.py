"""Prints how often the statistics are right about seeds whose true mean is known.

    scripts/simulate_seeds [--table FILE.npy]

The first table is made from 2,000 simulated sets of seeds per line. It shows how often the 95%
interval holds the true mean (nominally in 95 of 100), and how often the sign-flip test at 5% finds
a difference between two equal variants. `normal` is like a loss; `skewed` is like an accuracy near
1, which a few unlucky seeds pull down.

The other tables show what a summary says of many variants, with 200 runs per line. For equal
variants: how often any is called worse (at most in 5 of 100), how often the winner's interval holds
its true mean, and by how much its mean is too good, in truth and by the summary's own estimate. If
some variants lose: how often the set that is said to hold the best holds it, how many of the losers
are named, and what pairing is said to be worth.

There, `normal` is normal noise, together with luck that all variants share and that is three times
as large. `skewed` has exponential noise instead. In `unequal` the noise of some variants is many
times that of others, and one in thirty variants fails badly under one seed in twenty. `table` takes
the residuals of a real run from a file of values (variants, seeds): each row is moved to the same
mean, and seeds are drawn with replacement.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.analysis.certainty import compare_with_best
from trialrun.analysis.selection import ValidationScores, rank, seeds_interval
from trialrun.statistics.intervals import mean_interval
from trialrun.statistics.paired import sign_flip_p_values

NUM_SETS, NUM_RUNS = 2000, 200
Values = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Values]

# Name -> (how values (sets, seeds) are drawn, their true mean).
DISTRIBUTIONS: Mapping[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(0.3, 0.05, shape), 0.3),
    "skewed": (lambda rng, shape: rng.beta(30, 1.5, shape), 30 / 31.5),
}


def coverage(name: str, *, num_seeds: int, num_sets: int = NUM_SETS) -> float:
    """The share of the sets whose 95% interval holds the true mean."""
    draw, mean = DISTRIBUTIONS[name]
    rng = np.random.default_rng([1, num_seeds])
    low, high = mean_interval(draw(rng, (num_sets, num_seeds)), rng)
    return float(np.mean((low <= mean) & (mean <= high)))


def false_alarms(name: str, *, num_seeds: int, num_sets: int = NUM_SETS) -> float:
    """The share of pairs of equal variants for which a difference is found at 5%.

    Luck that both share under a seed is added to both.
    """
    draw, _ = DISTRIBUTIONS[name]
    rng = np.random.default_rng([2, num_seeds])
    shared, first, second = (draw(rng, (num_sets, num_seeds)) for _ in range(3))
    return float(np.mean(sign_flip_p_values((shared + first) - (shared + second), rng) <= 0.05))


# Many variants -----------------------------------------------------------------------------------


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
    return 3 * rng.normal(size=shape[1]) + rng.normal(size=shape)


def _skewed(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
    return 3 * rng.normal(size=shape[1]) + rng.exponential(size=shape)


def _unequal(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
    scales = np.sqrt(3 / rng.chisquare(3, size=(shape[0], 1)))
    failures = 15.0 * (rng.random(shape) < 0.05) - 15.0 * 0.05
    noise = scales * (rng.gamma(2, size=shape) - 2)
    return rng.normal(size=shape[1]) + noise + failures * (rng.random((shape[0], 1)) < 1 / 30)


# Name -> values (variants, seeds) of variants whose true means are equal.
EQUAL: dict[str, Draw] = {"normal": _normal, "skewed": _skewed, "unequal": _unequal}
_TRUE_MEAN = {"skewed": 1.0}
_TYPICAL_DEVIATION = {"normal": 1.0, "unequal": 1.6}  # the median over variants


def of_table(table: Values) -> Draw:
    """Equal variants with the residuals of a real run (variants, seeds)."""
    residuals = table - table.mean(axis=1, keepdims=True)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
        seeds = rng.integers(residuals.shape[1], size=shape[1])
        return residuals[rng.permutation(len(residuals))[: shape[0]]][:, seeds]

    return draw


class EqualVariants(NamedTuple):
    """What is said of runs whose variants are all equal.

    Attributes:
        false_claims: The share of the runs in which any variant is called worse.
        interval_holds: The share in which the winner's 95% interval holds its true mean.
        flattery: By how much the winner's mean is too good, on average.
        flattery_said: The same by the summaries' own estimate.
    """

    false_claims: float
    interval_holds: float
    flattery: float
    flattery_said: float


def equal_variants(
    draw: Draw, *, num_variants: int, num_seeds: int, true_mean: float = 0.0, runs: int = NUM_RUNS
) -> EqualVariants:
    """What is said of equal variants, whose losses are drawn by `draw`."""
    found = []
    for number in range(runs):
        values = draw(np.random.default_rng([3, number]), (num_variants, num_seeds))
        scores = _scores(values)
        order = rank(scores, "minimize")
        known = compare_with_best(scores, order, "minimize")
        winner = values[order[0]]
        low, high = seeds_interval(winner)
        # The effect of the seeds on all variants does not flatter the winner.
        flattery = np.median(values.mean(axis=1)) - winner.mean()
        holds = low <= true_mean <= high
        found.append((len(known.best_set) < len(values), holds, flattery, known.flattery))
    return EqualVariants(*np.mean(found, axis=0).tolist())


class OneBest(NamedTuple):
    """What is said of runs in which some variants lose.

    Attributes:
        holds_best: The share of the runs whose set holds all of the best variants.
        named: The share of the losers that are called worse.
        pairing: The 5%, 50% and 95% quantiles over runs of what pairing is said to be worth.
    """

    holds_best: float
    named: float
    pairing: tuple[float, float, float]


def some_lose(
    *,
    num_variants: int,
    num_seeds: int,
    num_losers: int,
    by: float,
    draw: Draw = _normal,
    runs: int = NUM_RUNS,
) -> OneBest:
    """What is said of variants if the last `num_losers` are worse by `by`."""
    found, pairings = [], []
    for number in range(runs):
        values = draw(np.random.default_rng([4, number]), (num_variants, num_seeds))
        values[num_variants - num_losers :] += by
        scores = _scores(values)
        known = compare_with_best(scores, rank(scores, "minimize"), "minimize")
        inside = np.isin(scores.variant_ids, known.best_set)
        best, losers = inside[: num_variants - num_losers], inside[num_variants - num_losers :]
        found.append((best.all(), 1 - losers.mean()))
        pairings.append(known.pairing or 1.0)
    low, middle, high = np.quantile(pairings, [0.05, 0.5, 0.95]).tolist()
    return OneBest(*np.mean(found, axis=0).tolist(), (low, middle, high))


def _scores(values: Values) -> ValidationScores:
    return ValidationScores(
        metric="val_loss",
        variant_ids=tuple(f"v{index:02d}" for index in range(len(values))),
        seeds=tuple(range(values.shape[1])),
        trial_ids=np.zeros(values.shape, "S1"),
        values=values,
        num_unfinished=np.zeros(len(values), np.int64),
    )


def main() -> None:
    """Prints the tables, with a line per number of seeds and distribution."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--table", type=Path, help="a .npy file: values (variants, seeds)")
    options = parser.parse_args()
    if options.table:
        _print_equal({"table": of_table(np.load(options.table).astype(np.float64))})
        return
    print(f"{'seeds':>5}  {'distribution':12}  {'interval holds, %':>17}  {'false alarms, %':>15}")
    for num_seeds in (2, 3, 5, 9, 10, 20, 50, 200, 500):
        for name in DISTRIBUTIONS:
            holds = coverage(name, num_seeds=num_seeds)
            alarms = false_alarms(name, num_seeds=num_seeds)
            print(f"{num_seeds:5}  {name:12}  {holds:17.1%}  {alarms:15.1%}", flush=True)
    _print_equal(EQUAL)
    _print_losers()


def _print_equal(draws: Mapping[str, Draw]) -> None:
    print(
        "\nEqual variants\n"
        f"{'variants':>8}  {'seeds':>5}  {'noise':8}  {'false claims, %':>15}"
        f"  {'winner held, %':>14}  {'too good by':>11}  {'said':>7}"
    )
    for num_variants in (2, 3, 8, 64):
        for num_seeds in (2, 3, 5, 8, 20):
            for name, draw in draws.items():
                found = equal_variants(
                    draw,
                    num_variants=num_variants,
                    num_seeds=num_seeds,
                    true_mean=_TRUE_MEAN.get(name, 0.0),
                )
                print(
                    f"{num_variants:8}  {num_seeds:5}  {name:8}  {found.false_claims:15.1%}"
                    f"  {found.interval_holds:14.1%}  {found.flattery:11.3g}"
                    f"  {found.flattery_said:7.2g}",
                    flush=True,
                )


def _print_losers() -> None:
    print(
        "\nSome variants lose\n"
        f"{'variants':>8}  {'losers':>6}  {'noise':8}  {'by, sd':>6}  {'seeds':>5}"
        f"  {'set holds best, %':>17}  {'losers named, %':>15}"
        "  pairing said to be worth (in truth 10, of unequal noise less)"
    )
    for num_variants, num_losers, noise, by in (
        (3, 2, "normal", 0.5),
        (64, 63, "normal", 0.5),
        (64, 32, "normal", 1.5),
        (64, 63, "normal", 1.5),
        (64, 32, "unequal", 1.5),
    ):
        for num_seeds in (5, 8, 20):
            found = some_lose(
                num_variants=num_variants,
                num_seeds=num_seeds,
                num_losers=num_losers,
                by=by * _TYPICAL_DEVIATION[noise],
                draw=EQUAL[noise],
            )
            low, middle, high = found.pairing
            print(
                f"{num_variants:8}  {num_losers:6}  {noise:8}  {by:6}  {num_seeds:5}"
                f"  {found.holds_best:17.1%}  {found.named:15.1%}"
                f"  {middle:.3g} ({low:.2g} to {high:.2g})",
                flush=True,
            )


if __name__ == "__main__":
    main()
