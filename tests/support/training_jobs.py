"""Small real jobs for the tests of the training engine: files in a folder, loaded and planned."""

from pathlib import Path

from trialrun.job import load_job
from trialrun.job.document import write_yaml
from trialrun.training.channel import Reports
from trialrun.training.compiled.train import train_compiled
from trialrun.training.engine_outputs import TrainedTrial
from trialrun.training.keras_fit.fit import train_keras
from trialrun.training.pack import train_pack
from trialrun.training.pack_data import load_pack_data
from trialrun.trials.plan import plan_trials
from trialrun.trials.results import PackResult
from trialrun.trials.signature import signature_of
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack, Trial

# For `data.args`: one step less to compile, and the shapes to evaluate are those to train on.
FEW_ROWS = {"num_train": 16, "num_val": 8, "num_test": 8}
# 44 rows in batches of 8: five whole ones and a partial one of 4. A program with a partial batch
# takes a third longer to compile, so that only tests of one ask for it.
PARTIAL_BATCH = {"num_train": 44, "num_val": 19, "num_test": 23}

# 40 rows in batches of 8: five whole ones.
GENERATOR = '''
import numpy as np


def blobs(seed, *, num_train=40, num_val=16, num_test=16, num_classes=3):
    """Three overlapping clouds in six dimensions."""
    rng = np.random.default_rng(seed)
    centers = np.eye(3, 6) * 2

    def part(num_rows):
        labels = np.arange(num_rows) % num_classes
        return rng.normal(size=(num_rows, 6)) + centers[labels % 3], labels

    return {"train": part(num_train), "validation": part(num_val), "test": part(num_test)}


def odd_label(seed):
    """Data with a fourth class under seed 2 alone, in the test part."""
    output = blobs(seed)
    if seed == 2:
        output["test"][1][0] = 3
    return output


def growing(seed):
    """Data whose size depends on the seed."""
    return blobs(seed, num_train=40 + seed)
'''

BUILDERS = '''
import keras
import numpy as np
import tensorflow as tf
from keras import layers, regularizers


def dense():
    return _classifier([layers.Dense(12, activation="relu")])


def dropout():
    return _classifier([layers.Dense(16, activation="relu"), layers.Dropout(0.3)])


def bias_under_normalization():
    return _classifier([layers.Dense(12), layers.BatchNormalization(), layers.Activation("relu")])


def everything(*more):
    """State of each kind: weights with a penalty, averages of a normalization, a seed."""
    return _classifier(
        [
            layers.Dense(12, use_bias=False, kernel_regularizer=regularizers.L2(0.01)),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.2),
            *more,
        ]
    )


class NoiseOfTensorFlow(layers.Layer):
    def call(self, x, training=False):
        return x + tf.random.normal(tf.shape(x), stddev=0.1) if training else x


def everything_with_tf_random():
    """And a stream of what the model's own code draws."""
    return everything(NoiseOfTensorFlow())


def binary():
    return keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="sigmoid")])


def logit():
    hidden = [layers.Dense(8, activation="relu"), layers.Dropout(0.3)]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(1)])


def counting():
    """Compiled for counts."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="softplus")])
    model.compile("sgd", "poisson")
    return model


def spectral():
    return _classifier([layers.SpectralNormalization(layers.Dense(8))])


class Orthogonalize(layers.Layer):
    """Its gradient would do, but a QR decomposition has no vectorized form."""

    def call(self, x):
        q, _ = keras.ops.qr(keras.ops.matmul(keras.ops.transpose(x), x) + keras.ops.eye(6))
        return x + keras.ops.stop_gradient(keras.ops.matmul(x, q))


def not_vectorizable():
    return _classifier([Orthogonalize()])


class NotInXla(layers.Layer):
    """Dawson's integral has a vectorized form, but no XLA kernel."""

    def call(self, x):
        import tensorflow as tf

        return x + tf.stop_gradient(tf.math.special.dawsn(x))


def not_compilable():
    return _classifier([NotInXla()])


def regression():
    return keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(1)])


def not_finite():
    infinite = keras.initializers.Constant(float("inf"))
    return _classifier([layers.Dense(4, kernel_initializer=infinite)])


def too_narrow():
    return keras.Sequential([keras.Input((5,)), layers.Dense(3, activation="softmax")])


def raising():
    raise RuntimeError("no such thing today")


def nothing():
    return None


def from_numpy():
    """Starts its kernel with NumPy's own numbers."""
    kernel = np.random.normal(size=(6, 12)).astype("float32")
    return _classifier([layers.Dense(12, kernel_initializer=lambda *args, **kwargs: kernel)])


def _classifier(hidden):
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, activation="softmax")])
'''


def write_files(folder: Path) -> None:
    """Puts the generator and the builders beside the job file."""
    (folder / "data.py").write_text(GENERATOR)
    (folder / "nets.py").write_text(BUILDERS)


def load_trials(folder: Path, *, builder: str, seeds, learning_rates=(0.01,), **sections):
    """Trials of a job whose data are the blobs and whose model is one of the builders.

    Args:
        folder: Gets `job.yaml`, `data.py` and `nets.py`.
        builder: A name in `nets.py`, or a whole reference.
        seeds: As in a job.
        learning_rates: Searched.
        **sections: Put over the sections `data`, `model`, `training`, `select` of the job. Programs
            are not verified unless `training.check_engine` says so: that takes longer than to
            train, and most tests compare more, or other things.
    """
    write_files(folder)
    job = {
        "name": "oracle",
        "seeds": seeds,
        "search": {"parameters": {"training.learning_rate": {"values": list(learning_rates)}}},
        "data": {"generator": "data.py:blobs", "scaling": "standard"},
        "model": {"builder": builder if ":" in builder else f"nets.py:{builder}"},
        "training": {"batch_size": 8, "epochs": 3, "check_engine": False},
    }
    for name, section in sections.items():
        job[name] = {**job.get(name, {}), **section}
    (folder / "job.yaml").write_text(write_yaml(job))
    return plan_trials(load_job(folder / "job.yaml").spec)


def make_task(folder: Path, trials, *, num_threads: int = 1) -> PackTask:
    """A task for a pack of these trials of the job in this folder."""
    trials: tuple[Trial, ...] = tuple(trials)
    pack = Pack("p000", signature_of(trials[0].variant), trials)
    select = load_job(folder / "job.yaml").spec.select
    return PackTask(pack, folder, select, num_threads=num_threads)


def train(task: PackTask) -> PackResult:
    """What `train_pack` gives at the end."""
    *_, result = train_pack(task, "CPU")
    assert isinstance(result, PackResult)
    return result


def train_with_fused(task: PackTask) -> list[TrainedTrial]:
    """What the fused engine gives, before metrics and confusion matrices are made of it."""
    return _train_with(lambda task, data, *rest: train_compiled(task, data, "fused", *rest), task)


def train_with_mapped(task: PackTask) -> list[TrainedTrial]:
    """What the compiled engine gives that trains trial after trial."""
    return _train_with(lambda task, data, *rest: train_compiled(task, data, "mapped", *rest), task)


def train_with_keras(task: PackTask) -> list[TrainedTrial]:
    """What the plain engine gives."""
    return _train_with(train_keras, task)


def _train_with(train_engine, task: PackTask) -> list[TrainedTrial]:
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    return returned(train_engine(task, data, {}, Reports(lambda: False)))


def returned(generator):
    """What a generator returns once all that it yields is taken."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value
