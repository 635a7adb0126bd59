"""Peer: the reference job in KerasTuner, variants x seeds in one process, a `model.fit` per trial.

    python scripts/benchmarks/peers/keras_tuner_search.py [--variants 2] [--seeds 2]

As its guide shows: a random search with `executions_per_trial`, which gives a variant's mean. All
trainings have the same data, because `search` takes it once. Prints one JSON line.
"""

import argparse
import json
import os
import tempfile
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import keras_tuner
import reference_job
import reference_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    parser.add_argument("--variants", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    starts: list[float] = []  # of each training; before them, KerasTuner builds a model for itself

    def build(hyperparameters: keras_tuner.HyperParameters) -> keras.Model:
        starts.append(time.perf_counter())
        rates = list(reference_job.LEARNING_RATES)
        return reference_model.compiled_model(hyperparameters.Choice("learning_rate", rates))

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            build,
            objective="val_loss",
            max_trials=args.variants,
            executions_per_trial=args.seeds,
            directory=folder,
        )
        (x, y), validation = reference_job.training_data(0)
        tuner.search(
            x,
            y,
            validation_data=validation,
            batch_size=reference_job.BATCH_SIZE,
            epochs=args.epochs,
            verbose=0,
        )
        end = time.perf_counter()
    _, first, second, *_ = starts
    num_trials = len(starts) - 1
    if num_trials != args.variants * args.seeds:
        raise RuntimeError(f"{num_trials} trainings, expected {args.variants} x {args.seeds}")
    print(
        json.dumps(
            {
                "s_per_trial": (end - first) / num_trials,
                "marginal_s_per_trial": (end - second) / (num_trials - 1),
                "trials": num_trials,
                "epochs": args.epochs,
                "val_loss": tuner.oracle.get_best_trials()[0].score,
            }
        )
    )


if __name__ == "__main__":
    main()
