"""Rounds over seeds, simulated with the product's own decisions where the truth is known.

    scripts/simulate_rounds choice FILE... [--replications 400]
    scripts/simulate_rounds race [--replications 2000] [--variants 16 64 256 1024]
        [--apart 1e-6 1 3] [--peer-replications 100]
    scripts/simulate_rounds peers FILE... [--replications 400] [--peer-replications 100]
        [--seeds 10]

`choice` replays searches on a table of results: a run folder of a finished grid, or an .npz file
with `loss` (variants, seeds, epochs), small is good. Its seeds, drawn with replacement, are the
population, so that each variant's true mean is known. For `rounds: auto` with 20 seeds it prints
the cost as a share of the grid x 20 seeds, the mean regret (true mean of the chosen variant less
that of the best, in units of the median standard deviation of paired differences) beside that of
the grid, and how often the best was chosen. With all variants made equal it prints how often the
confirmation claims a difference, and how often its 95% intervals hold the truth.

`race` draws values from distributions and prints how often the best variant is dropped, and how
many times fewer trials are trained than with all seeds for all variants. Optuna's WilcoxonPruner
is a peer up to 64 variants: it takes them in turn and stops one that loses to the best so far. The
bound is a race that need not estimate variances: a z-test with the true ones, at the same looks and
the same levels.

`peers` puts `rounds: auto` with a confirmation beside Optuna's TPE with Hyperband over epochs, on
the same tables, which need learning curves and parameters (in an .npz file `params`, (variants,
parameters)). Both train as many epochs in all. For Optuna each trial is one training with a seed of
its own, and a point of its space stands for the nearest variant. It prints the mean regret, how
often the chosen variant is more than half a paired sd worse than the best, and by how much what is
said of the chosen variant (ours: its mean over fresh seeds; Optuna's: the value of the best trial)
is better than its true mean, in standard deviations over seeds.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import optuna
from rounds_peers import Space, tpe_and_hyperband, wilcoxon
from scipy import stats

from trialrun.analysis.confirmation import Confirmation, confirmation_of
from trialrun.analysis.parameters import ABSENT
from trialrun.analysis.selection import ValidationScores
from trialrun.analysis.winner import winner_curves
from trialrun.job import ConfirmSpec, JobSpec, Statistic, searched_paths
from trialrun.search import strategy
from trialrun.search.schedule import schedule_of
from trialrun.search.strategy import Search, next_round
from trialrun.store import RunFolder
from trialrun.store.round_log import Decision, Round
from trialrun.store.trial_tables import TrialIndex

Floats = npt.NDArray[np.float64]
NUM_SEEDS = NUM_FRESH = 20
CONFIRM = ConfirmSpec(seeds=NUM_FRESH)


class Found(NamedTuple):
    """One search: the rows of the variants of its last round, its trials, and its rounds.

    A confirmation has the best variant first.
    """

    last: list[int]
    num_trials: int
    rounds: list[Round]


def job_of(rounds: object, num_seeds: int = NUM_SEEDS) -> JobSpec:
    """A job that searches with these rounds."""
    content = {"name": "simulation", "seeds": num_seeds, "search": {"rounds": rounds}}
    return JobSpec.model_validate(content)


class Replayer:
    """Searches over values (variants, seeds) that are known beforehand."""

    def __init__(
        self,
        num_variants: int,
        rounds: object,
        num_seeds: int = NUM_SEEDS,
        confirm: ConfirmSpec | None = None,
    ) -> None:
        job = job_of(rounds, num_seeds)
        width = len(str(num_variants))
        self._names = tuple(f"v{row:0{width}d}" for row in range(num_variants))
        self._search = Search(
            self._names,
            job.seed_list,
            "minimize",
            "mean",
            schedule_of(job, num_variants),
            confirm,
        )

    def search(self, values: Floats) -> Found:
        """The search to its end; `values` is (variants, seeds)."""
        scores = ValidationScores(
            metric="val_loss",
            variant_ids=self._names,
            seeds=tuple(range(values.shape[1])),
            trial_ids=np.full(values.shape, b"t"),
            values=values,
            num_unfinished=np.zeros(len(values), np.int64),
        )
        rounds: list[Round] = []
        while (coming := next_round(self._search, rounds, scores)) is not None:
            rounds.append(coming)
        counts: dict[str, int] = {}
        for one in rounds:
            if one.stage != "confirm":
                counts |= dict.fromkeys(one.variants, len(one.seeds))
        rows = [int(name[1:]) for name in rounds[-1].variants]
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
    names = [str(row) for row in found.last]
    return confirmation_of(names, table[found.last][:, fresh])


def simulate_choice(path: Path, replications: int) -> None:
    """Prints a table's line for the real variants, and one for equal variants."""
    table = read_table(path)
    truth = table.mean(axis=1)
    unit = np.median((table - table[truth.argmin()]).std(axis=1, ddof=1))
    replay = Replayer(len(table), "auto", confirm=CONFIRM)
    regrets, grid_regrets, costs = [], [], []
    for replication in range(replications):
        rng = np.random.default_rng([0, replication])
        seeds = rng.integers(table.shape[1], size=NUM_SEEDS)
        order = rng.permutation(len(table))
        values = table[order][:, seeds]
        found = replay.search(values)
        regrets.append(truth[order][found.last[0]] - truth.min())
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


# Peers -------------------------------------------------------------------------------------------

FAR = 0.5  # paired standard deviations


class Curves(NamedTuple):
    """A table: losses (variants, seeds, epochs), small is good, and numbers of each variant."""

    losses: Floats
    parameters: Floats


def read_curves(path: Path) -> Curves:
    """A table with its learning curves; texts and lists among parameters are their index."""
    if path.is_file():
        with np.load(path) as arrays:
            return Curves(*(np.asarray(arrays[name], np.float64) for name in ("loss", "params")))
    folder = RunFolder.open(path)
    select, index = folder.read_job()["select"], folder.tables.index()
    curves = [winner_curves(folder, name, index) for name in index.variant_ids]
    losses = [found.get(select["metric"], np.zeros(0)) for found in curves]
    if len({values.shape for values in losses}) > 1 or not np.isfinite(losses).all():
        raise SystemExit(f"{path}: some trials did not complete, or stopped early")
    sign = 1 if select["goal"] == "minimize" else -1
    return Curves(sign * np.array(losses, np.float64), _numbers(path, index))


def _numbers(path: Path, index: TrialIndex) -> Floats:
    """The parameters (variants, parameters) of a run as numbers, without those of one value."""
    columns = []
    for name in searched_paths(index.parameters.values()):
        values = [index.parameters[variant].get(name, ABSENT) for variant in index.variant_ids]
        if ABSENT in values:
            raise SystemExit(f"{path}: some variants do not have {name}")
        distinct = list(dict.fromkeys(map(repr, values)))
        is_number = all(isinstance(value, int | float) for value in values)
        column = values if is_number else [distinct.index(repr(value)) for value in values]
        columns += [column] * (len(distinct) > 1)
    return np.array(columns, np.float64).T


class Ended(NamedTuple):
    """How a search ended: the row that it names the best, what it says of it, epochs trained."""

    row: int
    value: float
    cost: int


def simulate_peers(path: Path, num_seeds: int, replications: int, peer_replications: int) -> None:
    """Prints the lines of a table."""
    table = read_curves(path)
    num_variants, num_all, num_epochs = table.losses.shape
    space, replay = Space(table.parameters), Replayer(num_variants, "auto", num_seeds, CONFIRM)
    ours, peers = [], []
    for replication in range(replications):
        rng = np.random.default_rng([0, replication])
        seeds, fresh = rng.integers(num_all, size=num_seeds), rng.integers(num_all, size=NUM_FRESH)
        order = rng.permutation(num_variants)
        last = table.losses[order][:, :, -1]
        found = replay.search(last[:, seeds])
        said = confirm(last, found, fresh).variants[0]
        num_trials = found.num_trials + len(found.last) * NUM_FRESH
        ours.append(Ended(order[found.last[0]], said.mean, num_trials * num_epochs))
        if replication < peer_replications:
            claim = tpe_and_hyperband(table.losses, space, ours[-1].cost, rng)
            peers.append(Ended(claim.row, claim.value, claim.cost))
    print(f"{path.stem}: {num_variants} variants, at most {num_seeds} seeds each to choose")
    print_ended("rounds: auto, confirmed", ours, table.losses[:, :, -1])
    if peers:
        print_ended("Optuna, TPE + Hyperband", peers, table.losses[:, :, -1])


def print_ended(name: str, ended: Sequence[Ended], table: Floats) -> None:
    """Prints the line of one way to search."""
    truth = table.mean(axis=1)
    paired_sd = np.median((table - table[truth.argmin()]).std(axis=1, ddof=1))
    chosen = truth[[one.row for one in ended]]
    regrets = (chosen - truth.min()) / paired_sd
    too_good = (chosen - [one.value for one in ended]) / np.median(table.std(axis=1, ddof=1))
    print(
        f"  {name}: {np.mean([one.cost for one in ended]):,.0f} epochs; regret {regrets.mean():.3f}"
        f" (se {regrets.std(ddof=1) / len(regrets) ** 0.5:.3f}), more than {FAR} in"
        f" {np.mean(regrets > FAR):.0%}; says {too_good.mean():+.2f} sd too good, more than 1 sd in"
        f" {np.mean(too_good > 1):.0%} ({len(ended)} replications)",
        flush=True,
    )


# Race --------------------------------------------------------------------------------------------

MOST_FOR_PEERS = 64  # variants; with more, Optuna takes minutes for each replication
# The values (variants, seeds) around their means, and each variant's standard deviation.
Drawn = tuple[Floats, Floats]
Draw = Callable[[np.random.Generator, int], Drawn]


def normal(rng: np.random.Generator, num_variants: int) -> Drawn:
    return rng.normal(size=(num_variants, NUM_SEEDS)), np.ones(num_variants)


def gamma(rng: np.random.Generator, num_variants: int) -> Drawn:
    """Skewed: shape 2, standardized."""
    values = (rng.gamma(2, size=(num_variants, NUM_SEEDS)) - 2) / np.sqrt(2)
    return values, np.ones(num_variants)


def heavy_tails(rng: np.random.Generator, num_variants: int) -> Drawn:
    """Student's t with 3 degrees of freedom, standardized."""
    values = rng.standard_t(3, size=(num_variants, NUM_SEEDS)) / np.sqrt(3)
    return values, np.ones(num_variants)


def unequal(rng: np.random.Generator, num_variants: int) -> Drawn:
    """Normal; the variances are inverse chi-squared with 4 degrees of freedom."""
    sd = np.sqrt(4 / rng.chisquare(4, (num_variants, 1)))
    return sd * rng.normal(size=(num_variants, NUM_SEEDS)), sd[:, 0]


DRAWS = {draw.__name__: draw for draw in (normal, gamma, heavy_tails, unequal)}


def problems(
    num_variants: int, draw: Draw, spread: float, rng: np.random.Generator
) -> Iterator[tuple[Floats, int, Floats]]:
    """Values of variants whose means lie `spread` apart, the row of the best, and their own sd.

    The luck of the seed, which all variants share, is not in these standard deviations.
    """
    while True:
        means = np.abs(rng.normal(0, spread, num_variants))
        luck = rng.normal(0, np.sqrt(0.8), NUM_SEEDS)
        own, sd = draw(rng, num_variants)
        yield (
            means[:, np.newaxis] + luck + np.sqrt(0.2) * own,
            int(means.argmin()),
            np.sqrt(0.2) * sd,
        )


def num_trials_if_known(values: Floats, sd: Floats) -> int:
    """The trials of a race that knows the variances: a z-test, else as the product's own."""
    schedule = schedule_of(job_of({"method": "race"}), len(values))
    alive = np.arange(len(values))
    num_trials = 0
    for seen, count in zip((0, *schedule.counts), schedule.counts, strict=False):
        num_trials += len(alive) * (count - seen)
        means = values[alive, :count].mean(axis=1)
        leader = means.argmin()
        errors = np.hypot(sd[alive], sd[alive[leader]]) / np.sqrt(count)
        share = count / sum(schedule.counts[:-1])
        p_values = stats.norm.sf((means - means[leader]) / errors) * (len(values) - 1) / share
        alive = alive[(p_values > schedule.level) | (np.arange(len(alive)) == leader)]
        if len(alive) == 1:
            break
    return num_trials


def simulate_race(
    num_variants: int, draw: Draw, spread: float, *, replications: int, peer_replications: int
) -> None:
    """Prints the line of one distribution."""
    replay = Replayer(num_variants, {"method": "race"})
    rng = np.random.default_rng(2)
    dropped = num_trials = num_known = 0
    peer_dropped = peer_trials = num_peers = 0
    for number, (values, best, sd) in zip(
        range(replications), problems(num_variants, draw, spread, rng), strict=False
    ):
        if number < peer_replications and num_variants <= MOST_FOR_PEERS:
            raced = wilcoxon(values)
            peer_dropped += best in raced.dropped
            peer_trials += raced.num_trials
            num_peers += 1
        found = replay.search(values)
        dropped += best not in found.last
        num_trials += found.num_trials
        num_known += num_trials_if_known(values, sd)
    whole = num_variants * NUM_SEEDS
    peer = ""
    if num_peers:
        peer = (
            f"; WilcoxonPruner: dropped in {peer_dropped / num_peers:.0%},"
            f" {num_peers * whole / peer_trials:.2f} times fewer ({num_peers} replications)"
        )
    print(
        f"{draw.__name__:>12}  {num_variants:5} variants, means {spread:g} apart: best dropped in"
        f" {dropped / replications:.2%}; {replications * whole / num_trials:.2f} times fewer"
        f" trials, {replications * whole / num_known:.2f} if variances were known{peer}",
        flush=True,
    )


def no_record(
    seen: ValidationScores, search: Search, statistic: Statistic, dropped: dict[str, str]
) -> Decision:
    """A decision without the words and numbers of the log, which take time and decide nothing."""
    return Decision((), {}, {}, dropped, "")


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
    race.add_argument("--apart", type=float, nargs="+", default=[1e-6, 1.0, 3.0])
    race.add_argument("--draws", nargs="+", choices=DRAWS, default=list(DRAWS))
    race.add_argument("--peer-replications", type=int, default=100)
    peers = commands.add_parser("peers")
    peers.add_argument("tables", type=Path, nargs="+")
    peers.add_argument("--replications", type=int, default=400)
    peers.add_argument("--peer-replications", type=int, default=100)
    peers.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args(arguments)
    if given.command == "choice":
        for table in given.tables:
            simulate_choice(table, given.replications)
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if given.command == "peers":
        for table in given.tables:
            simulate_peers(table, given.seeds, given.replications, given.peer_replications)
        return
    strategy._decision = no_record
    for num_variants in given.variants:
        for name in given.draws:
            for spread in given.apart:
                simulate_race(
                    num_variants,
                    DRAWS[name],
                    spread,
                    replications=given.replications,
                    peer_replications=given.peer_replications,
                )


if __name__ == "__main__":
    main()
