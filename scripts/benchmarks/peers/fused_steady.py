"""trialrun's fused engine in its steady state: the reference job on one core, without compiling.

    python scripts/benchmarks/peers/fused_steady.py [--trials 64] [--repeats 3]

The first call of `train_compiled` traces and compiles; the next ones reuse the program, as packs of
one run do. A timed call does everything that trialrun does for a pack of loaded data: initial
weights, a permutation per epoch and trial, training, training and validation logs per epoch, and at
the end the evaluation on the test set. `jax_vmap.py` does the same work without that evaluation,
and with permutations that are made beforehand. Prints one JSON line.
"""

import argparse
import json
import os
import time
from pathlib import Path

import one_core

core = one_core.pin()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402
import reference_job  # noqa: E402

from trialrun.job import load_job  # noqa: E402
from trialrun.training.channel import Reports  # noqa: E402
from trialrun.training.compiled.train import train_compiled  # noqa: E402
from trialrun.training.engine_outputs import TrainedTrial  # noqa: E402
from trialrun.training.pack_data import PackData, load_pack_data  # noqa: E402
from trialrun.trials.packing import pack_trials  # noqa: E402
from trialrun.trials.plan import plan_trials  # noqa: E402
from trialrun.trials.task import PackTask  # noqa: E402

JOB = Path(__file__).parents[3] / "jobs" / "medical_trial.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    task = make_task(args.trials, args.epochs)
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    _, _, first_s = time_call(task, data)
    outcomes, core_s, wall_s = zip(
        *(time_call(task, data) for _ in range(args.repeats)), strict=True
    )
    print(
        json.dumps(
            {
                "s_per_trial": min(core_s) / args.trials,
                "median_s_per_trial": float(np.median(core_s)) / args.trials,
                "wall_s_per_trial": min(wall_s) / args.trials,
                "compile_s": first_s - min(wall_s),
                "trials": args.trials,
                "epochs": args.epochs,
                "core": core,
                **mean_of_last_epoch(outcomes[0]),
            }
        )
    )


def make_task(trials: int, epochs: int) -> PackTask:
    """One pack of the reference job's first learning rate."""
    overrides = {
        "seeds": trials,
        "training.epochs": epochs,
        "training.engine": "fused",
        "search.parameters.training.learning_rate.values": [reference_job.LEARNING_RATE],
    }
    job = load_job(JOB, overrides)
    (pack,) = pack_trials(plan_trials(job.spec), num_devices=1, max_trials_per_pack=trials)
    return PackTask(pack, job.folder, job.spec.select)


def time_call(task: PackTask, data: PackData) -> tuple[list[TrainedTrial], float, float]:
    """The trained trials, and the core-seconds and wall seconds of training them."""
    wall, cpu = time.perf_counter(), time.process_time()
    training = train_compiled(task, data, "fused", {}, Reports(lambda: False))
    while True:
        try:
            next(training)
        except StopIteration as end:
            return end.value, time.process_time() - cpu, time.perf_counter() - wall


def mean_of_last_epoch(trials: list[TrainedTrial]) -> dict[str, float]:
    """Mean over trials of each log at the last epoch."""
    return {
        name: float(np.mean([trial.history[name][-1] for trial in trials]))
        for name in trials[0].history
    }


if __name__ == "__main__":
    main()
