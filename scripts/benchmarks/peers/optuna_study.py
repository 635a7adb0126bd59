"""Peer: the reference job as a study of Optuna in one process, a `model.fit` per trial.

    python scripts/benchmarks/peers/optuna_study.py [--trials 4]

As in Optuna's example for Keras: the objective clears Keras's session, builds a model, trains it
and returns its validation loss. Each trial has a seed and data of its own. Prints one JSON line.
"""

import argparse
import json
import os
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import optuna
import reference_job
import reference_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    parser.add_argument("--trials", type=int, default=4)
    args = parser.parse_args()

    study = optuna.create_study(direction="minimize")
    start = time.perf_counter()
    study.optimize(lambda trial: objective(trial, args.epochs), n_trials=args.trials)
    study_s = time.perf_counter() - start
    ends = [trial.datetime_complete for trial in study.trials]
    print(
        json.dumps(
            {
                "s_per_trial": study_s / args.trials,
                "marginal_s_per_trial": (ends[-1] - ends[0]).total_seconds() / (args.trials - 1),
                "trials": args.trials,
                "epochs": args.epochs,
                "val_loss": study.best_value,
            }
        )
    )


def objective(trial: optuna.Trial, epochs: int) -> float:
    """The validation loss of the last epoch of one training."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(trial.number)
    (x, y), validation = reference_job.training_data(trial.number)
    learning_rate = trial.suggest_categorical("learning_rate", reference_job.LEARNING_RATES)
    model = reference_model.compiled_model(learning_rate)
    history = model.fit(
        x,
        y,
        validation_data=validation,
        batch_size=reference_job.BATCH_SIZE,
        epochs=epochs,
        verbose=0,
    ).history
    return history["val_loss"][-1]


if __name__ == "__main__":
    main()
