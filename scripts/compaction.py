"""Measures what it saves that a pack becomes narrower when most of its trials have stopped early.

    scripts/compaction [--trials N] [--epochs N] [--stop-after N]

The reference job, with early stopping by which three quarters of the trials stop after so many
epochs and the others never do. Prints seconds of CPU and of wall time for the pack: with all rows
kept, with narrower programs that are compiled for it, and with those compiled before. One thread
trains; CPU time counts the compiler's threads too.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from training_jobs import make_task, train_with_fused

from trialrun.job import load_job
from trialrun.plan import Trial, plan_trials
from trialrun.training import PackTask, controlled

_JOB = Path(__file__).resolve().parents[1] / "jobs" / "medical_trial.yaml"


def main() -> None:
    """Prints a line per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--stop-after", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = _task(Path(folder), options.trials, options.epochs, options.stop_after)
        with _never_narrower():
            train_with_fused(task)  # compiles
            _measure("all rows are kept", lambda: train_with_fused(task))
        _measure("narrower, compiled for it", lambda: train_with_fused(task))
        _measure("narrower, compiled before", lambda: train_with_fused(task))
        with _never_narrower():
            _measure("all rows are kept, again", lambda: train_with_fused(task))


def _task(folder: Path, num_trials: int, num_epochs: int, stop_after: int) -> PackTask:
    """A pack in which no loss gets better by enough, so that a trial stops when its patience ends.

    Early stopping counts the epochs after the first.
    """
    long = range(0, num_trials, 4)
    short = [seed for seed in range(num_trials) if seed not in long]
    trials: list[Trial] = []
    for patience, seeds in ((num_epochs, long), (stop_after - 1, short)):
        overrides = {
            "seeds": list(seeds),
            "search": {"parameters": {}},
            "training.epochs": num_epochs,
            "training.early_stopping.patience": patience,
            "training.early_stopping.min_delta": 100.0,
        }
        trials += plan_trials(load_job(_JOB, overrides=overrides).spec)
    trials.sort(key=lambda trial: trial.seed)
    (folder / "job.yaml").write_text(_JOB.read_text())
    return make_task(folder, trials)


@contextmanager
def _never_narrower() -> Iterator[None]:
    with mock.patch.object(controlled, "is_worth_compiling", return_value=False):
        yield


def _measure(title: str, train: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    train()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{title:28}{cpu:7.1f} s CPU {wall:7.1f} s wall", flush=True)


if __name__ == "__main__":
    main()
