"""Peer: one plain `model.fit` script of the reference job, as a user writes it.

    python scripts/benchmarks/peers/keras_fit.py [--compiled]

`--compiled` adds what Keras offers for speed: `jit_compile` and an epoch per execution.
Prints one JSON line: seconds of the script with its imports, of what a loop over trials would
repeat (data, build, fit, evaluate, predict), and of `fit` alone.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

script_start = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from sklearn.metrics import confusion_matrix  # noqa: E402
from sklearn.preprocessing import MinMaxScaler  # noqa: E402

import_s = time.perf_counter() - script_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    epochs = args.epochs
    steps = 189  # 1,890 rows in batches of 10
    options = {"jit_compile": True, "steps_per_execution": steps} if args.compiled else {}

    trial_start = time.perf_counter()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    train_ages, train_labels = drug_trial(rng, exceptions=50, regulars=1000)
    test_ages, test_labels = drug_trial(rng, exceptions=10, regulars=200)
    scaler = MinMaxScaler().fit(train_ages)
    x_train, x_test = scaler.transform(train_ages), scaler.transform(test_ages)

    model = keras.Sequential(
        [
            keras.layers.Input((1,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=1e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **options,
    )
    fit_start = time.perf_counter()
    history = model.fit(
        x_train, train_labels, validation_split=0.1, batch_size=10, epochs=epochs, verbose=0
    ).history
    fit_s = time.perf_counter() - fit_start

    test_loss, test_accuracy = model.evaluate(x_test, test_labels, batch_size=10, verbose=0)
    predictions = model.predict(x_test, batch_size=10, verbose=0).argmax(axis=1)
    matrix = confusion_matrix(test_labels, predictions)
    trial_s = time.perf_counter() - trial_start

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "medical_trial_model.h5")

    print(
        json.dumps(
            {
                "script_s": time.perf_counter() - script_start,
                "import_s": import_s,
                "s_per_trial": trial_s,
                "fit_s": fit_s,
                "epochs": epochs,
                "loss": history["loss"][-1],
                "val_accuracy": history["val_accuracy"][-1],
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "confusion_matrix": matrix.tolist(),
            }
        )
    )


def drug_trial(rng: np.random.Generator, *, exceptions: int, regulars: int):
    """Shuffled ages (rows, 1) and labels (rows,): 1 = had side effects, mostly the older."""
    ages = np.concatenate(
        [
            rng.integers(13, 65, exceptions),
            rng.integers(65, 101, exceptions),
            rng.integers(13, 65, regulars),
            rng.integers(65, 101, regulars),
        ]
    )
    labels = np.repeat([1, 0, 0, 1], [exceptions, exceptions, regulars, regulars])
    order = rng.permutation(len(ages))
    return ages[order].reshape(-1, 1), labels[order]


if __name__ == "__main__":
    main()
