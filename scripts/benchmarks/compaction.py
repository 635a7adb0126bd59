"""Measures the time that is saved by making a pack narrower when most of its trials have stopped.

    scripts/compaction [--trials N] [--epochs N] [--stop-after N]

It trains the reference job with early stopping set such that three quarters of the trials stop
after `--stop-after` epochs and the others never do. It prints seconds of CPU time and of wall time
for the pack: with all rows kept, with narrower programs that must be compiled first, and with
narrower programs that are already compiled. One thread trains; CPU time includes the compiler's
threads.
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
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from training_jobs import make_task, train_with_fused

from trialrun.job import load_job
from trialrun.training.compiled import controlled
from trialrun.trials.plan import plan_trials
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Trial

_JOB = Path(__file__).resolve().parents[2] / "jobs" / "medical_trial.yaml"


def main() -> None:
    """Prints one line for each way of training the pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=128, help="trials of the pack")
    parser.add_argument("--epochs", type=int, default=300, help="epochs of the longest trials")
    parser.add_argument("--stop-after", type=int, default=5, help="epochs of the other trials")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = _task(Path(folder), options.trials, options.epochs, options.stop_after)
        with _never_narrower():
            train_with_fused(task)  # compiles
            _measure("all rows kept", lambda: train_with_fused(task))
        _measure("narrower, with compiling", lambda: train_with_fused(task))
        _measure("narrower, compiled before", lambda: train_with_fused(task))
        with _never_narrower():
            _measure("all rows kept, again", lambda: train_with_fused(task))


def _task(folder: Path, num_trials: int, num_epochs: int, stop_after: int) -> PackTask:
    """A pack in which no loss improves enough, so that each trial stops when its patience ends.

    Early stopping counts epochs after the first.
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
