"""Peer: scikit-learn's MLPClassifier on the reference job, one trial after another on one core.

    python scripts/benchmarks/peers/sklearn_mlp.py

It logs no validation per epoch, and so does a little less work than the others.
Prints one JSON line.
"""

import argparse
import json
import time
import warnings

import one_core

core = one_core.pin()

import numpy as np  # noqa: E402
import reference_job  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    parser.add_argument("--trials", type=int, default=3)
    args = parser.parse_args()

    # The job has 30 epochs, whether the training has converged or not.
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(1):
        trials = [train(seed, args.epochs) for seed in range(args.trials)]
    core_s = [seconds for seconds, _, _ in trials]
    print(
        json.dumps(
            {
                "s_per_trial": min(core_s),
                "median_s_per_trial": float(np.median(core_s)),
                "trials": args.trials,
                "epochs": args.epochs,
                "core": core,
                "loss": float(np.mean([loss for _, loss, _ in trials])),
                "val_accuracy": float(np.mean([accuracy for _, _, accuracy in trials])),
            }
        )
    )


def train(seed: int, epochs: int) -> tuple[float, float, float]:
    """Core-seconds of one training, its last training loss and its validation accuracy."""
    (x, y), (x_val, y_val) = reference_job.training_data(seed)
    model = MLPClassifier(
        hidden_layer_sizes=reference_job.LAYER_SIZES[1:-1],
        solver="adam",
        alpha=0,
        batch_size=reference_job.BATCH_SIZE,
        learning_rate_init=reference_job.LEARNING_RATE,
        max_iter=epochs,
        tol=0,
        n_iter_no_change=epochs + 1,
        random_state=seed,
    )
    start = time.process_time()
    model.fit(x, y)
    return time.process_time() - start, float(model.loss_), float(model.score(x_val, y_val))


if __name__ == "__main__":
    main()
