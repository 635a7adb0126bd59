"""A trial never depends on another: alone, in a pack, in any order, after any other pack."""

import keras
import numpy as np
import pytest
from training_jobs import FEW_ROWS, load_trials, make_task, train

from trialrun.errors import InputError, ModelError
from trialrun.job.user_code.functions import load_function
from trialrun.training.dry_run import examine
from trialrun.training.internals.keras_model import global_dtype_policy
from trialrun.training.model.initial import build_compiled
from trialrun.training.model.ownership import has_other_state, refuse_shared, why_unknown
from trialrun.training.pack_data import load_pack_data
from trialrun.training.process_settings import settings_kept

pytestmark = pytest.mark.tensorflow

MODELS = '''
import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

COUNT = itertools.count(1)
DRAWS = np.random.default_rng(0)
SHARED_LAYER = layers.Dense(4, name="mine")
SHARED_METRIC = keras.metrics.SparseCategoricalCrossentropy("entropy")
SHARED_OPTIMIZER = keras.optimizers.Adam(0.01)
CACHED = []
PRETRAINED = keras.Sequential(
    [keras.Input((6,)), layers.Dense(5, "relu"), layers.BatchNormalization()]
)
PRETRAINED.trainable = False
WITH_DROPOUT = keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.Dropout(0.5)])
WITH_DROPOUT.trainable = False


def net(*hidden):
    return keras.Sequential(
        [keras.Input((6,)), *(hidden or [layers.Dense(4)]), layers.Dense(3, "softmax")]
    )


def compiled(model, **given):
    given = {"optimizer": keras.optimizers.Adam(0.02), "metrics": ["accuracy"], **given}
    model.compile(loss="sparse_categorical_crossentropy", **given)
    return model


class TwoOptimizers(keras.Sequential):
    """Trains its biases by an optimizer that Keras knows nothing of."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        pairs = list(zip(gradients, self.trainable_variables))
        self.optimizer.apply(*zip(*pairs[::2]))
        self.others["biases"].apply(*zip(*pairs[1::2]))
        return {"loss": loss}


def two_optimizers(kind=TwoOptimizers, **given):
    model = kind([keras.Input((6,)), layers.Dense(4), layers.Dense(3, "softmax")])
    model.others = {"biases": keras.optimizers.Adam(0.05)}
    return compiled(model, metrics=None, **given)


class Counting(keras.Sequential):
    """Learns faster from call to call, and counts in Python."""

    calls = None

    def train_step(self, data):
        self.calls = (self.calls or 0) + 1
        self.optimizer.learning_rate = 0.01 * self.calls
        return super().train_step(data)


class CountingTwoOptimizers(Counting, TwoOptimizers):
    pass


def counting():
    model = Counting([keras.Input((6,)), layers.Dense(4), layers.Dense(3, "softmax")])
    return compiled(model, run_eagerly=True)


def own_steps():
    return two_optimizers(CountingTwoOptimizers, run_eagerly=True)


class Centered(layers.Layer):
    """Keeps its mean where Keras does not look."""

    def build(self, shape):
        self.mean = tf.Variable(tf.zeros(shape[-1:]), trainable=False)

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.8 * self.mean + 0.2 * tf.reduce_mean(x, 0))
        return x - self.mean


def centered():
    return net(Centered())


class OfItsClass(layers.Layer):
    """Counts in what all layers of its kind share."""

    seen = tf.Variable(0.0, trainable=False)

    def call(self, x, training=False):
        if training:
            self.seen.assign_add(1.0)
        return x / (1 + self.seen)


def of_its_class():
    return net(OfItsClass(), layers.Dense(4))


SEEN = tf.Variable(0.0, trainable=False)


def counts(x):
    SEEN.assign_add(1.0)
    return x / SEEN


def of_its_file():
    return net(layers.Lambda(counts), layers.Dense(4))


TABLE = tf.Variable(np.arange(6, dtype="float32"), trainable=False)


def constant_of_its_file():
    return net(layers.Lambda(lambda x: x + TABLE), layers.Dense(4))


class Noisy(layers.Layer):
    """Draws from TensorFlow's own generator."""

    def call(self, x, training=False):
        return x + tf.random.normal(tf.shape(x)) if training else x


def noisy():
    return net(Noisy())


def of_numpy():
    """Numbers that a graph holds as constants."""
    added = np.random.normal(size=6).astype("float32")
    return net(layers.Lambda(lambda x: x + added))


def drawn_by_its_file():
    return net(layers.Dense(4, kernel_initializer=starting_at(DRAWS.normal(size=(6, 4)))))


def drawn_without_seed():
    drawn = np.random.default_rng().normal(size=(6, 4))
    return net(layers.Dense(4, kernel_initializer=starting_at(drawn)))


def starting_at(values):
    return keras.initializers.Constant(values.astype("float32"))


def rate_of_numpy():
    return net(layers.Dense(8), layers.Dropout(np.random.uniform(0.1, 0.9)))


class AddedInInference(layers.Layer):
    def __init__(self):
        super().__init__()
        self.added = np.random.normal(size=6).astype("float32")

    def call(self, x, training=False):
        return x if training else x + self.added


def in_inference():
    return net(AddedInInference())


def boundary():
    """Long after the first steps."""
    steps = keras.optimizers.schedules.PiecewiseConstantDecay
    rate = steps([np.random.randint(1000, 9000)], [0.1, 0.01])
    return compiled(net(), optimizer=keras.optimizers.Adam(rate))


def own_layers():
    added = np.random.normal(size=6).astype("float32")
    return net(
        Centered(),
        Noisy(),
        layers.Lambda(lambda x: x + TABLE),
        layers.Lambda(lambda x: x + added),
        layers.Dense(np.random.randint(2, 9)),
        layers.Dropout(np.random.uniform(0.1, 0.9)),
    )


def with_other_settings():
    """Each would change a model that is built or traced without it.

    It stands on a frozen base that is shared by all models.
    """
    keras.backend.clear_session()
    keras.config.set_epsilon(0.1)
    tf.config.run_functions_eagerly(True)
    x = keras.Input((6,))
    seen = layers.Dropout(0.5)(layers.Dense(4)(PRETRAINED(x)))
    seen = layers.Lambda(lambda x: x * keras.config.epsilon())(seen)
    return keras.Model(x, layers.Dense(3, "softmax")(seen))


def in_half_precision(is_half=True):
    if is_half:
        keras.mixed_precision.set_global_policy("mixed_float16")
    return compiled(net())


def in_double_precision():
    keras.config.set_floatx("float64")
    return compiled(net())


def keras_only():
    return net(layers.Dense(6, "relu", kernel_regularizer="l2"), layers.BatchNormalization(),
               layers.Dropout(0.2))


def shared_layer():
    return net(SHARED_LAYER)


def frozen_dropout():
    return net(WITH_DROPOUT)


def shared_metric():
    return compiled(net(), metrics=[SHARED_METRIC])


def shared_optimizer():
    return compiled(net(), optimizer=SHARED_OPTIMIZER)


def cached():
    if not CACHED:
        CACHED.append(net())
    return CACHED[0]


def counted_units():
    return net(layers.Dense(next(COUNT)))


def counted_rate():
    return net(layers.Dense(4), layers.Dropout(1 / (1 + next(COUNT))))


def counted_learning_rate():
    return compiled(net(), optimizer=keras.optimizers.SGD(0.01 * next(COUNT)))


class Unfreezes(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        self.model.layers[0].trainable = True


def unfreezes():
    return Unfreezes()


UNFREEZES = Unfreezes()


def unfreezes_again():
    return UNFREEZES


def frozen():
    return compiled(net(layers.Dense(4, trainable=False)), run_eagerly=True)
'''


def metrics_of(tmp_path, trials):
    """The metrics of each trial, and the engine that trained all of them."""
    result = train(make_task(tmp_path, trials))
    assert not any(row.error for row in result.trials)
    return [row.metrics for row in result.trials], result.trials[0].engine


def trials_of(tmp_path, builder, seeds=2, **sections):
    (tmp_path / "models.py").write_text(MODELS)
    training = {"epochs": 2, "check_engine": True, **sections.pop("training", {})}
    sections.setdefault("search", {"parameters": {}})
    data = {"args": FEW_ROWS, **sections.pop("data", {})}
    return load_trials(
        tmp_path,
        builder=f"models.py:{builder}",
        seeds=seeds,
        training=training,
        data=data,
        **sections,
    )


@pytest.mark.parametrize("builder", ["own_steps", "own_layers"])
def test_a_trial_alone_is_the_same_as_after_another_in_its_pack(tmp_path, builder):
    """Alone it is also the first of a second pack of its process.

    Models of Keras's own parts are compared with plain Keras's in `test_early_stopping`.
    """
    trials = trials_of(tmp_path, builder, training={"engine": "keras"})
    (_, second), _ = metrics_of(tmp_path, trials)
    (alone,), _ = metrics_of(tmp_path, trials[1:])
    assert alone == pytest.approx(second, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    "builder",
    [
        *("counting", "centered", "constant_of_its_file"),
        *("of_numpy", "rate_of_numpy", "in_inference", "boundary"),
    ],
)
def test_what_a_program_would_share_between_trials_is_left_to_fit(tmp_path, builder):
    (found,) = examine(make_task(tmp_path, trials_of(tmp_path, builder)))
    assert found.engine == "keras"


# TensorFlow's, where a builder lets functions run eagerly.
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run:UserWarning")
@pytest.mark.parametrize(
    ("builder", "tolerance", "is_verified"),
    [
        ("with_other_settings", 1e-5, False),
        ("in_double_precision", 1e-5, False),
        ("in_half_precision", 2**-11, True),
    ],
)
def test_a_trial_alone_in_fit_is_the_same_as_in_a_fused_pack(
    tmp_path, builder, tolerance, is_verified
):
    """The verification of a program has tolerances of its own for half precision."""
    short = {"epochs": 1, "check_engine": is_verified}
    (_, second), engine = metrics_of(tmp_path, trials_of(tmp_path, builder, training=short))
    assert engine == "fused"
    trials = trials_of(tmp_path, builder, training={"engine": "keras", **short})
    (alone,), _ = metrics_of(tmp_path, trials[1:])
    assert alone == pytest.approx(second, abs=tolerance)


@pytest.mark.parametrize("seed", ["per_trial", 3])
def test_a_generator_that_gives_other_data_each_time_is_refused(tmp_path, seed):
    (tmp_path / "drawn.py").write_text(
        "import data, numpy as np\nDRAWS = np.random.default_rng(0)\n"
        "def drawn(seed):\n    return data.blobs(DRAWS.integers(1000))\n"
    )
    trials = trials_of(
        tmp_path, "keras_only", data={"generator": "drawn.py:drawn", "seed": seed, "args": {}}
    )
    result = train(make_task(tmp_path, trials[:1]))
    assert "drawn.py:drawn: called again with the same seed and arg" in result.trials[0].error


def test_a_callback_that_changes_the_model_changes_no_other_trial(tmp_path):
    callbacks = {"callbacks": ["models.py:unfreezes"], "epochs": 3}
    trials = trials_of(tmp_path, "frozen", training=callbacks)
    together, _ = metrics_of(tmp_path, trials)
    alone, _ = metrics_of(tmp_path, trials[1:])
    assert alone == together[1:]


def test_a_callback_that_another_trial_was_given_is_refused(tmp_path):
    callbacks = {"callbacks": ["models.py:unfreezes_again"]}
    trials = trials_of(tmp_path, "frozen", training=callbacks)
    with pytest.raises(ModelError, match="it returned a callback that it returned before"):
        train(make_task(tmp_path, trials))


def test_a_policy_that_one_variant_sets_is_no_other_variants(tmp_path):
    half, whole = trials_of(
        tmp_path,
        "in_half_precision",
        seeds=1,
        search={"parameters": {"model.args.is_half": {"values": [True, False]}}},
        training={"engine": "keras", "epochs": 1},
    )
    before = global_dtype_policy()
    metrics_of(tmp_path, [half])
    assert global_dtype_policy() is before
    data, _ = load_pack_data([whole], tmp_path)
    policies = [
        build_compiled(one.variant, tmp_path, data.of_trial(0), 1).layers[0].dtype_policy.name
        for one in (half, whole)
    ]
    assert policies == ["mixed_float16", "float32"]
    assert global_dtype_policy() is before


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("shared_layer", "mine/kernel' belongs to a model that it returned before"),
        ("frozen_dropout", "belongs to a model that it returned before, .* stay frozen"),
        ("shared_metric", "'entropy/total' belongs to a model that it returned before"),
        ("shared_optimizer", "'adam/iteration' belongs to a model that it returned before"),
        ("cached", "let the builder make its layers, metrics and optimizers inside the function"),
        (
            "counted_units",
            "another model when it is called again with the same arguments: its v",
        ),
        ("counted_rate", "layers\\[2\\].rate is 0.\\d+ and 0.\\d+"),
        ("counted_learning_rate", "the learning rate is 0.0"),
        ("of_its_class", "changed 'seen' of .*OfItsClass, which is not made by the builder"),
        ("of_its_file", "changed 'SEEN' of .*counts, which is not made by the builder"),
        ("drawn_by_its_file", "other initial weights when it is called again .*dense/kernel"),
        ("drawn_without_seed", "other initial weights when it is called again .*dense/kernel"),
    ],
)
def test_a_builder_that_remembers_what_it_built_is_refused(tmp_path, builder, message):
    """By the plain engine, which builds for each trial; before a program is looked for too."""
    engine = "auto" if builder in ("cached", "counted_rate") else "keras"
    trials = trials_of(tmp_path, builder, training={"engine": engine})
    with pytest.raises(InputError, match=message):
        train(make_task(tmp_path, trials))


@settings_kept()
def test_frozen_weights_may_be_shared_until_they_change():
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    base.trainable = False
    for _ in range(3):
        refuse_shared(keras.Sequential([base, keras.layers.Dense(1)]), "here")
    base.layers[0].kernel.assign(np.ones((2, 2)))
    with pytest.raises(InputError, match=r"here: .*dense.*/kernel. belongs to a model"):
        refuse_shared(keras.Sequential([base, keras.layers.Dense(1)]), "here")


def test_what_a_file_draws_when_it_is_imported_is_the_same_in_every_process(tmp_path):
    drawn = []
    for name, seed in (("one", 1), ("other", 2)):
        np.random.seed(seed)
        (tmp_path / f"{name}.py").write_text(
            "import random\nimport numpy as np\nDRAWN = [random.random(), np.random.normal()]\n"
            "def build():\n    return DRAWN\n"
        )
        drawn.append(load_function(f"{name}.py:build", tmp_path)())
        assert np.random.normal() == np.random.RandomState(seed).normal()
    assert drawn[0] == drawn[1]


def test_what_a_file_sets_when_it_is_imported_holds_for_all_its_models(tmp_path):
    (tmp_path / "half.py").write_text(
        "import keras\nkeras.mixed_precision.set_global_policy('mixed_float16')\n"
        "def build():\n    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])\n"
    )
    (trial,) = load_trials(tmp_path, builder="half.py:build", seeds=[1])
    data, _ = load_pack_data([trial], tmp_path)
    before = global_dtype_policy()
    for _ in range(2):
        model = build_compiled(trial.variant, tmp_path, data.of_trial(0), 1)
        assert model.layers[0].dtype_policy.name == "mixed_float16"
        assert global_dtype_policy() is before


def test_models_of_kerass_own_parts_are_known_and_others_are_not(tmp_path):
    def built(*hidden, **given):
        model = keras.Sequential([keras.Input((6,)), *hidden, keras.layers.Dense(3)])
        given = {"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **given}
        model.compile(**given, run_eagerly=True)  # nothing is traced for a batch
        model.fit(np.ones((2, 6)), np.ones((2, 3)), verbose=0)
        return model

    layers = keras.layers
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
    known = built(
        layers.Dense(4, "relu", kernel_regularizer="l2", kernel_constraint="non_neg"),
        layers.BatchNormalization(),
        layers.Dropout(0.3),
        optimizer=keras.optimizers.Nadam(schedule),
    )
    assert (why_unknown(known), has_other_state(known)) == ("", False)
    for other in (
        built(layers.Lambda(lambda x: x)),
        built(layers.Dense(4, lambda x: x)),
        built(loss=lambda y, p: keras.ops.mean(p)),
        built(metrics=[lambda y, p: keras.ops.mean(p)]),
    ):
        assert why_unknown(other)
        assert not has_other_state(other)

    class Kept(keras.metrics.MeanAbsoluteError):
        def reset_state(self):
            pass

    assert has_other_state(built(metrics=[Kept()]))
    second = built()
    second.other = {"one": [keras.optimizers.SGD()]}
    assert has_other_state(second)


def test_names_do_not_depend_on_what_was_built_before():
    from trialrun.training.model.seeded_build import build_seeded

    def build():
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)])

    names = [[layer.name for layer in build_seeded(build, seed).layers] for seed in (1, 2)]
    assert names == [["dense", "dense_1"]] * 2
