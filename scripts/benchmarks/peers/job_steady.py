"""A job on one core: 32 trials with the engine that `auto` takes, and one `model.fit`.

    python scripts/benchmarks/peers/job_steady.py JOB [--trials 32] [--epochs N]

JOB is the name of a job in `jobs/`, whose search and whose seeds are left out.

Both are timed in their steady state: the programs are compiled, the train step of Keras is traced.
`model.fit` is called as a user calls it, with arrays, validation data and the job's batch size.
Prints one JSON line.
"""

import argparse
import json
import os
import time
from pathlib import Path

import one_core

core = one_core.pin()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from trialrun.data.load import load_splits  # noqa: E402
from trialrun.job import load_job  # noqa: E402
from trialrun.training.channel import Reports  # noqa: E402
from trialrun.training.model.initial import build_compiled  # noqa: E402
from trialrun.training.pack import choose_and_train  # noqa: E402
from trialrun.training.pack_data import load_pack_data  # noqa: E402
from trialrun.trials.packing import pack_trials  # noqa: E402
from trialrun.trials.plan import plan_trials  # noqa: E402
from trialrun.trials.task import PackTask  # noqa: E402

JOBS = Path(__file__).parents[3] / "jobs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, help="instead of the job's own")
    args = parser.parse_args()

    overrides = {"seeds": args.trials, "search.parameters": {}}
    if args.epochs:
        overrides["training.epochs"] = args.epochs
    job = load_job(JOBS / f"{args.job}.yaml", overrides)
    (pack,) = pack_trials(plan_trials(job.spec), num_devices=1, max_trials_per_pack=args.trials)
    task = PackTask(pack, job.folder, job.spec.select)
    data, _ = load_pack_data(pack.trials, job.folder)
    first_s, *_ = time_call(task, data)
    own_s, engine, reason = time_call(task, data)
    fit_s = time_fit(task)
    print(
        json.dumps(
            {
                "s_per_trial": own_s / args.trials,
                "fit_s_per_trial": fit_s,
                "compile_s": first_s - own_s,
                "engine": engine,
                "reason": reason,
                "trials": args.trials,
                "epochs": pack.trials[0].variant.training.epochs,
                "core": core,
            }
        )
    )


def time_call(task: PackTask, data) -> tuple[float, str, str]:
    """Seconds of training the pack, and the engine that trained it."""
    timings_s: dict[str, float] = {}
    training = choose_and_train(task, data, timings_s, Reports(lambda: False))
    while True:
        try:
            next(training)
        except StopIteration as end:
            engine, reason, _ = end.value
            return timings_s["train"], engine, reason


def time_fit(task: PackTask) -> float:
    """Seconds of `model.fit` of one trial, once its train step is traced."""
    trial = task.pack.trials[0]
    training = trial.variant.training
    splits = load_splits(trial.variant.data, task.job_folder, trial.seed)
    model = build_compiled(trial.variant, task.job_folder, splits, trial.seed)

    def fit(epochs: int) -> float:
        start = time.perf_counter()
        model.fit(
            *splits.part("train"),
            validation_data=splits.part("val"),
            batch_size=training.batch_size,
            epochs=epochs,
            verbose=0,
        )
        return time.perf_counter() - start

    fit(1)
    return fit(training.epochs)


if __name__ == "__main__":
    main()
