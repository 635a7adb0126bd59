"""The command line with everything real but training, saved model and figures, which are made up.

Results are what seed and learning rate say, so that two runs can be compared to the last digit. A
pack takes half a second, in epochs, with checkpoints. A row's device is what CUDA is told of, or
the variable MADE_UP_DEVICE; its node is the process.
"""

import os
import platform
import resource
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from made_up_export import MadeUpExport

import trialrun.cluster
import trialrun.driver.run
import trialrun.report.figures
from trialrun.cli import main
from trialrun.errors import OutOfMemory
from trialrun.trials.results import Checkpoint, PackResult, Progress, TrialResult, TrialState

# Values of data.args.num_test_older_with, and what they bring about.
KILLS_ITS_WORKER, TOO_LARGE, RAISES, FILLS_MEMORY, FILLS_STORE, LARGE_CHECKPOINTS = range(7, 13)
ENDS_EARLY = 13
MAX_BYTES_TO_FILL = 6 << 30
BYTES_PER_TRIAL = 8 << 20
SECONDS_PER_EPOCH = float(os.environ.get("MADE_UP_SECONDS_PER_EPOCH", "0.1"))
MORE_LOSS = float(os.environ.get("MADE_UP_MORE_LOSS", "0"))
# A file that gets a line for each epoch of each pack that is trained.
EPOCHS_FILE = os.environ.get("MADE_UP_EPOCHS_FILE", os.devnull)


def train_made_up(
    task,
    device,
    should_stop,
    seconds_per_epoch=SECONDS_PER_EPOCH,
    more_loss=MORE_LOSS,
    epochs_file=EPOCHS_FILE,
):
    """Stands in for `training.pack.train_pack`."""
    trials = task.pack.trials
    num_epochs = trials[0].variant.training.epochs
    trouble = trials[0].variant.data.args.get("num_test_older_with")
    first = int(task.checkpoint.epochs[0]) if task.checkpoint else 0
    state = np.stack([[trial.seed, first] for trial in trials]).astype(np.float64)
    if task.checkpoint:
        state = task.checkpoint.trainable[0].copy()
    for epoch in range(first + 1, task.last_epoch + 1):
        if trouble == KILLS_ITS_WORKER and any(trial.seed == 1 for trial in trials):
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == TOO_LARGE and len(trials) > 3:
            raise OutOfMemory("GPU 0 is out of memory: RESOURCE_EXHAUSTED: 1 TiB")
        if trouble == RAISES and any(trial.seed == 1 for trial in trials):
            raise ZeroDivisionError("the layer of patient 1")
        if trouble == ENDS_EARLY and task.attempt == 0:
            return
        if trouble == FILLS_MEMORY and len(trials) > 2:
            fill_memory()
        with Path(epochs_file).open("a") as file:
            file.write(f"{trials[0].trial_id} {epoch}\n")
        time.sleep(seconds_per_epoch)
        state[:, 1] += 1
        yield Progress(task.pack.pack_id, epoch * len(trials), 0.5)
        yield Checkpoint(
            pack_id=task.pack.pack_id,
            trial_ids=tuple(trial.trial_id for trial in trials),
            epochs=np.full(len(trials), epoch),
            history={"loss": np.ones((len(trials), num_epochs), np.float32)},
            trainable=(state.copy(),),
            non_trainable=bulk(trials, trouble == LARGE_CHECKPOINTS and not task.checkpoint),
            optimizer=(),
        )
        if should_stop() and epoch < task.last_epoch:
            return
    results = [
        result_of(task, trial, row, more_loss) for trial, row in zip(trials, state, strict=True)
    ]
    if task.last_epoch < num_epochs:
        yield PackResult(task.pack.pack_id, tuple(map(paused, results)))
        return
    best = {}
    for result in sorted(results, key=lambda result: -result.metrics["val_loss"]):
        best[result.trial.variant.variant_id] = TrialState(
            result.trial.trial_id, result.trial.seed, (), (), (), np.zeros(1)
        )
    if trouble == FILLS_STORE:
        last = trials[-1].variant.variant_id
        best[last] = replace(best[last], non_trainable=bulk(trials, True))
    yield PackResult(task.pack.pack_id, tuple(results), best)


def paused(result):
    metrics = {name: value for name, value in result.metrics.items() if name != "test_loss"}
    return replace(result, status="paused", metrics=metrics)


def fill_memory():
    """Takes memory until the process is killed for it."""
    taken = [np.ones(1 << 27, np.uint8) for _ in range(MAX_BYTES_TO_FILL >> 27)]
    raise AssertionError(f"took {sum(map(len, taken))} bytes, and Ray did not mind")


def bulk(trials, is_wanted):
    """Arrays that are large for a small object store."""
    return (np.zeros((len(trials), BYTES_PER_TRIAL), np.uint8),) if is_wanted else ()


def result_of(task, trial, row, more_loss):
    seed, epochs = row
    loss = 1 / (1 + seed) + trial.variant.training.learning_rate + epochs / 1000 + more_loss
    names = ("train_loss", "val_loss", "test_loss")
    return TrialResult(
        trial=trial,
        status="completed",
        engine="fused",
        pack_id=task.pack.pack_id,
        attempt=task.attempt,
        epochs=int(epochs),
        device=os.environ.get("MADE_UP_DEVICE") or os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        node=f"{platform.node()}:{os.getpid()}",
        metrics=dict.fromkeys(names, float(loss)),
        history={
            name: np.linspace(1, loss, int(epochs), dtype=np.float32)
            for name in ("loss", "val_loss")
        },
    )


def make_up():
    """Puts what is made up into the places of what is real."""
    if not os.environ.get("MADE_UP_BUT_FOR_TRAINING"):
        real = trialrun.cluster.run_packs
        trialrun.cluster.run_packs = partial(real, train_pack=train_made_up)
    trialrun.cluster.embedded.num_local_cpus = lambda: 1  # Ray starts a process for each core
    trialrun.driver.run.ExportProcess = MadeUpExport
    trialrun.report.figures.draw_figures = lambda *_: ()


if __name__ == "__main__":  # so that workers get by value what is defined here
    if limit := os.environ.get("MADE_UP_MAX_FILE_BYTES"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    if seconds := os.environ.get("MADE_UP_WORTH_SPLITTING_S"):
        trialrun.cluster.tasks._WORTH_SPLITTING_S = float(seconds)
    if seconds := os.environ.get("MADE_UP_REACT_S"):
        trialrun.cluster.head._REACT_S = float(seconds)
    make_up()
    Path(sys.argv.pop(1)).write_text(str(os.getpid()))
    main()
