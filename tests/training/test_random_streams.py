"""Random streams are keyed by the seed alone and are those that Keras itself would use."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from trialrun.errors import CannotFuse
from trialrun.training.batch_orders import BatchOrders
from trialrun.training.model.seeded_build import SeededBuild, build_seeded
from trialrun.training.vectorize.draws import constant_draws_as_outside_xla, draws_as_outside_xla
from trialrun.training.vectorize.other_numbers import refuse_operations
from trialrun.training.vectorize.vectorize import vectorize

pytestmark = pytest.mark.tensorflow

SEEDS = [0, 1, 2, 3, 12345, 2**32 - 1]

# Initial variables ------------------------------------------------------------------------------


def fresh(build, seed):
    """The variables of a new model, built as anyone would."""
    keras.utils.set_random_seed(seed)
    model = build()
    return [v.numpy() for v in [*model.trainable_variables, *model.non_trainable_variables]]


INITIALIZERS = [
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "random_uniform",
    "truncated_normal",
    "variance_scaling",
    "random_normal",
    "orthogonal",
]


def dense(initializer):
    return lambda: keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, kernel_initializer=initializer),
            layers.Dense(3, kernel_initializer=initializer),
        ]
    )


@pytest.mark.parametrize("initializers", [INITIALIZERS[:5], INITIALIZERS[5:]])
def test_initial_weights_are_those_of_a_build_under_the_seed(initializers):
    def build():
        drawn = [layers.Dense(4, kernel_initializer=one) for one in initializers]
        last = layers.Dense(3, bias_initializer="random_uniform")
        return keras.Sequential([keras.Input((6,)), *drawn, last])

    assert_replayed(build)


def test_constant_initializers_and_seeds_of_the_user_are_kept():
    def build():
        seeded = keras.initializers.GlorotUniform(seed=5)
        return keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(4, kernel_initializer=seeded, bias_initializer="ones"),
                layers.BatchNormalization(),
                layers.Dropout(0.3, seed=8),
                layers.Dense(3, kernel_initializer="zeros"),
                layers.Dense(2),
            ]
        )

    assert_replayed(build)


def test_dropout_starts_with_the_seeds_of_a_build():
    def build():
        return keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dropout(0.2),
                layers.Dense(4),
                layers.GaussianNoise(0.1),
                layers.Dense(4),
                layers.Dropout(0.2),
            ]
        )

    assert_replayed(build)


def test_dropout_starts_with_its_seed_where_no_weight_is_random():
    assert_replayed(lambda: keras.Sequential([*dense("ones")().layers, layers.Dropout(0.2)]))


def test_a_model_without_randomness_starts_the_same_under_every_seed():
    assert_replayed(dense("ones"))


def test_a_builder_that_draws_from_numpy_is_built_for_every_trial():
    def build():
        kernel = np.random.normal(size=(6, 4)).astype(np.float32)
        return keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, kernel_initializer=lambda *a, **k: kernel)]
        )

    seeded = SeededBuild(build, SEEDS[0])
    stacks = seeded.initial_variables(SEEDS)
    assert not seeded._replay_is_exact
    for place, seed in enumerate(SEEDS):
        assert_equal([stack[place] for stack in stacks], fresh(build, seed))


COINS = {
    "numpy": lambda: np.random.randint(2),
    "keras": lambda: int(keras.random.uniform(()) > 0.5),
    "tensorflow": lambda: int(tf.random.uniform([]) > 0.5),
}


@pytest.mark.parametrize("library", COINS)
def test_two_seeds_that_happen_to_give_the_same_number_hide_no_third(library):
    """Also after a pack of one seed, for which nothing can differ."""

    def build():
        model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
        model.table = [COINS[library]()]
        return model

    def drawn(seed):
        keras.utils.set_random_seed(seed)
        return build().table

    first, third = SEEDS[0], next(seed for seed in SEEDS if drawn(seed) != drawn(SEEDS[0]))
    second = next(seed for seed in range(99, 200) if drawn(seed) == drawn(first))
    seeded = SeededBuild(build, first)
    seeded.initial_variables([first])
    seeded.initial_variables([first, second])
    with pytest.raises(CannotFuse, match=r"table is \[[01]\] and \[[01]\]"):
        seeded.initial_variables([first, third, second])


def test_names_are_those_of_a_new_process_whatever_was_built_before():
    """A metric's name is a log's, which must be the same in every pack that a worker trains."""

    def build():
        model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(1)])
        model.compile(loss="mse", metrics=[keras.metrics.AUC(), keras.metrics.AUC()])
        return model

    def names(model):
        metrics = [metric.name for metric in model._compile_metrics._user_metrics]
        return [model.name, *(layer.name for layer in model.layers), *metrics]

    before = layers.Dense(1).name
    expected = ["sequential", "dense", "dense_1", "auc", "auc_1"]
    assert names(build_seeded(build, 1)) == names(SeededBuild(build, 2).model) == expected
    assert layers.Dense(1).name not in (before, "dense")  # outside, the count goes on


def test_initial_weights_do_not_depend_on_the_other_seeds():
    seeded = SeededBuild(dense("he_normal"), 0)
    together = seeded.initial_variables(SEEDS)
    for place, seed in enumerate(SEEDS):
        (alone,) = zip(*seeded.initial_variables([seed]), strict=True)
        assert_equal([stack[place] for stack in together], alone)


def assert_replayed(build):
    seeded = SeededBuild(build, SEEDS[0])
    stacks = seeded.initial_variables(SEEDS)
    # Building a model for every seed would be right too, but is what the replay is there to avoid.
    assert seeded._replay_is_exact
    assert [stack.shape for stack in stacks] == [
        (len(SEEDS), *variable.shape) for variable in seeded.variables
    ]
    for place, seed in enumerate(SEEDS):
        assert_equal([stack[place] for stack in stacks], fresh(build, seed))


def assert_equal(arrays, expected):
    for array, wanted in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)


# Batch orders -------------------------------------------------------------------------------------


def orders_of(seeds, num_rows=44, num_epochs=3):
    """(epochs, trials, rows)"""
    orders = BatchOrders(seeds, num_rows)
    return np.stack([orders.next_epoch() for _ in range(num_epochs)])


def test_every_epoch_is_a_new_permutation_of_every_trials_rows():
    orders = orders_of(SEEDS)
    assert orders.dtype == np.int32
    np.testing.assert_array_equal(np.sort(orders, 2), np.broadcast_to(range(44), orders.shape))
    assert len({order.tobytes() for order in orders.reshape(-1, 44)}) == 3 * len(SEEDS)


def test_batch_orders_are_keyed_by_the_seed_alone():
    together = orders_of(SEEDS)
    for place, seed in enumerate(SEEDS):
        np.testing.assert_array_equal(together[:, place], orders_of([seed])[:, 0])
    np.testing.assert_array_equal(together, orders_of(SEEDS[::-1])[:, ::-1])


def test_batch_orders_do_not_touch_the_global_stream_of_numpy():
    np.random.seed(1)
    orders_of(SEEDS)
    drawn = np.random.random()
    np.random.seed(1)
    assert drawn == np.random.random()


# Random operations for all trials at once -------------------------------------------------------


TRIAL_SEEDS = np.array([[0, 0], [1, 0], [7, 3], [2**31 - 1, 9], [-5, 2]], np.int32)
# Every two of a shape, compiled or not, and one trial or several occur together.
DRAWS = [
    (shape, compiled, 1 if (place % 2 == 0) == compiled else 5)
    for place, shape in enumerate([(1,), (3,), (4,), (8, 16), (5, 7, 3)])
    for compiled in (False, True)
]


# Box and Muller's logarithm, sine and cosine are rounded by other code than in TensorFlow's own
# kernel: they differ by at most 3 units in the last place (measured on 400,000 numbers).
@pytest.mark.parametrize(("shape", "compiled", "num_trials"), DRAWS)
def test_numbers_are_those_of_one_trial_at_a_time(shape, compiled, num_trials):
    def draw(shape, seed):
        return tf.random.stateless_uniform(shape, seed), tf.random.stateless_normal(shape, seed)

    seeds = TRIAL_SEEDS[:num_trials]
    uniform, normal = draw_together(draw, shape, seeds, compiled)
    one_by_one = [draw(shape, seed) for seed in seeds]
    np.testing.assert_array_equal(uniform, np.stack([drawn for drawn, _ in one_by_one]))
    expected = np.stack([drawn for _, drawn in one_by_one])
    np.testing.assert_array_max_ulp(normal.numpy(), expected, maxulp=4)


def test_a_range_of_uniform_numbers_is_that_of_one_trial_at_a_time():
    def draw(shape, seed):
        return tf.random.stateless_uniform(shape, seed, minval=-2.0, maxval=5.0)

    expected = np.stack([draw((8, 4), seed) for seed in TRIAL_SEEDS])
    np.testing.assert_array_equal(draw_together(draw, (8, 4), TRIAL_SEEDS, False), expected)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_numbers_of_half_precision_are_those_of_one_trial_at_a_time(dtype):
    def draw(shape, seed):
        return tf.cast(tf.random.stateless_uniform(shape, seed, dtype=dtype), tf.float32)

    expected = np.stack([draw((5, 3), seed) for seed in TRIAL_SEEDS])
    np.testing.assert_array_equal(draw_together(draw, (5, 3), TRIAL_SEEDS, True), expected)


@pytest.mark.parametrize(("dtype", "high"), [(tf.int32, 50), (tf.int64, 2**40)])
def test_random_integers_are_those_of_one_trial_at_a_time(dtype, high):
    def draw(shape, seed):
        return tf.random.stateless_uniform(shape, seed, minval=-3, maxval=high, dtype=dtype)

    expected = np.stack([draw((5, 3), seed) for seed in TRIAL_SEEDS])
    np.testing.assert_array_equal(draw_together(draw, (5, 3), TRIAL_SEEDS, True), expected)
    with draws_as_outside_xla():
        compiled = tf.function(lambda seed: draw((5, 3), seed), jit_compile=True, autograph=False)
        np.testing.assert_array_equal(compiled(tf.constant(TRIAL_SEEDS[2])), expected[2])


def test_integers_of_any_size_are_refused():
    def draw(shape, seed):
        return tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint64)

    with pytest.raises(CannotFuse, match="StatelessRandomUniformFullIntV2"):
        draw_together(draw, (5, 3), TRIAL_SEEDS, True)
    with draws_as_outside_xla(), pytest.raises(CannotFuse, match="cannot draw"):
        tf.function(lambda seed: draw((5, 3), seed))(tf.constant(TRIAL_SEEDS[0]))


# Draws that are the same for all trials ---------------------------------------------------------


CONSTANT_DRAWS = {
    "of Keras": lambda x: keras.random.normal((2, 3), seed=42),
    "of the size of the input": lambda x: keras.random.uniform(tf.shape(x), seed=7),
    "of TensorFlow": lambda x: tf.random.stateless_uniform((2,), (1, 2), -2.0, 5.0),
    "of any integers": lambda x: tf.random.stateless_uniform((2,), (1, 2), None, None, tf.int32),
    "of an initializer": lambda x: keras.initializers.TruncatedNormal(seed=3)((3, 2)),
    "of classes": lambda x: keras.random.categorical([[0.1, 0.2]], 5, seed=3),
    "of an image": lambda x: tf.image.stateless_random_brightness(x[None, ..., None], 0.2, (1, 2)),
    "of what is kept": lambda x: keras.random.dropout(x, 0.4, seed=7),
    "of an order": lambda x: keras.random.shuffle(x, axis=1, seed=7),
    "of a loop": lambda x: tf.while_loop(
        lambda i, _: i < 3, lambda i, v: (i + 1, v + keras.random.normal((3,), seed=1)), (0, x)
    )[1],
}


def draw_all(x):
    return {name: draw(x) for name, draw in CONSTANT_DRAWS.items()}


@pytest.mark.parametrize("is_fused", [True, False])
def test_draws_from_constants_are_those_outside_of_a_program(is_fused):
    """For `pfor`, they do not depend on the trial: it would leave them to XLA."""
    x = tf.constant(np.arange(-9, 9, dtype="float32").reshape(3, 2, 3))
    function, own = (lambda x: vectorize(draw_all, [x]), x) if is_fused else (draw_all, x[2])
    with constant_draws_as_outside_xla() if is_fused else draws_as_outside_xla():
        together = tf.function(function, jit_compile=True, autograph=False)
        refuse_operations(together.get_concrete_function(own).graph, left_out=False)
    drawn = together(own)
    for name, expected in draw_all(x[2]).items():
        np.testing.assert_array_equal(drawn[name][2] if is_fused else drawn[name], expected, name)


RAW = {"key": tf.constant([1], tf.uint64), "counter": tf.constant([0, 1], tf.uint64)}
LEFT_TO_XLA = {
    "TensorFlow's raw operation": lambda x, _: (
        x + tf.raw_ops.StatelessRandomNormalV2(shape=[3], alg=1, **RAW)
    ),
    "a seed of shared data": lambda x, shared: x + tf.random.stateless_normal([3], shared),
    "a seed that counts in a loop": lambda x, _: tf.while_loop(
        lambda i, _: i < 3,
        lambda i, v: (i + 1, v + tf.random.stateless_normal([3], [i, 1])),
        (0, x),
    )[1],
}


@pytest.mark.parametrize("name", LEFT_TO_XLA)
def test_a_draw_that_would_be_left_to_xla_is_refused(name):
    def function(x, shared):
        return vectorize(lambda own: LEFT_TO_XLA[name](own, shared), [x])

    with constant_draws_as_outside_xla():
        traced = tf.function(function, autograph=False).get_concrete_function(
            tf.zeros([2, 3]), tf.constant([1, 2])
        )
    with pytest.raises(CannotFuse, match="draws other random numbers"):
        refuse_operations(traced.graph, left_out=False)


def draw_together(distribution, shape, seeds, compiled):
    @tf.function(jit_compile=compiled, autograph=False)
    def draw(seeds):
        return vectorize(lambda seed: distribution(shape, seed), [seeds])

    return draw(tf.constant(seeds))
