"""Cases of the oracle's table with metrics of one's own, and with Keras's that compare rows.

`build` and `data` are a job's builder and generator.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import oracle_cases_control
import tensorflow as tf
from keras import callbacks, layers, losses, metrics, ops, optimizers
from oracle_cases import Case
from oracle_cases_training import RATE, TrainingCase

_NUM_ROWS = {"train": 44, "validation": 19, "test": 5}  # the last batches are partial
_NUM_FEATURES, _NUM_CLASSES = 6, 3


def build(case: str) -> keras.Model:
    """The compiled model of a case: a job's builder."""
    return METRIC_CASES[case].build()


def data(seed: int, *, case: str) -> dict[str, Any]:
    """The data of a case: a job's generator."""
    rng, kind = np.random.default_rng(seed), METRIC_CASES[case].data

    def part(num_rows: int) -> Any:
        x = rng.normal(size=(num_rows, _NUM_FEATURES)).astype("float32")
        labels = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0.5)
        y = np.eye(_NUM_CLASSES, dtype="float32")[labels]
        if kind == "two":
            return x, {"a": y, "b": x[:, :2] + rng.normal(size=(num_rows, 2)).astype("float32")}
        if kind == "steps":
            steps = rng.integers(1, 9, (num_rows, 4))
            steps[:, 2:] *= rng.integers(0, 2, (num_rows, 1))  # 0 pads some rows
            return steps.astype("int32"), (steps % _NUM_CLASSES).astype("int32")
        weights = rng.uniform(0.2, 2.0, num_rows).astype("float32")
        return (x, y, weights) if kind == "weighted" else (x, y)

    return {name: part(num_rows) for name, num_rows in _NUM_ROWS.items()}


# Metrics ----------------------------------------------------------------------------------------


class UpOrDown(metrics.Metric):
    """Assigns in branches, which needs a conditional of a function that Keras makes for `fit`."""

    def __init__(self, name: str = "up_or_down", **given: Any) -> None:
        super().__init__(name=name, **given)
        self.height = self.add_weight(shape=(), initializer="zeros", name="height")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        is_high = ops.mean(y_pred[:, 0]) > 0.33
        ops.cond(is_high, lambda: self.height.assign_add(1.0), lambda: self.height.assign_sub(0.5))

    def result(self) -> Any:
        return self.height + 0.0


class Recall(metrics.Metric):
    """Of each class, and their mean; sums over rows."""

    def __init__(self, name: str = "mean_recall", **given: Any) -> None:
        super().__init__(name=name, **given)
        self.hits = self.add_weight(shape=(_NUM_CLASSES,), initializer="zeros", name="hits")
        self.counts = self.add_weight(shape=(_NUM_CLASSES,), initializer="zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        found = ops.one_hot(ops.argmax(y_pred, -1), _NUM_CLASSES) * y_true
        if sample_weight is not None:
            weight = ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
            found, y_true = found * weight, y_true * weight
        self.hits.assign_add(ops.sum(found, 0))
        self.counts.assign_add(ops.sum(y_true, 0))

    def result(self) -> Any:
        return ops.mean(self.hits / ops.maximum(self.counts, 1))


class AtThresholds(metrics.Metric):
    """Counts for an array of thresholds, as whole numbers; the worst of them is the result."""

    def __init__(self, thresholds: Any = (0.2, 0.4, 0.6), name: str = "worst_threshold") -> None:
        super().__init__(name=name)
        self.thresholds = np.asarray(thresholds, "float32")
        self.right = self.add_variable((len(thresholds),), "zeros", dtype="int32", name="right")
        self.seen = self.add_variable((), "zeros", dtype="int32", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        over = ops.cast(y_pred[:, :1] > self.thresholds, "float32")
        right = ops.equal(over, y_true[:, :1])
        self.right.assign_add(ops.sum(ops.cast(right, "int32"), 0))
        self.seen.assign_add(ops.shape(y_true)[0])

    def result(self) -> Any:
        return ops.min(ops.cast(self.right, "float32")) / ops.cast(self.seen, "float32")


class WorstBatch(metrics.Metric):
    """The largest error of a batch, and how many batches there were: no sum over rows."""

    def __init__(self, name: str = "worst_batch") -> None:
        super().__init__(name=name)
        self.worst = self.add_weight(shape=(), initializer="zeros", name="worst")
        self.batches = self.add_weight(shape=(), initializer="zeros", name="batches")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.worst.assign(ops.maximum(self.worst, ops.mean(ops.abs(y_true - y_pred))))
        self.batches.assign_add(1)

    def result(self) -> Any:
        return self.worst + self.batches


class WithChance(WorstBatch):
    """The same with numbers of a constant seed."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        chances = keras.random.uniform(ops.shape(y_pred), seed=3)
        super().update_state(y_true, y_pred * chances)


class KeepsBest(metrics.Metric):
    """The best accuracy of all epochs and evaluations until now: `reset_state` keeps it."""

    def __init__(self, name: str = "best_until_now") -> None:
        super().__init__(name=name)
        self.best = self.add_weight(shape=(), initializer="zeros", name="best")
        self.accuracy = metrics.CategoricalAccuracy()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.accuracy.update_state(y_true, y_pred)

    def reset_state(self) -> None:
        self.best.assign(ops.maximum(self.best * 0.9, self.accuracy.result()))
        self.accuracy.reset_state()

    def result(self) -> Any:
        return ops.maximum(self.best, self.accuracy.result())


class Largest(metrics.Metric):
    """The largest mean output of a batch; `reset_state` keeps a part of it."""

    def __init__(self, name: str = "largest") -> None:
        super().__init__(name=name)
        self.largest = self.add_weight(shape=(), initializer="zeros", name="largest")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        weight = 1.0 if sample_weight is None else ops.reshape(sample_weight, (-1, 1))
        self.largest.assign(ops.maximum(self.largest, ops.mean(y_pred * weight)))

    def reset_state(self) -> None:
        self.largest.assign(self.largest * 0.9)

    def result(self) -> Any:
        return 2 * self.largest


class Several(metrics.Metric):
    """A dict of results, of metrics in a list and in a dict."""

    def __init__(self, name: str = "several") -> None:
        super().__init__(name=name)
        self.parts = [metrics.Precision(), metrics.Recall(thresholds=0.4)]
        self.more = {"iou": metrics.Mean()}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        for part in self.parts:
            part.update_state(y_true, y_pred, sample_weight)
        self.more["iou"].update_state(ops.sum(y_true * y_pred, -1), sample_weight)

    def result(self) -> Any:
        precision, recall = (part.result() for part in self.parts)
        f1 = 2 * precision * recall / (precision + recall + 1e-7)
        return {"own_precision": precision, "own_f1": f1, "own_iou": self.more["iou"].result()}


class Seen(metrics.Metric):
    """Its result is its variable: Keras logs for an epoch what that is after the evaluation."""

    def __init__(self, name: str = "seen") -> None:
        super().__init__(name=name)
        self.rows = self.add_weight(shape=(), initializer="zeros", name="rows")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.rows.assign_add(ops.cast(ops.shape(y_true)[0], "float32"))

    def result(self) -> Any:
        return self.rows


class Argmax(metrics.MeanIoU):
    """What people write to have it for classes."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(ops.argmax(y_true, -1), ops.argmax(y_pred, -1), sample_weight)


class Smallest(metrics.Metric):
    """The three smallest errors of each batch, averaged: sorts."""

    def __init__(self, name: str = "smallest_errors") -> None:
        super().__init__(name=name)
        self.mean = metrics.Mean()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        errors = ops.sort(ops.mean(ops.abs(y_true - y_pred), -1))
        self.mean.update_state(ops.mean(errors[:3]))

    def result(self) -> Any:
        return self.mean.result()


class OnlyInTensorFlow(metrics.Metric):
    """Its state is a variable that Keras does not know and never resets."""

    def __init__(self, name: str = "all_rows") -> None:
        super().__init__(name=name)
        self.rows = tf.Variable(0.0)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.rows.assign_add(tf.cast(tf.shape(y_true)[0], tf.float32))

    def result(self) -> Any:
        return self.rows / 10


class CountsInPython(WorstBatch):
    """Counts its epochs and evaluations in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.resets = 0

    def reset_state(self) -> None:
        self.resets += 1
        super().reset_state()

    def result(self) -> Any:
        return self.worst * self.resets


class OfSome(WorstBatch):
    """Leaves rows out, so that sizes depend on values."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        kept = tf.boolean_mask(y_pred, y_true[:, 0] > 0)
        self.worst.assign_add(tf.reduce_sum(tf.math.square(kept)))


class Checks(WorstBatch):
    """Checks what it is given; a program would leave that out."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        tf.debugging.assert_less_equal(y_pred, 1.5)
        super().update_state(y_true, y_pred)


class CountsResults(WorstBatch):
    """Counts how often it is asked."""

    def result(self) -> Any:
        self.batches.assign_add(1)
        return self.worst + self.batches


def of_rows(y_true: Any, y_pred: Any) -> Any:
    """A number for each row."""
    return ops.sum(ops.abs(y_true - y_pred), -1)


def of_a_batch(y_true: Any, y_pred: Any) -> Any:
    """One number: Keras averages over batches, however many rows they have."""
    return ops.sqrt(ops.mean(ops.square(y_true - y_pred)))


def of_steps(y_true: Any, y_pred: Any) -> Any:
    """A number for each step in time."""
    return ops.cast(ops.equal(y_true, ops.cast(ops.argmax(y_pred, -1), y_true.dtype)), "float32")


def to_a_power(y_true: Any, y_pred: Any, power: float) -> Any:
    """Takes an argument."""
    return ops.mean(ops.abs(y_true - y_pred) ** power)


def in_numpy(y_true: Any, y_pred: Any) -> Any:
    """What people write with scikit-learn."""

    def score(a: Any, b: Any) -> Any:
        return np.float32((a.argmax(-1) == b.argmax(-1)).mean())

    return tf.reshape(tf.numpy_function(score, [y_true, y_pred], tf.float32), ())


def _rate_of(optimizer: keras.optimizers.Optimizer) -> Callable[[Any, Any], Any]:
    """A metric that shows the learning rate, as many log it."""

    def learning_rate(y_true: Any, y_pred: Any) -> Any:
        return optimizer.learning_rate

    return learning_rate


# Models -----------------------------------------------------------------------------------------


def _net() -> keras.Model:
    hidden = [layers.Dense(8, "tanh"), layers.Dropout(0.2)]
    last = layers.Dense(_NUM_CLASSES, "softmax")
    return keras.Sequential([keras.Input((_NUM_FEATURES,)), *hidden, last])


def _compiled(*given: Any, **compiled: Any) -> keras.Model:
    model = _net()
    compiled = {"optimizer": optimizers.Adam(0.01), "metrics": list(given), **compiled}
    model.compile(loss="categorical_crossentropy", jit_compile=False, **compiled)
    return model


def _with_rates() -> keras.Model:
    optimizer = optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 3, 0.8))
    return _compiled(_rate_of(optimizer), "accuracy", optimizer=optimizer)


def _two_outputs() -> keras.Model:
    x = keras.Input((_NUM_FEATURES,))
    hidden = layers.Dense(8, "tanh")(x)
    outputs = {
        "a": layers.Dense(_NUM_CLASSES, "softmax", name="a")(hidden),
        "b": layers.Dense(2, name="b")(hidden),
    }
    model = keras.Model(x, outputs)
    model.compile(
        optimizers.Adam(0.01),
        {"a": "categorical_crossentropy", "b": "mse"},
        metrics={"a": ["accuracy", Recall()], "b": [of_a_batch, "mae"]},
        jit_compile=False,
    )
    return model


def _of_steps() -> keras.Model:
    embedded = layers.Embedding(9, 4, mask_zero=True)
    last = layers.Dense(_NUM_CLASSES, "softmax")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), embedded, last])
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizers.Adam(0.01), loss, metrics=[of_steps, "accuracy"], jit_compile=False)
    return model


def _case(
    build: Callable[[], keras.Model],
    data: str = "classes",
    *,
    engine: str = "fused",
    kind: str = "own metric",
) -> Case:
    """A line of the table; data are `classes`, `weighted`, `two` outputs, or padded `steps`."""
    return Case(kind, build, data, engine=engine)


METRIC_CASES: dict[str, Case] = {
    "class": _case(lambda: _compiled(Recall, "accuracy")),
    "only_in_fit": _case(lambda: _compiled(UpOrDown(), "accuracy"), engine="keras"),
    "several_variables": _case(lambda: _compiled("accuracy", Recall(), AtThresholds())),
    "no_sum": _case(lambda: _compiled(WorstBatch(), "accuracy", metrics.AUC())),
    "weighted": _case(
        lambda: _compiled(Recall(name="plain"), weighted_metrics=[Recall(), Several(), "accuracy"]),
        "weighted",
    ),
    "many_at_once": _case(
        lambda: _compiled(
            *(KeepsBest(), of_a_batch, "accuracy"),
            weighted_metrics=[Recall(), Several(), "accuracy"],
        ),
        "weighted",
    ),
    "draws_of_a_constant_seed": _case(lambda: _compiled(WithChance())),
    "keeps_its_best": _case(lambda: _compiled(KeepsBest())),
    "several_results": _case(lambda: _compiled(Several(), metrics.F1Score("macro"))),
    "functions": _case(
        lambda: _compiled(
            *(of_rows, of_a_batch, "mae", partial(to_a_power, power=1.5)),
            metrics.MeanMetricWrapper(to_a_power, name="cubic", power=3.0),
        )
    ),
    "of_its_variable": _case(lambda: _compiled(Seen(), "accuracy")),
    "learning_rate": _case(_with_rates),
    "per_output": _case(_two_outputs, "two"),
    "masked": _case(_of_steps, "steps"),
    "sorts": _case(lambda: _compiled(Smallest())),
    "mean_iou": _case(lambda: _compiled(Argmax(_NUM_CLASSES))),
    "losses_as_metrics": _case(
        lambda: _compiled(losses.Huber(), losses.dice, losses.log_cosh), kind="metric"
    ),
    "compares_rows": _case(
        lambda: _compiled(metrics.PearsonCorrelation(axis=0), metrics.CosineSimilarity(axis=0)),
        kind="metric",
    ),
    # A float16 sum near 1 is rounded to 2^-11; XLA rounds at other places.
    "half_precision": _case(
        lambda: _compiled(
            metrics.MeanSquaredError(dtype="float16"), metrics.MeanAbsoluteError(dtype="bfloat16")
        ),
        kind="metric",
    )._replace(tolerance=2.0**-11),
    "in_tf_variable": _case(lambda: _compiled(OnlyInTensorFlow()), engine="keras"),
    "counts_in_python": _case(lambda: _compiled(CountsInPython()), engine="keras"),
    "leaves_rows_out": _case(lambda: _compiled(OfSome()), engine="keras"),
    "checks": _case(lambda: _compiled(Checks()), engine="keras"),
    "in_numpy": _case(lambda: _compiled(in_numpy), engine="keras"),
    "changed_by_result": _case(lambda: _compiled(CountsResults()), engine="keras"),
    "run_eagerly": _case(lambda: _compiled(WorstBatch(), run_eagerly=True), engine="keras"),
}


# Jobs -------------------------------------------------------------------------------------------


_STOPPING = {"monitor": "val_batch_mae", "patience": 1, "min_delta": 0.005}
_UNLUCKY = oracle_cases_control.__file__

METRIC_JOBS: dict[str, TrainingCase] = {
    "own_metric_stops": TrainingCase(
        {
            "epochs": 8,
            "learning_rate": 0.1,
            "loss": "categorical_crossentropy",
            "metrics": [
                {"name": f"{__file__}:of_a_batch", "as": "batch_mae"},
                *(f"{__file__}:KeepsBest", "accuracy"),
            ],
            "early_stopping": {**_STOPPING, "restore_best_weights": True},
        },
        lambda: {
            "optimizer": optimizers.Adam(0.1),
            "loss": "categorical_crossentropy",
            "metrics": [
                metrics.MeanMetricWrapper(of_a_batch, name="batch_mae"),
                *(KeepsBest(name="KeepsBest"), "accuracy"),
            ],
        },
        generator="one_hot",
        callbacks=lambda: [
            callbacks.EarlyStopping(**_STOPPING, mode="min", restore_best_weights=True)
        ],
        kind="own metric",
    ),
    "own_metric_until_nan": TrainingCase(
        {
            "epochs": 4,
            "loss": "mse",
            "metrics": [f"{__file__}:of_a_batch", f"{__file__}:WorstBatch", "mae"],
            "terminate_on_nan": True,
        },
        lambda: {
            "optimizer": optimizers.Adam(RATE),
            "loss": "mse",
            "metrics": [of_a_batch, WorstBatch(name="WorstBatch"), "mae"],
        },
        f"{_UNLUCKY}:normalized_regressor",
        f"{_UNLUCKY}:unlucky",
        callbacks=lambda: [callbacks.TerminateOnNaN()],
        kind="own metric",
    ),
}
