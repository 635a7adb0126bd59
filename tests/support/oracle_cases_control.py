"""Cases of the oracle's table in which trials stop early, change their rate or keep their best.

The same in the job's words and as Keras's callbacks.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import callbacks, layers, optimizers
from oracle_cases_training import RATE, TrainingCase, blobs

_EPOCHS = 8  # enough for some to stop


def unlucky(seed: int) -> dict[str, Any]:
    """A number per row; under an odd seed that of one row is too large to be squared."""
    parts = blobs(seed, target="quantity")
    x, y = parts["train"]
    if seed % 2:
        y[np.random.default_rng(seed).integers(len(y))] = 1e20
    return {**parts, "train": (x, y)}


def normalized_regressor() -> keras.Model:
    """Keeps averages that show how many batches it saw, whatever becomes of its weights."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(6, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.Activation("tanh"),
            layers.Dense(1),
        ]
    )


class HalvesTheRate(callbacks.Callback):
    """A callback of one's own."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Called by Keras."""
        self.model.optimizer.learning_rate.assign(RATE / 2**epoch)


def halves_the_rate() -> callbacks.Callback:
    """What a job refers to."""
    return HalvesTheRate()


class _KeepBest(callbacks.Callback):
    """The weights that `ModelCheckpoint(save_best_only=True)` would have in its file."""

    def on_train_begin(self, logs: Any = None) -> None:
        self._losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._losses.append(logs["val_loss"])
        if logs["val_loss"] == min(self._losses):
            self._best = self.model.get_weights()

    def on_train_end(self, logs: Any = None) -> None:
        self.model.set_weights(self._best)


def _controlled(
    training: dict[str, Any], *make: Callable[[], callbacks.Callback], rate: float = 0.1
) -> TrainingCase:
    return TrainingCase(
        {"epochs": _EPOCHS, "learning_rate": rate, **training},
        lambda: {
            "optimizer": optimizers.Adam(rate),
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
        },
        callbacks=lambda: [one() for one in make],
        kind="control",
    )


def _ended_by_nan(training: dict[str, Any], *make: Callable[[], callbacks.Callback]) -> Any:
    return TrainingCase(
        {"terminate_on_nan": True, "loss": "mse", "metrics": ["mae"], "epochs": 4, **training},
        lambda: {"optimizer": optimizers.Adam(RATE), "loss": "mse", "metrics": ["mae"]},
        __file__ + ":normalized_regressor",
        __file__ + ":unlucky",
        callbacks=lambda: [callbacks.TerminateOnNaN(), *(one() for one in make)],
        kind="control",
    )


_STOPPING = {"monitor": "val_loss", "patience": 1, "min_delta": 0.01}
_PLATEAU = {"monitor": "val_loss", "patience": 1, "factor": 0.5, "min_lr": 0.01, "min_delta": 0.01}

CONTROL_CASES: dict[str, TrainingCase] = {
    "early_stopping": _controlled(
        {"early_stopping": _STOPPING}, lambda: callbacks.EarlyStopping(**_STOPPING)
    ),
    "early_stopping_restored": _controlled(
        {"early_stopping": {**_STOPPING, "restore_best_weights": True}},
        lambda: callbacks.EarlyStopping(**_STOPPING, restore_best_weights=True),
    ),
    "early_stopping_baseline": _controlled(
        {"early_stopping": {**_STOPPING, "baseline": 0.5, "start_from_epoch": 2}},
        lambda: callbacks.EarlyStopping(**_STOPPING, baseline=0.5, start_from_epoch=2),
    ),
    "early_stopping_accuracy": _controlled(
        {"early_stopping": {"monitor": "accuracy", "patience": 0}},
        lambda: callbacks.EarlyStopping(monitor="accuracy", mode="max", patience=0),
    ),
    "early_stopping_averaged": TrainingCase(
        {
            "epochs": _EPOCHS,
            "early_stopping": _STOPPING,
            "optimizer": {"name": "adam", "use_ema": True, "ema_momentum": 0.9},
            "weighted_metrics": ["accuracy"],
        },
        lambda: {
            "optimizer": optimizers.Adam(RATE, use_ema=True, ema_momentum=0.9),
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
            "weighted_metrics": ["accuracy"],
        },
        "masked",
        "sequences",
        callbacks=lambda: [callbacks.EarlyStopping(**_STOPPING)],
        kind="control",
    ),
    "plateau": _controlled(
        {"reduce_lr_on_plateau": _PLATEAU}, lambda: callbacks.ReduceLROnPlateau(**_PLATEAU)
    ),
    "plateau_cooldown_and_stopping": _controlled(
        {
            "reduce_lr_on_plateau": {**_PLATEAU, "cooldown": 1},
            "early_stopping": {**_STOPPING, "patience": 3},
        },
        lambda: callbacks.EarlyStopping(**{**_STOPPING, "patience": 3}),
        lambda: callbacks.ReduceLROnPlateau(**_PLATEAU, cooldown=1),
    ),
    "keep_best": _controlled({"keep_best": "val_loss"}, _KeepBest),
    "terminate_on_nan": _ended_by_nan({}),
    "terminate_on_nan_early_stopping": _ended_by_nan(
        {"early_stopping": {"monitor": "val_loss", "patience": 0, "restore_best_weights": True}},
        lambda: callbacks.EarlyStopping("val_loss", patience=0, restore_best_weights=True),
    ),
    "own_callback": _controlled(
        {"callbacks": [__file__ + ":halves_the_rate"]}, HalvesTheRate
    )._replace(kind="callback", engine="keras"),
}
