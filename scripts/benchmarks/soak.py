"""Breaks runs at random moments, resumes them, and compares them with undisturbed ones.

    scripts/soak [--minutes N] [--kills N] [--seed N]

For `--minutes` it makes real runs on embedded Ray. At a random moment their driver or a worker is
killed (-9), or the driver is told to stop (by signals, `trialrun stop` or `--max-time`), again and
again until `trialrun resume` succeeds. Then the trials must be those of an undisturbed run. After
that it starts `--kills` drivers of made-up runs on a Ray of two nodes, and kills each at a random
moment. There must be no torn file and no trial twice, and after one resume the result must be
complete. It prints counts, and exits with 1 if anything was lost.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import pandas as pd  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from commands import beneath  # noqa: E402
from durable_runs import DurableRun  # noqa: E402
from ray_nodes import RayNodes  # noqa: E402

from trialrun import open_run  # noqa: E402

JOB = ROOT / "jobs" / "medical_trial.yaml"
OVERRIDES = {
    "seeds": "12",
    "training.epochs": "60",
    "training.checkpoint_every": "6",
    "resources.max_trials_per_pack": "6",
    "resources.grace_s": "5",
}
METRICS = ["train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]
_KILLED_BENEATH = {"kill worker": b"ray::_train", "kill raylet": b"/raylet/raylet"}
_SIGNALS = ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"]
_FAULTS = ["kill driver", *_KILLED_BENEATH, *_SIGNALS, "stop", "--max-time"]
TOLERANCE = 1e-4  # of a metric, between packs of different sizes


class Soak:
    """Counts what was tried, and what went wrong."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def real_runs(self, minutes: float) -> None:
        """Makes real runs for some minutes, and breaks each until it completes."""
        deadline = time.monotonic() + 60 * minutes
        began = time.monotonic()
        runs_dir = self.folder / "undisturbed"
        options = [word for item in OVERRIDES.items() for word in ("--set", "=".join(item))]
        command = ["run", str(JOB), *options, "--runs-dir"]
        code = self._trialrun([*command, str(runs_dir)]).wait()
        seconds = time.monotonic() - began
        [expected] = runs_dir.glob("*/*")
        self._note(code == 0, f"the undisturbed run ended with {code}")
        while time.monotonic() < deadline:
            self.counts["real runs"] += 1
            runs_dir = self.folder / f"run{self.counts['real runs']}"
            arguments = [*command, str(runs_dir)]
            while self._begin_and_break(arguments, runs_dir, 1.2 * seconds):
                if found := list(runs_dir.glob("*/*/job.yaml")):
                    self.counts["resumes"] += 1
                    arguments = ["resume", str(found[0].parent)]
            [job] = runs_dir.glob("*/*/job.yaml")
            self._compare(job.parent, expected)

    def _begin_and_break(self, arguments: list[str], runs_dir: Path, most_s: float) -> int:
        """The exit code of a command, to which one fault happens within some seconds.

        It is one of those that have happened least, because many commands end before theirs.
        """
        fewest = min(self.counts[fault] for fault in _FAULTS)
        how = self.rng.choice([fault for fault in _FAULTS if self.counts[fault] == fewest])
        delay_s = self.rng.uniform(0, most_s)
        if how == "--max-time":
            arguments = [*arguments, how, f"{max(1, round(delay_s))}s"]
        process = self._trialrun(arguments)
        if how != "--max-time":
            self._break(process, how, delay_s, runs_dir)
        code = process.wait()
        if how == "--max-time" and code:
            self.counts[how] += 1
            self._note(code == 75, f"{runs_dir}: {how} ended it with {code}")
        return code

    def _trialrun(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        log = (self.folder / "soak.log").open("ab")
        return subprocess.Popen(
            [sys.executable, "-m", "trialrun", *arguments], cwd=ROOT, stdout=log, stderr=log
        )

    def _break(
        self, process: subprocess.Popen[bytes], how: str, delay_s: float, runs_dir: Path
    ) -> None:
        """Kills the driver or a worker, or has the run end, unless it ends before."""
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            self.counts[how] += 1
            if how == "kill driver":
                process.kill()
            elif how in _KILLED_BENEATH:
                for pid in beneath(process.pid, _KILLED_BENEATH[how])[:1]:
                    os.kill(pid, signal.SIGKILL)
            elif how == "stop":
                for job in runs_dir.glob("*/*/job.yaml"):
                    self._trialrun(["stop", str(job.parent)]).wait()
            else:
                process.send_signal(getattr(signal, how))

    def _compare(self, folder: Path, expected: Path) -> None:
        """Checks that every trial is there once, with the numbers of the undisturbed run."""
        tables = [pq.read_table(file).to_pandas() for file in (folder / "trials").iterdir()]
        recorded = pd.concat(tables)
        finished = recorded.loc[recorded["status"] != "failed", "trial_id"]
        self._note(finished.is_unique, f"{folder}: a trial is there twice")
        ours, theirs = open_run(folder).trials, open_run(expected).trials
        same = list(ours["trial_id"]) == list(theirs["trial_id"])
        self._note(same, f"{folder}: has other trials than {expected}")
        worst = (ours[METRICS] - theirs[METRICS]).abs().to_numpy().max()
        self._note(worst <= TOLERANCE, f"{folder}: metrics differ by {worst:.2g}")
        winner = open_run(folder).best.trial_id == open_run(expected).best.trial_id
        self._note(winner, f"{folder}: has another winner")
        self.counts["trials compared"] += len(ours)

    def kills(self, number: int) -> None:
        """Makes made-up runs and kills the driver of each once at a random moment."""
        with RayNodes() as nodes:
            for index in range(number):
                run = DurableRun(self.folder / f"kill{index}")
                command = run.begin(nodes.address)
                time.sleep(self.rng.uniform(1.5, 6.0))
                command.process.kill()
                command.finish()
                self.counts["drivers killed"] += 1
                if not list((run.home / "runs").glob("*/*/job.yaml")):
                    self.counts["... before there was a run"] += 1
                    continue
                self.counts["... folders looked at"] += 1
                for file in run.folder.glob("*/part-*.parquet"):
                    pq.read_table(file)
                if (run.folder / "summary.json").exists():
                    self.counts["... of runs that had ended"] += 1
                finished = run.resume(nodes.address).finish()
                self._note(finished.code == 0, f"{run.folder}: {finished}")
                try:
                    run.assert_whole()
                except AssertionError as error:
                    self._note(False, f"{run.folder}: {error}")

    def _note(self, is_good: Any, problem: str) -> None:
        self.counts["checks"] += 1
        if not is_good:
            self.problems.append(problem)
            print(f"LOST: {problem}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long to break real runs")
    parser.add_argument("--kills", type=int, default=50, help="drivers of made-up runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and faults")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(args.seed, Path(folder))
        soak.real_runs(args.minutes)
        soak.kills(args.kills)
    for name, count in soak.counts.items():
        print(f"{count:6} {name}")
    print(f"{len(soak.problems):6} lost")
    return bool(soak.problems)


if __name__ == "__main__":
    sys.exit(main())
