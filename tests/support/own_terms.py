"""A job's own losses, metrics, optimizers and schedules, and models that their builder compiled."""

TERMS = '''
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


def focal(y_true, y_pred, gamma=2.0):
    classes = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
    p = ops.take_along_axis(y_pred, classes, axis=1)[:, 0]
    return -((1 - p) ** gamma) * ops.log(p + 1e-7)


def make_focal(gamma):
    return lambda y_true, y_pred: focal(y_true, y_pred, gamma)


class Focal(keras.losses.Loss):
    def __init__(self, gamma=2.0, **kwargs):
        super().__init__(**kwargs)
        self.gamma = gamma

    def call(self, y_true, y_pred):
        return focal(y_true, y_pred, self.gamma)


def hit(y_true, y_pred):
    classes = ops.cast(ops.reshape(y_true, (-1,)), "int64")
    return ops.cast(ops.equal(classes, ops.argmax(y_pred, -1)), "float32")


class Hit(keras.metrics.SparseCategoricalAccuracy):
    def __init__(self):
        super().__init__(name="something_else")


def adam(learning_rate, beta=0.9):
    return keras.optimizers.Adam(learning_rate, beta_1=beta)


def unscheduled(learning_rate):
    return keras.optimizers.SGD(float(learning_rate(0)))


def half_as_fast(learning_rate):
    return keras.optimizers.Adam(learning_rate / 2)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, initial_learning_rate, every=10):
        self.start, self.every = initial_learning_rate, every

    def __call__(self, step):
        return self.start * 0.5 ** (ops.cast(step, "float32") / self.every)

    def get_config(self):
        return {"initial_learning_rate": self.start, "every": self.every}


def number():
    return 3


def net(units=4):
    hidden = layers.Dense(units, activation="relu")
    return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3, activation="softmax")])


def compiled(rate=0.01):
    model = net()
    top = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="macro_recall")
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy", top])
    return model


def two_of_a_kind():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="sigmoid")])
    kinds = [keras.metrics.AUC(), keras.metrics.AUC(curve="PR")]
    model.compile("adam", "binary_crossentropy", metrics=kinds, run_eagerly=True)
    return model


def one_score_per_class():
    model = net()
    scores = keras.metrics.F1Score()
    model.compile("adam", "categorical_crossentropy", metrics=[scores])
    return model


def labels_of_one_output():
    """Its metrics are told by outputs, of which one has no labels."""
    x = keras.Input((6,))
    outputs = {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(1, name="b")(x)}
    model = keras.Model(x, outputs)
    model.compile("adam", {"a": "mse"}, metrics={"a": ["mae"]})
    return model


def one_hot(seed):
    rng = np.random.default_rng(seed)
    part = lambda: (rng.normal(size=(24, 6)), np.eye(3)[np.arange(24) % 3])
    return {"train": part(), "validation": part(), "test": part()}


def of_one_output(seed):
    return {part: (x, {"a": y[:, :1]}) for part, (x, y) in one_hot(seed).items()}


class Counting(keras.Model):
    """Counts in Python how often its loss is computed, and takes half of every second one."""

    def __init__(self):
        super().__init__()
        self.net, self.calls = net(), 0

    def call(self, x):
        return self.net(x)

    def compute_loss(self, *args, **given):
        self.calls += 1
        return super().compute_loss(*args, **given) / (1 + self.calls % 2)


def counting():
    model = Counting()
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    return model


class OwnSteps(keras.Model):
    """Logs no `loss`: two nets that are trained apart, as in a GAN."""

    def __init__(self, diverges=False):
        super().__init__()
        self.net = layers.Dense(2)
        self.factor = float("inf") if diverges else 1.0
        self.tracker = keras.metrics.Mean(name="g_loss")

    def call(self, x):
        return self.net(x)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.factor * ops.mean(ops.square(self(data[0]) - 1))
        weights = self.net.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.tracker.update_state(loss)
        return {"g_loss": self.tracker.result()}


class OwnTestStep(OwnSteps):
    def test_step(self, data):
        self.tracker.update_state(self.factor * ops.mean(ops.square(self(data[0]) - 1)))
        return {"g_loss": self.tracker.result()}


def without_test_step():
    model = OwnSteps()
    model.compile("adam")
    return model


def own_steps(diverges=False):
    model = OwnTestStep(diverges)
    model.compile("adam", run_eagerly=True)
    return model
'''
