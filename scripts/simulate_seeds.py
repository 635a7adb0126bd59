"""Prints how often the statistics are right about seeds whose true mean is known.

    scripts/simulate_seeds

Of 2,000 simulated sets of seeds each: how often the 95% interval holds the true mean (nominally 95
in 100), and how often two variants that do not differ are told apart at 5% (at most 5 in 100).
`normal` is a loss; `skewed` is an accuracy near 1, which a few unlucky seeds pull down.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from trialrun.statistics.intervals import mean_interval
from trialrun.statistics.paired import sign_flip_p_values

NUM_SETS = 2000
Draw = Callable[[np.random.Generator, tuple[int, int]], npt.NDArray[np.float64]]

# Name -> (how values (sets, seeds) are drawn, their true mean).
DISTRIBUTIONS: Mapping[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(0.3, 0.05, shape), 0.3),
    "skewed": (lambda rng, shape: rng.beta(30, 1.5, shape), 30 / 31.5),
}


def coverage(name: str, *, num_seeds: int, num_sets: int = NUM_SETS) -> float:
    """The part of the sets whose 95% interval holds the true mean."""
    draw, mean = DISTRIBUTIONS[name]
    rng = np.random.default_rng([1, num_seeds])
    low, high = mean_interval(draw(rng, (num_sets, num_seeds)), rng)
    return float(np.mean((low <= mean) & (mean <= high)))


def false_alarms(name: str, *, num_seeds: int, num_sets: int = NUM_SETS) -> float:
    """The part of the pairs of equal variants that are told apart at 5%.

    What a seed does to both is added to both: luck that they share.
    """
    draw, _ = DISTRIBUTIONS[name]
    rng = np.random.default_rng([2, num_seeds])
    shared, first, second = (draw(rng, (num_sets, num_seeds)) for _ in range(3))
    return float(np.mean(sign_flip_p_values((shared + first) - (shared + second), rng) <= 0.05))


def main() -> None:
    """Prints a table: a line per number of seeds and distribution."""
    print(f"{'seeds':>5}  {'distribution':12}  {'interval holds, %':>17}  {'false alarms, %':>15}")
    for num_seeds in (2, 3, 5, 9, 10, 20, 50, 200, 500):
        for name in DISTRIBUTIONS:
            holds = coverage(name, num_seeds=num_seeds)
            alarms = false_alarms(name, num_seeds=num_seeds)
            print(f"{num_seeds:5}  {name:12}  {holds:17.1%}  {alarms:15.1%}", flush=True)


if __name__ == "__main__":
    main()
