"""Kills real runs of adaptive searches, resumes them elsewhere, and compares their logs.

    scripts/rounds_on_ray [--runs N] [--seed N] [--search NAME ...]

For each search it makes `--runs` runs of one small job on embedded Ray. The first three are left
alone, on 1, 2 and 4 logical devices. Each of the others is killed (SIGKILL) twice: at a chosen
moment (before a round is in the log, after that and before its first result, in the middle of it;
the confirmation is a round too) and then at a random one. After each death the same command goes
on, on another number of devices and with another size of packs. Packs begin in a random order. All
is real but the saved model and the figures of the report, which cost time and decide nothing.

It prints a line for each run: how many files in `search/` are not those of the first run, byte for
byte, and the largest difference of a validation loss. It exits with 1 if a file differs, or if a
command ended otherwise than it should have.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import pandas as pd  # noqa: E402
from commands import Command, Finished  # noqa: E402
from made_up_export import MadeUpExport  # noqa: E402

from trialrun.cli import main as run_trialrun  # noqa: E402
from trialrun.store import RunFolder  # noqa: E402
from trialrun.store.columns import ParameterKind  # noqa: E402
from trialrun.store.round_log import Round, RoundLog  # noqa: E402
from trialrun.trials.results import PackResult  # noqa: E402

JOB = """
name: rounds_on_ray
data: {args: {num_train_younger_without: 200, num_train_older_with: 200}}
model: {builder: trialrun.models:mlp, args: {units: [4], activation: relu}}
training: {epochs: 6, batch_size: 50, checkpoint_every: 2}
seeds: 8
search:
  method: random
  num_variants: 18
  rounds: auto
  confirm: {seeds: 6}
  parameters:
    training.learning_rate: {min: 1e-3, max: 3e-1, distribution: log_uniform}
resources: {gpus: 0, cpus: 1, grace_s: 5}
"""
_TPE = {"search.method": "tpe", "search.num_variants": "24", "search.batch": "8"}
_PAUSES = "[{seeds: 2, epochs: 2, keep: 1/3}, {seeds: 4, epochs: 4, keep: 3}, {seeds: 8}]"
_STOPPING = "{monitor: val_loss, patience: 1}"
SEARCHES: Mapping[str, Mapping[str, str]] = {
    "rounds": {},
    "race": {"search.rounds": "{method: race, looks: [3, 5, 8]}"},
    "pauses": {"search.rounds": _PAUSES},
    "stopping": {"training.early_stopping": _STOPPING},
    "tpe": _TPE,
    "tpe_pauses": {**_TPE, "search.rounds": _PAUSES},
}
DEVICES, PACK_SIZES = (1, 2, 4), (4, 8, 16)
CHOSEN_MOMENTS = ("before the log", "after the log", "in the middle")
RANDOM_MOMENT = "at a random time"
_NO_RAY = "Ray cannot be reached at 'local'"  # on a machine that has too much else to do


class Death(NamedTuple):
    """When a driver dies: at a moment of a round, or after some seconds."""

    moment: str
    number: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.moment} of {self.number}" if self.number else f"after {self.seconds:.1f} s"


@dataclass(frozen=True)
class Life:
    """One command of a run: on what, and when it dies, if it does."""

    devices: int
    pack_size: int
    seed: int
    death: Death | None = None


# In the driver's process -------------------------------------------------------------------------


def drive(life: Life, arguments: Sequence[str]) -> None:
    """The command line of trialrun, on some logical devices, until it dies."""
    import trialrun.cluster.embedded
    import trialrun.driver.run
    import trialrun.report.figures
    from trialrun.driver import train

    trialrun.cluster.embedded.num_local_cpus = lambda: life.devices
    trialrun.driver.run.ExportProcess = MadeUpExport
    trialrun.report.figures.draw_figures = lambda *_: ()
    rng, make_packs = random.Random(life.seed), train.make_packs

    def make_shuffled(*given: object, **named: object) -> list[object]:
        packs = list(make_packs(*given, **named))
        return rng.sample(packs, len(packs))

    train.make_packs = make_shuffled
    if life.death is not None and life.death.number:
        die_at(life.death)
    sys.argv = ["trialrun", *arguments]
    run_trialrun()


def die_at(death: Death) -> None:
    """Has this process die at a moment of a round."""
    write_round, write_pack = RoundLog.write, RunFolder.write_pack

    def die_if(moment: str, number: int) -> None:
        if (moment, number) == (death.moment, death.number):
            os.kill(os.getpid(), signal.SIGKILL)

    def write(log: RoundLog, new: Round) -> None:
        die_if("before the log", new.number)
        write_round(log, new)
        die_if("after the log", new.number)

    def write_result(
        run: RunFolder, result: PackResult, kinds: Mapping[str, ParameterKind]
    ) -> None:
        write_pack(run, result, kinds)
        die_if("in the middle", run.rounds.read()[-1].number)

    RoundLog.write, RunFolder.write_pack = write, write_result


# Around it ---------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """What a run has in the end: the files of its log, and the validation loss of each trial."""

    files: Mapping[str, str]
    losses: pd.Series


class Runs:
    """Runs of one search.

    Args:
        search: Its name.
        folder: Where the runs are made.
        home: The home of all commands.
        rng: Draws where and when they die.
    """

    def __init__(self, search: str, folder: Path, home: Path, rng: random.Random) -> None:
        self._settings, self._folder, self._home, self._rng = SEARCHES[search], folder, home, rng
        self.deaths: Counter[str] = Counter()
        self.num_faults = 0
        folder.mkdir()
        (folder / "job.yaml").write_text(JOB)

    def compare(self, num_runs: int) -> None:
        """Prints the line of each run."""
        began = time.monotonic()
        first = self._live_and_tell(0, [self._life(DEVICES[0])], None)
        seconds = 0.8 * (time.monotonic() - began)  # what is resumed has less to do
        stages = [one.stage for one in RunFolder.open(self._folder / "run0").rounds.read()]
        print("      rounds:", ", ".join(f"{n} {stage}" for n, stage in enumerate(stages, 1)))
        deck = self._deck(len(stages))
        for number in range(1, num_runs):
            if number < len(DEVICES):
                lives = [self._life(DEVICES[number])]
            else:
                random_one = Death(RANDOM_MOMENT, seconds=self._rng.uniform(0, seconds))
                ends = [next(deck), random_one, None]
                lives = [self._life(self._rng.choice(DEVICES), end) for end in ends]
            self._live_and_tell(number, lives, first)

    def _life(self, devices: int, death: Death | None = None) -> Life:
        return Life(devices, self._rng.choice(PACK_SIZES), self._rng.randrange(2**31), death)

    def _deck(self, num_rounds: int) -> Iterator[Death]:
        """Chosen moments, each as often as the others."""
        moments = [Death(m, n) for n in range(1, num_rounds + 1) for m in CHOSEN_MOMENTS]
        while True:
            yield from self._rng.sample(moments, len(moments))

    def _live_and_tell(self, number: int, lives: Sequence[Life], first: Ended | None) -> Ended:
        run = self._folder / f"run{number}"
        begun = []
        for life in lives:
            begun.append(life)
            if self._live(run, life):
                break
        ended = ended_run(run)
        first = first or ended
        others = [n for n in first.files | ended.files if first.files.get(n) != ended.files.get(n)]
        difference = (ended.losses - first.losses).abs().max()
        self.num_faults += bool(others) or not ended.losses.index.equals(first.losses.index)
        devices = " ".join(str(life.devices) for life in begun)
        killed = "; ".join(str(life.death) for life in begun if life.death is not None)
        print(
            f"{number + 1:4}  {devices:8}  {killed or '-':62}  {len(others)} of"
            f" {len(ended.files)} files differ  {difference:.0e}",
            flush=True,
        )
        return ended

    def _live(self, run: Path, life: Life) -> bool:
        """Whether a command ended by itself."""
        settings = self._settings | {"resources.max_trials_per_pack": str(life.pack_size)}
        options = [word for item in settings.items() for word in ("--set", "=".join(item))]
        program = (__file__, "drive", json.dumps(asdict(life)))
        arguments = ["run", self._folder / "job.yaml", *options, "--run-folder", run]
        while _NO_RAY in (finished := self._command(arguments, program, life)).stderr:
            self.deaths["by a Ray that did not start in time"] += 1
        has_died = life.death is not None and finished.code == -signal.SIGKILL
        may_end = life.death is None or not life.death.number
        if has_died:
            self.deaths[life.death.moment] += 1
        elif finished.code or not may_end:
            self.num_faults += 1
            print(f"{run} ended with {finished.code}: {life}\n{finished.stderr}", flush=True)
        return not has_died

    def _command(self, arguments: Sequence[object], program: Sequence[str], life: Life) -> Finished:
        command = Command(self._home, *arguments, program=tuple(program), is_warm=True)
        try:
            command.process.communicate(life.death.seconds or None if life.death else None)
        except subprocess.TimeoutExpired:
            command.process.kill()
        command.kill()  # Ray's processes, which end by themselves some seconds after their driver
        return command.finish()


def ended_run(run: Path) -> Ended:
    """What a run has left."""
    folder = RunFolder.open(run)
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rounds.path.iterdir())
    }
    rows = folder.read_trials()
    return Ended(files, rows.set_index(["variant_id", "seed", "status", "epochs"])["val_loss"])


def main() -> int:
    if sys.argv[1:2] == ["drive"]:
        content = json.loads(sys.argv[2])
        death = content.pop("death")
        drive(Life(**content, death=death and Death(*death)), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=20, help="of each search")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and devices")
    parser.add_argument("--search", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    given = parser.parse_args()
    num_faults = 0
    with tempfile.TemporaryDirectory(prefix="rounds-") as folder:
        for search in given.search:
            print(f"{search}:\n run  devices   killed", flush=True)
            runs = Runs(search, Path(folder, search), Path(folder, "h"), random.Random(given.seed))
            runs.compare(given.runs)
            deaths = ", ".join(f"{count} {moment}" for moment, count in runs.deaths.items())
            print(
                f"  {given.runs} runs, killed: {deaths or '-'}; {runs.num_faults} faults",
                flush=True,
            )
            num_faults += runs.num_faults
    return bool(num_faults)


if __name__ == "__main__":
    sys.exit(main())
