"""Rounds over seeds, simulated with the product's own decisions where the truth is known.

    scripts/simulate_rounds choice FILE... [--replications 400]
    scripts/simulate_rounds race [--replications 2000] [--variants 16 64 256 1024]

`choice` replays searches on a table of results: a run folder of a finished grid, or an .npz file
with `loss` (variants, seeds, epochs), small is good. Its seeds, drawn with replacement, are the
population, so that each variant's true mean is known. For `rounds: auto` with 20 seeds it prints
the cost as a share of the grid x 20 seeds, the mean regret (true mean of the chosen variant less
that of the best, in units of the median standard deviation of paired differences) beside that of
the grid, and how often the best was chosen. With all variants made equal it prints how often the
confirmation claims a difference, and how often its 95% intervals hold the truth.

`race` draws values from distributions and prints how often the best variant is dropped, and how
many times fewer trials are trained than with all seeds for all variants.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.analysis.confirmation import Confirmation, confirmation_of
from trialrun.analysis.selection import ValidationScores
from trialrun.job import ConfirmSpec, JobSpec
from trialrun.search.schedule import schedule_of
from trialrun.search.strategy import Search, next_round
from trialrun.store import RunFolder
from trialrun.store.round_log import Round

Floats = npt.NDArray[np.float64]
NUM_SEEDS = NUM_FRESH = 20


class Found(NamedTuple):
    """One search: the rows of its confirmed variants, the best first, and its trials."""

    confirmed: list[int]
    num_trials: int
    rounds: list[Round]


class Replayer:
    """Searches over values (variants, seeds) that are known beforehand."""

    def __init__(self, num_variants: int, rounds: object) -> None:
        content = {"name": "simulation", "seeds": NUM_SEEDS, "search": {"rounds": rounds}}
        job = JobSpec.model_validate(content)
        width = len(str(num_variants))
        self._names = tuple(f"v{row:0{width}d}" for row in range(num_variants))
        self._search = Search(
            self._names,
            job.seed_list,
            "minimize",
            "mean",
            schedule_of(job, num_variants),
            ConfirmSpec(seeds=NUM_FRESH),
        )

    def search(self, values: Floats) -> Found:
        """The search that ends in a confirmation; `values` is (variants, NUM_SEEDS)."""
        scores = ValidationScores(
            metric="val_loss",
            variant_ids=self._names,
            seeds=tuple(range(NUM_SEEDS)),
            trial_ids=np.full(values.shape, b"t"),
            values=values,
            num_unfinished=np.zeros(len(values), np.int64),
        )
        rounds: list[Round] = []
        while (coming := next_round(self._search, rounds, scores)) is not None:
            rounds.append(coming)
        *choosing, last = rounds
        counts: dict[str, int] = {}
        for one in choosing:
            counts |= dict.fromkeys(one.variants, len(one.seeds))
        rows = [int(name[1:]) for name in last.variants]
        return Found(rows, sum(counts.values()), rounds)


# Choice ------------------------------------------------------------------------------------------


def read_table(path: Path) -> Floats:
    """Results (variants, seeds) at the last epoch, small is good."""
    if path.is_file():
        with np.load(path) as arrays:
            return np.asarray(arrays["loss"][:, :, -1], np.float64)
    folder = RunFolder.open(path)
    select = folder.read_job()["select"]
    rows = folder.read_trials("numbers")
    values = rows.pivot(index="variant_id", columns="seed", values=select["metric"])
    table = values.to_numpy(np.float64)
    return table if select["goal"] == "minimize" else -table


def confirm(table: Floats, found: Found, fresh: npt.NDArray[np.intp]) -> Confirmation:
    """What fresh seeds say of the confirmed variants."""
    names = [str(row) for row in found.confirmed]
    return confirmation_of(names, table[found.confirmed][:, fresh])


def simulate_choice(path: Path, replications: int) -> None:
    """Prints a table's line for the real variants, and one for equal variants."""
    table = read_table(path)
    truth = table.mean(axis=1)
    unit = np.median((table - table[truth.argmin()]).std(axis=1, ddof=1))
    replay = Replayer(len(table), "auto")
    regrets, grid_regrets, costs = [], [], []
    for replication in range(replications):
        rng = np.random.default_rng([0, replication])
        seeds = rng.integers(table.shape[1], size=NUM_SEEDS)
        order = rng.permutation(len(table))
        values = table[order][:, seeds]
        found = replay.search(values)
        regrets.append(truth[order][found.confirmed[0]] - truth.min())
        grid_regrets.append(truth[order][values.mean(axis=1).argmin()] - truth.min())
        costs.append(found.num_trials / values.size)
    right = np.mean(np.array(regrets) <= 1e-12)
    print(
        f"{path.stem:>10}  {len(table)} variants: cost {np.mean(costs):.3f} of the grid; regret"
        f" {np.mean(regrets) / unit:.3f} (grid {np.mean(grid_regrets) / unit:.3f}) paired sd;"
        f" chose the best in {right:.0%}"
    )
    equal = table - truth[:, np.newaxis] + truth.mean()
    false_claims = holds_mean = holds_difference = 0
    for replication in range(replications):
        rng = np.random.default_rng([1, replication])
        seeds, fresh = rng.integers(table.shape[1], size=(2, NUM_SEEDS))
        order = rng.permutation(len(table))
        said = confirm(equal[order], replay.search(equal[order][:, seeds]), fresh)
        [difference], winner = said.differences, said.variants[0]
        false_claims += difference.is_clear
        holds_mean += winner.low <= truth.mean() <= winner.high
        holds_difference += difference.low <= 0 <= difference.high
    print(
        f"{'':>10}  all equal: claims a difference in {false_claims / replications:.1%}; its 95%"
        f" intervals hold the winner's mean in {holds_mean / replications:.1%}, the difference in"
        f" {holds_difference / replications:.1%}",
        flush=True,
    )


# Race --------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, int], Floats]


def normal(rng: np.random.Generator, num_variants: int) -> Floats:
    return rng.normal(size=(num_variants, NUM_SEEDS))


def gamma(rng: np.random.Generator, num_variants: int) -> Floats:
    """Skewed: shape 2, standardized."""
    return (rng.gamma(2, size=(num_variants, NUM_SEEDS)) - 2) / np.sqrt(2)


def heavy_tails(rng: np.random.Generator, num_variants: int) -> Floats:
    """Student's t with 3 degrees of freedom, standardized."""
    return rng.standard_t(3, size=(num_variants, NUM_SEEDS)) / np.sqrt(3)


def unequal(rng: np.random.Generator, num_variants: int) -> Floats:
    """Normal; the variances are inverse chi-squared with 4 degrees of freedom."""
    sd = np.sqrt(4 / rng.chisquare(4, (num_variants, 1)))
    return sd * normal(rng, num_variants)


def problems(
    num_variants: int, draw: Draw, spread: float, rng: np.random.Generator
) -> Iterator[tuple[Floats, int]]:
    """Values of variants around means that lie `spread` apart, and the row of the best."""
    while True:
        means = np.abs(rng.normal(0, spread, num_variants))
        luck = rng.normal(0, np.sqrt(0.8), NUM_SEEDS)
        values = means[:, np.newaxis] + luck + np.sqrt(0.2) * draw(rng, num_variants)
        yield values, int(means.argmin())


def simulate_race(num_variants: int, draw: Draw, spread: float, replications: int) -> None:
    """Prints the line of one distribution."""
    replay = Replayer(num_variants, {"method": "race"})
    rng = np.random.default_rng(2)
    dropped = num_trials = 0
    for _, (values, best) in zip(
        range(replications), problems(num_variants, draw, spread, rng), strict=False
    ):
        found = replay.search(values)
        names = {
            name
            for one in found.rounds
            if one.decision is not None
            for name in one.decision.dropped
        }
        dropped += best in {int(name[1:]) for name in names}
        num_trials += found.num_trials
    fewer = replications * num_variants * NUM_SEEDS / num_trials
    print(
        f"{draw.__name__:>12}  {num_variants:5} variants, means {spread:g} apart: best dropped in"
        f" {dropped / replications:.2%}; {fewer:.2f} times fewer trials",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    choice = commands.add_parser("choice")
    choice.add_argument("tables", type=Path, nargs="+")
    choice.add_argument("--replications", type=int, default=400)
    race = commands.add_parser("race")
    race.add_argument("--replications", type=int, default=2000)
    race.add_argument("--variants", type=int, nargs="+", default=[16, 64, 256, 1024])
    given = parser.parse_args(arguments)
    if given.command == "choice":
        for table in given.tables:
            simulate_choice(table, given.replications)
        return
    for num_variants in given.variants:
        for draw in (normal, gamma, heavy_tails, unequal):
            for spread in (1e-6, 1.0, 3.0):
                simulate_race(num_variants, draw, spread, given.replications)


if __name__ == "__main__":
    main()
