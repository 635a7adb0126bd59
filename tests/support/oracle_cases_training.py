"""The table of the oracle for what stands in `training`: the job's words, and plain Keras's.

Models and data are small and made here: the builders and generators of the cases' jobs.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, losses, metrics, optimizers
from keras.optimizers import schedules

# 44 rows in batches of 8: five whole ones and a partial one of 4.
BATCH_SIZE, EPOCHS, STEPS_PER_EPOCH = 8, 3, 6
RATE = 0.02
_NUM_ROWS = {"train": 44, "validation": 19, "test": 13}
_WHOLE_BATCHES = {"train": 40, "validation": 16, "test": 16}


class TrainingCase(NamedTuple):
    """One line of the table.

    Attributes:
        training: What stands in the job's `training`.
        compile: The same as keywords of `model.compile`; a function, as state is made anew.
        builder, generator: Functions of this module, or whole references to others.
        class_weight, callbacks: Of `model.fit`.
        is_built_first: Whether the optimizer is built before `fit`. ScheduleFreeAdamW starts its
            momentum at the weights only then; Keras 3.15's `fit` alone loses that assignment, and
            at a learning rate of 0 it wipes out the weights.
        kind: `optimizer`, `control`, ...
        engine: That `auto` must take.
        tolerance: Of weights and logs.
    """

    training: dict[str, Any]
    compile: Callable[[], dict[str, Any]]
    builder: str = "classifier"
    generator: str = "blobs"
    class_weight: dict[int, float] | None = None
    callbacks: Callable[[], Sequence[keras.callbacks.Callback]] = list
    is_built_first: bool = False
    kind: str = "training"
    engine: str = "fused"
    tolerance: float = 1e-5


# Data and models --------------------------------------------------------------------------------


def blobs(
    seed: int, *, target: str = "class", weighted: bool = False, are_whole: bool = False
) -> dict[str, Any]:
    """Three overlapping clouds in six dimensions."""
    rng = np.random.default_rng(seed)

    def part(num_rows: int) -> tuple[Any, ...]:
        labels = rng.integers(0, 3, num_rows)
        x = (rng.normal(size=(num_rows, 6)) + np.eye(3, 6)[labels] * 2).astype("float32")
        quantity = (x[:, :2].sum(1) + rng.normal(size=num_rows) * 0.1).astype("float32")
        y = {
            "class": labels,
            "one_hot": np.eye(3, dtype="float32")[labels],
            "binary": (labels > 0).astype("int32"),
            "quantity": quantity,
            "positive": np.exp(quantity / 4)[:, None],
            "both": {"kind": labels, "size": quantity},
            "steps": rng.integers(0, 3, (num_rows, 4)),
        }[target]
        if target == "steps":
            x = rng.integers(0, 3, (num_rows, 4)) * (
                np.arange(4) < rng.integers(1, 5, num_rows)[:, None]
            )
        return (x, y, rng.uniform(0.2, 3, num_rows)) if weighted else (x, y)

    num_rows = _WHOLE_BATCHES if are_whole else _NUM_ROWS
    return {name: part(num) for name, num in num_rows.items()}


def one_hot(seed: int) -> dict[str, Any]:
    """A column per class."""
    return blobs(seed, target="one_hot")


def binary(seed: int) -> dict[str, Any]:
    """Two classes."""
    return blobs(seed, target="binary")


def binary_in_whole_batches(seed: int) -> dict[str, Any]:
    """Two classes, and no batch with fewer rows than others."""
    return blobs(seed, target="binary", are_whole=True)


def quantities(seed: int) -> dict[str, Any]:
    """A number per row."""
    return blobs(seed, target="quantity")


def positive(seed: int) -> dict[str, Any]:
    """A number above 0 in a column."""
    return blobs(seed, target="positive")


def both(seed: int) -> dict[str, Any]:
    """A class and a number."""
    return blobs(seed, target="both")


def weighted(seed: int) -> dict[str, Any]:
    """Rows that count for more or less."""
    return blobs(seed, weighted=True)


def both_weighted(seed: int) -> dict[str, Any]:
    """The same for two outputs."""
    return blobs(seed, target="both", weighted=True)


def both_weighted_in_two_parts(seed: int) -> dict[str, Any]:
    """The same, where the rows to validate on are those to test on: one shape less to compile."""
    parts = both_weighted(seed)
    return {**parts, "test": parts["validation"]}


def sequences(seed: int) -> dict[str, Any]:
    """A class for each of four steps, some of them padded."""
    return blobs(seed, target="steps")


def sequences_in_whole_batches(seed: int) -> dict[str, Any]:
    """The same, and no batch with fewer rows than others."""
    return blobs(seed, target="steps", are_whole=True)


def _dense(outputs: int, activation: str | None = None) -> keras.Model:
    hidden = layers.Dense(6, activation="tanh")
    return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(outputs, activation)])


def classifier() -> keras.Model:
    """Three probabilities."""
    return _dense(3, "softmax")


def logits() -> keras.Model:
    """Three logits."""
    return _dense(3)


def one_probability() -> keras.Model:
    """One probability."""
    return _dense(1, "sigmoid")


def one_neuron() -> keras.Model:
    """One probability, of a matrix of weights and a bias."""
    return keras.Sequential([keras.Input((6,)), layers.Dense(1, "sigmoid")])


def regressor() -> keras.Model:
    """One number."""
    return _dense(1)


def positive_regressor() -> keras.Model:
    """One number above 0."""
    return _dense(1, "softplus")


def two_outputs() -> keras.Model:
    """A classifier and a regressor in one."""
    x = keras.Input((6,))
    hidden = layers.Dense(6, activation="tanh")(x)
    kind = layers.Dense(3, activation="softmax", name="kind")(hidden)
    return keras.Model(x, [kind, layers.Dense(1, name="size")(hidden)])


def masked() -> keras.Model:
    """An output for each step that is not padded."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Embedding(3, 4, mask_zero=True),
            layers.Dense(3, activation="softmax"),
        ]
    )


def penalized_outputs() -> keras.Model:
    """A layer adds to the loss what it computes of a batch."""
    hidden = layers.Dense(6, activation="tanh", activity_regularizer=keras.regularizers.L2(0.01))
    last = layers.Dense(3, activation="softmax")
    return keras.Sequential([keras.Input((6,)), hidden, last])


def half_precision() -> keras.Model:
    """Computes in float16."""
    policy = keras.DTypePolicy("mixed_float16")
    hidden = layers.Dense(6, activation="tanh", dtype=policy)
    last = layers.Dense(3, activation="softmax", dtype="float32")
    x = keras.Input((6,))
    return keras.Model(x, last(hidden(x)), dtype=policy)


# The table --------------------------------------------------------------------------------------

_SPARSE = "sparse_categorical_crossentropy"


def _optimizer(make: Callable[..., Any], name: str, **arguments: Any) -> TrainingCase:
    return TrainingCase(
        {"optimizer": {"name": name, **arguments}},
        lambda: {"optimizer": make(RATE, **arguments), "loss": _SPARSE, "metrics": ["accuracy"]},
        kind="optimizer",
    )


def _schedule(make: Callable[..., Any], name: str, **arguments: Any) -> TrainingCase:
    return TrainingCase(
        {"learning_rate_schedule": {"name": name, **arguments}},
        lambda: {
            "optimizer": optimizers.Adam(make(RATE, **arguments)),
            "loss": _SPARSE,
            "metrics": ["accuracy"],
        },
        kind="schedule",
    )


def _loss(
    name: str,
    make: Callable[..., Any],
    builder: str = "regressor",
    generator: str = "quantities",
    **arguments: Any,
) -> TrainingCase:
    return TrainingCase(
        {"loss": {"name": name, **arguments}, "metrics": []},
        lambda: {"optimizer": optimizers.Adam(RATE), "loss": make(**arguments), "metrics": []},
        builder,
        generator,
        kind="loss",
    )


def _metrics(
    in_job: list[Any],
    make: Callable[[], list[Any]],
    builder: str = "one_probability",
    generator: str = "binary",
    loss: str = "binary_crossentropy",
) -> TrainingCase:
    return TrainingCase(
        {"loss": loss, "metrics": in_job},
        lambda: {"optimizer": optimizers.Adam(RATE), "loss": loss, "metrics": make()},
        builder,
        generator,
        kind="metric",
    )


_TWO_LOSSES = {"kind": _SPARSE, "size": {"name": "huber", "delta": 0.5}}
_TWO_METRICS = {"kind": ["accuracy"], "size": ["mae", "r2_score"]}


def _two_outputs(generator: str) -> TrainingCase:
    return TrainingCase(
        {"loss": _TWO_LOSSES, "loss_weights": {"kind": 1.0, "size": 0.3}, "metrics": _TWO_METRICS},
        lambda: {
            "optimizer": optimizers.Adam(RATE),
            "loss": {"kind": _SPARSE, "size": losses.Huber(delta=0.5)},
            "loss_weights": {"kind": 1.0, "size": 0.3},
            "metrics": _TWO_METRICS,
        },
        "two_outputs",
        generator,
    )


_CURVES: list[Any] = [
    {"name": "auc", "num_thresholds": 20, "curve": "PR"},
    {"name": "AUC", "as": "roc", "num_thresholds": 30},
    {"name": "precision_at_recall", "recall": 0.7},
    {"name": "sensitivity_at_specificity", "specificity": 0.5, "num_thresholds": 30},
]


def _curves() -> list[Any]:
    return [
        metrics.AUC(num_thresholds=20, curve="PR", name="auc"),
        metrics.AUC(num_thresholds=30, name="roc"),
        metrics.PrecisionAtRecall(0.7, name="precision_at_recall"),
        metrics.SensitivityAtSpecificity(0.5, num_thresholds=30, name="sensitivity_at_specificity"),
    ]


def _plainly(**keywords: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"optimizer": optimizers.Adam(RATE), "loss": _SPARSE, **keywords}


TRAINING_CASES: dict[str, TrainingCase] = {
    "sgd": _optimizer(optimizers.SGD, "sgd"),
    "sgd_nesterov": _optimizer(optimizers.SGD, "sgd", momentum=0.9, nesterov=True),
    "adam_amsgrad": _optimizer(optimizers.Adam, "adam", amsgrad=True),
    "adamw": _optimizer(optimizers.AdamW, "adamw", weight_decay=0.05),
    "adamax": _optimizer(optimizers.Adamax, "adamax"),
    "nadam": _optimizer(optimizers.Nadam, "nadam"),
    "rmsprop": _optimizer(optimizers.RMSprop, "rmsprop", momentum=0.5, centered=True),
    "adagrad": _optimizer(optimizers.Adagrad, "adagrad"),
    "adadelta": _optimizer(optimizers.Adadelta, "adadelta", rho=0.9),
    "adafactor": _optimizer(optimizers.Adafactor, "adafactor", relative_step=False),
    "ftrl": _optimizer(optimizers.Ftrl, "ftrl", l1_regularization_strength=0.01),
    "lamb": _optimizer(optimizers.Lamb, "lamb"),
    "lion": _optimizer(optimizers.Lion, "lion"),
    "muon": _optimizer(optimizers.Muon, "muon"),
    "schedule_free": _optimizer(
        optimizers.ScheduleFreeAdamW, "schedulefreeadamw", warmup_steps=4
    )._replace(is_built_first=True, engine="keras"),
    "clipnorm": _optimizer(optimizers.Adam, "adam", clipnorm=0.1),
    "clipvalue": _optimizer(optimizers.Adam, "adam", clipvalue=0.01),
    "global_clipnorm": _optimizer(optimizers.SGD, "sgd", global_clipnorm=0.1),
    "weight_decay": _optimizer(optimizers.SGD, "sgd", weight_decay=0.05),
    "moving_average": _optimizer(optimizers.Adam, "adam", use_ema=True, ema_momentum=0.9),
    "moving_average_in_use": _optimizer(
        optimizers.Adam, "adam", use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4
    ),
    "accumulation": _optimizer(optimizers.Adam, "adam", gradient_accumulation_steps=4),
    "loss_scale": _optimizer(optimizers.SGD, "sgd", loss_scale_factor=128.0),
    "loss_scaling": TrainingCase(
        {
            "optimizer": {
                "name": "sgd",
                "loss_scaling": {"initial_scale": 1024.0, "dynamic_growth_steps": 5},
            }
        },
        lambda: {
            "optimizer": optimizers.LossScaleOptimizer(
                optimizers.SGD(RATE), initial_scale=1024.0, dynamic_growth_steps=5
            ),
            "loss": _SPARSE,
            "metrics": ["accuracy"],
        },
        kind="optimizer",
    ),
    # A float16 is rounded by 2^-11 of itself: see `_FLOAT16` in oracle_cases.
    "half_precision": TrainingCase(
        {"optimizer": "sgd", "metrics": []},
        lambda: {"optimizer": optimizers.SGD(RATE), "loss": _SPARSE},
        "half_precision",
        kind="precision",
        tolerance=2.0**-11,
    ),
    "cosine": _schedule(
        schedules.CosineDecay, "cosine_decay", decay_steps=12, warmup_target=0.05, warmup_steps=4
    ),
    "cosine_restarts": _schedule(
        schedules.CosineDecayRestarts, "cosine_decay_restarts", first_decay_steps=5
    ),
    "exponential": _schedule(
        schedules.ExponentialDecay, "exponential_decay", decay_steps=5, decay_rate=0.8
    ),
    "inverse_time": _schedule(
        schedules.InverseTimeDecay, "inverse_time_decay", decay_steps=4, decay_rate=0.5
    ),
    "polynomial": _schedule(
        schedules.PolynomialDecay, "polynomial_decay", decay_steps=12, power=2.0, cycle=True
    ),
    "piecewise": TrainingCase(
        {
            "learning_rate_schedule": {
                "name": "piecewise_constant_decay",
                "boundary_epochs": [1, 2.5],
                "values": [0.05, 0.02, 0.01],
            }
        },
        lambda: {
            "optimizer": optimizers.Adam(
                schedules.PiecewiseConstantDecay([6, 15], [0.05, 0.02, 0.01])
            ),
            "loss": _SPARSE,
            "metrics": ["accuracy"],
        },
        kind="schedule",
    ),
    "regression_defaults": TrainingCase(
        {"loss": "mse"},
        lambda: {
            "optimizer": optimizers.Adam(RATE),
            "loss": "mse",
            "metrics": ["mae", "r2_score"],
        },
        "regressor",
        "quantities",
    ),
    "huber": _loss("huber", losses.Huber, delta=0.3),
    "log_cosh": _loss("log_cosh", losses.LogCosh),
    "summed": _loss("mae", losses.MeanAbsoluteError, reduction="sum"),
    "poisson": _loss("poisson", losses.Poisson, "positive_regressor", "positive"),
    "msle": _loss("msle", losses.MeanSquaredLogarithmicError, "positive_regressor", "positive"),
    "label_smoothing": _loss(
        "categorical_crossentropy",
        losses.CategoricalCrossentropy,
        "logits",
        "one_hot",
        label_smoothing=0.1,
        from_logits=True,
    ),
    "focal": _loss(
        "categorical_focal_crossentropy",
        losses.CategoricalFocalCrossentropy,
        "classifier",
        "one_hot",
        gamma=3.0,
    ),
    "dice": _loss("dice", losses.Dice, "classifier", "one_hot"),
    "ignored_class": _loss(
        _SPARSE, losses.SparseCategoricalCrossentropy, "classifier", "blobs", ignore_class=1
    ),
    "curves": _metrics(_CURVES, _curves),
    "counts": _metrics(
        ["precision", "recall", "true_positives", {"name": "binary_accuracy", "threshold": 0.3}],
        lambda: [
            "precision",
            "recall",
            "true_positives",
            metrics.BinaryAccuracy(threshold=0.3, name="binary_accuracy"),
        ],
    ),
    "many_classes": _metrics(
        [
            {"name": "f1_score", "average": "macro"},
            {"name": "top_k_categorical_accuracy", "k": 2, "as": "top_2"},
        ],
        lambda: [
            metrics.F1Score(average="macro", name="f1_score"),
            metrics.TopKCategoricalAccuracy(k=2, name="top_2"),
        ],
        "classifier",
        "one_hot",
        "categorical_crossentropy",
    ),
    "intersections": _metrics(
        [{"name": "one_hot_mean_io_u", "num_classes": 3}],
        lambda: [metrics.OneHotMeanIoU(num_classes=3, name="one_hot_mean_io_u")],
        "classifier",
        "one_hot",
        "categorical_crossentropy",
    ),
    "errors": _metrics(
        ["root_mean_squared_error", "mape", "r2_score", "log_cosh_error"],
        lambda: ["root_mean_squared_error", "mape", "r2_score", "log_cosh_error"],
        "positive_regressor",
        "positive",
        "mse",
    ),
    "class_weight": TrainingCase(
        {
            "class_weight": {"0": 0.5, "2": 3.0},
            "metrics": ["accuracy"],
            "weighted_metrics": ["accuracy", _SPARSE],
        },
        _plainly(metrics=["accuracy"], weighted_metrics=["accuracy", _SPARSE]),
        class_weight={0: 0.5, 2: 3.0},
    ),
    "sample_weight": TrainingCase(
        {"weighted_metrics": ["accuracy", {"name": _SPARSE, "as": "weighted_loss"}]},
        lambda: {  # a metric keeps state: it is made anew for each model
            "optimizer": optimizers.Adam(RATE),
            "loss": _SPARSE,
            "metrics": ["accuracy"],
            "weighted_metrics": [
                "accuracy",
                metrics.SparseCategoricalCrossentropy("weighted_loss"),
            ],
        },
        generator="weighted",
    ),
    "class_and_sample_weight": TrainingCase(
        {"class_weight": {"0": 0.5, "2": 3.0}, "weighted_metrics": ["accuracy"]},
        _plainly(metrics=["accuracy"], weighted_metrics=["accuracy"]),
        generator="weighted",
        class_weight={0: 0.5, 2: 3.0},
    ),
    "two_outputs": _two_outputs("both"),
    "two_outputs_weighted": _two_outputs("both_weighted"),
    "masked_outputs": TrainingCase(
        {"weighted_metrics": [_SPARSE]},
        _plainly(metrics=["accuracy"], weighted_metrics=[_SPARSE]),
        "masked",
        "sequences",
    ),
    # What may be combined, in one program.
    "many_at_once": TrainingCase(
        {
            "loss": "binary_crossentropy",
            "metrics": _CURVES,
            "weighted_metrics": ["accuracy"],
            "class_weight": {"0": 0.5, "1": 2.0},
            "optimizer": {"name": "muon", "gradient_accumulation_steps": 4},
        },
        lambda: {
            "optimizer": optimizers.Muon(RATE, gradient_accumulation_steps=4),
            "loss": "binary_crossentropy",
            "metrics": _curves(),
            "weighted_metrics": ["accuracy"],
        },
        "one_probability",
        "binary_in_whole_batches",
        class_weight={0: 0.5, 1: 2.0},
    ),
    "added_loss": TrainingCase({}, _plainly(metrics=["accuracy"]), "penalized_outputs"),
}
