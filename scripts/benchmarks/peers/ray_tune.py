"""Peer: the reference job in Ray Tune as people run it: one process and one GPU per trial.

    python scripts/benchmarks/peers/ray_tune.py [--trials 8]

The two GPUs are logical: they bound how many trials run at once, and each trial trains on CPU.
Ray's and TensorFlow's output goes to stderr. Prints one JSON line.
"""

import argparse
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import reference_job

NUM_GPUS = 2

# Set before Ray is imported, because Ray reads them then; the workers inherit them.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # the future default, which avoids a warning
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # otherwise Ray writes one to the user's home
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # otherwise Ray refuses logical GPUs
os.environ["PYTHONWARNINGS"] = "ignore"

import ray  # noqa: E402
from ray import tune  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    parser.add_argument("--trials", type=int, default=8)
    args = parser.parse_args()

    start = time.perf_counter()
    ray.init(num_gpus=NUM_GPUS, include_dashboard=False, log_to_driver=False)
    init_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        results, tune_s = run_trials(Path(folder), trials=args.trials, epochs=args.epochs)
    finished = sorted(result.metrics["finished_s"] for result in results)
    # The first NUM_GPUS trials, which run at once, also waited for Tune to start.
    later = finished[NUM_GPUS - 1 :]
    print(
        json.dumps(
            {
                "s_per_trial": tune_s / args.trials,
                "marginal_s_per_trial": (later[-1] - later[0]) / (len(later) - 1),
                "init_s": init_s,
                "trials": args.trials,
                "epochs": args.epochs,
                "processes": len({result.metrics["pid"] for result in results}),
                "val_accuracy": sum(r.metrics["val_accuracy"] for r in results) / len(results),
            }
        )
    )
    ray.shutdown()


def run_trials(folder: Path, *, trials: int, epochs: int) -> tuple[tune.ResultGrid, float]:
    """Results of all trials, and the seconds of the whole `fit`."""
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1, "gpu": 1}),
        param_space={"seed": tune.grid_search(list(range(trials))), "epochs": epochs},
        run_config=tune.RunConfig(name="medical_trial", storage_path=str(folder), verbose=0),
    )
    start = time.perf_counter()
    with contextlib.redirect_stdout(
        sys.stderr
    ):  # Tune prints a frame even if it is told to be quiet
        results = tuner.fit()
    seconds = time.perf_counter() - start
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} of {trials} trials failed") from results.errors[
            0
        ]
    return results, seconds


def train(config: dict[str, int]) -> None:
    """One trial, in its own process, which imports TensorFlow for itself."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray's GPUs are logical: the CPU computes

    import keras
    import reference_model
    from sklearn.metrics import confusion_matrix

    keras.utils.set_random_seed(config["seed"])
    (x, y), (x_val, y_val) = reference_job.training_data(config["seed"])
    model = reference_model.compiled_model(reference_job.LEARNING_RATE)
    history = model.fit(
        x,
        y,
        validation_data=(x_val, y_val),
        batch_size=reference_job.BATCH_SIZE,
        epochs=config["epochs"],
        verbose=0,
    ).history
    predictions = model.predict(x_val, verbose=0).argmax(axis=1)
    tune.report(
        {
            **{name: values[-1] for name, values in history.items()},
            "confusion_matrix": confusion_matrix(y_val, predictions).tolist(),
            "finished_s": time.time(),
        }
    )


if __name__ == "__main__":
    main()
