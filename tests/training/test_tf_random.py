"""What a model's own code draws from `tf.random`: distributions, streams, and what is refused."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from training_jobs import FEW_ROWS, load_trials, make_task

from trialrun.errors import CannotFuse
from trialrun.training.internals.random_functions import stateful_draws_replaced
from trialrun.training.pack import train_pack
from trialrun.training.program.trial_stream import TrialStream, draws_in_a_step, stream_starts
from trialrun.training.vectorize.draws import constant_draws_as_outside_xla, draws_as_outside_xla
from trialrun.training.vectorize.other_numbers import refuse_operations
from trialrun.training.vectorize.stateful_draws import draws_by
from trialrun.training.vectorize.vectorize import vectorize
from trialrun.trials.results import Checkpoint

pytestmark = pytest.mark.tensorflow

LOGITS = np.array([[-2.3, -1.6, -np.inf, -0.36]], "float32")
DRAWS = {
    "normal": lambda n: tf.random.normal((n,), 3.0, 2.0),
    "normal in half precision": lambda n: tf.random.normal((n,), dtype=tf.bfloat16),
    "uniform": lambda n: tf.random.uniform((n,), -1.0, 4.0),
    "integers": lambda n: tf.random.uniform((n,), -3, 5, tf.int32),
    "long integers": lambda n: tf.random.uniform((n,), 0, 2**40, tf.int64),
    "truncated": lambda n: tf.random.truncated_normal((n,), 1.0, 0.5),
    "categories": lambda n: tf.random.categorical(LOGITS, n)[0],
    "gamma": lambda n: tf.random.gamma((n,), 2.5, 3.0),
    "gamma below 1": lambda n: tf.random.gamma((n,), 0.3),
    "gamma of several": lambda n: tf.random.gamma((n // 2,), [0.5, 4.0]),
    "kept by dropout": lambda n: tf.nn.dropout(tf.ones(n), 0.3),
    "first of an order": lambda n: tf.stack([tf.random.shuffle(range(4))[0] for _ in range(n)]),
}


def drawing_from(seed):
    """A context in which `tf.random` draws from a stream that begins with a seed."""
    count = iter(range(2**20))
    return stateful_draws_replaced(
        draws_by(lambda _: tf.add(seed, tf.constant([0, next(count)], tf.int64)))
    )


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_have_the_distribution_of_tensorflows_own(name):
    """Of the same type, within the same bounds; two samples of it are told apart once in 10**4."""
    num = 300 if name == "first of an order" else 20_000
    tf.random.set_seed(1)
    plain = DRAWS[name](num)
    with drawing_from(stream_starts([7])[0]):
        own = DRAWS[name](num)
    assert (own.dtype, own.shape) == (plain.dtype, plain.shape)
    ours, theirs = (np.ravel(tf.cast(drawn, tf.float64)) for drawn in (own, plain))
    values = np.unique(theirs)
    if len(values) < 10:
        counts = [[np.sum(sample == value) for value in values] for sample in (ours, theirs)]
        assert np.sum(counts) == 2 * num
        assert stats.chi2_contingency(counts).pvalue > 1e-4
        return
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
    assert abs(ours.mean() - theirs.mean()) < 6 * theirs.std() / np.sqrt(num)
    if name in ("uniform", "long integers", "truncated"):
        bounds = {"uniform": (-1, 4), "long integers": (0, 2**40), "truncated": (0, 2)}[name]
        assert bounds[0] <= ours.min() < ours.max() <= bounds[1]


def draw_derived(seed):
    """What is computed of uniform and normal numbers; `test_random_streams` has these."""
    with drawing_from(seed):
        return {name: DRAWS[name](6) for name in ("truncated", "categories", "gamma below 1")} | {
            "an order": tf.random.shuffle(range(6))
        }


def test_a_program_draws_what_is_drawn_outside_of_it():
    """Vectorized, and compiled: equal but for how logarithms and powers are rounded."""
    starts = stream_starts([3, 8])
    expected = [draw_derived(start) for start in starts]
    with constant_draws_as_outside_xla():
        together = tf.function(lambda own: vectorize(draw_derived, [own]), autograph=False)
        fused = together(tf.constant(starts))
    with draws_as_outside_xla():
        compiled = tf.function(draw_derived, jit_compile=True, autograph=False)
        mapped = compiled(tf.constant(starts[1]))
    for name in expected[0]:
        for own, wanted in ((fused[name][0], expected[0]), (fused[name][1], expected[1])):
            assert_equal(own, wanted[name], name)
        assert_equal(mapped[name], expected[1][name], name)
        assert not np.array_equal(expected[0][name], expected[1][name]), name


def assert_equal(values, expected, name):
    if expected.dtype.is_integer:
        np.testing.assert_array_equal(values, expected, name)
    else:
        pair = (tf.cast(one, tf.float32) for one in (values, expected))
        np.testing.assert_allclose(*pair, rtol=3e-6, atol=3e-6, err_msg=name)


def test_streams_are_keyed_by_the_seed_alone():
    starts = stream_starts(range(1000))
    assert len(set(starts[:, 0].tolist())) == 1000
    assert starts.min() >= 0
    np.testing.assert_array_equal(stream_starts([999, 4]), starts[[999, 4]])


# What is refused ----------------------------------------------------------------------------------


REFUSED = {
    "twice in a step with the same seed": lambda x: (
        tf.random.normal((), seed=3) + tf.random.uniform((), seed=3)
    ),
    "inside a branch or a loop": lambda x: tf.map_fn(lambda row: row + tf.random.normal(()), x),
    r"branch or a loop \(tf.cond": lambda x: tf.cond(
        x[0] > 0, lambda: tf.random.normal(()), lambda: tf.random.uniform(())
    ),
    "inside tf.vectorized_map": lambda x: tf.vectorized_map(lambda row: tf.random.normal(()), x),
    "with an alpha that the program computes": lambda x: tf.random.gamma((), x),
    r"own random stream \(RandomPoissonV2\)": lambda x: tf.random.poisson((), x),
    r"own random stream \(RandomStandardNormal\)": lambda x: tf.raw_ops.RandomStandardNormal(
        shape=[3], dtype=tf.float32
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_stream_can_draw_right_is_refused(message):
    stream = TrialStream(foreign())
    (variable,) = stream.variables

    def step(x, start):
        with keras.StatelessScope([(variable, start)]), stream.drawing():
            return REFUSED[message](x)

    def trace():
        given = tf.ones(3), tf.constant(stream_starts([0])[0])
        traced = tf.function(step, autograph=False).get_concrete_function(*given)
        refuse_operations(traced.graph, left_out=False)

    with pytest.raises(CannotFuse, match=message):
        trace()


def foreign(function=abs):
    return keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: function(x))])


def test_a_tf_function_that_was_called_in_a_step_draws_from_tensorflow_after_it():
    """What was traced in the step is not found again."""
    stream, drawn = TrialStream(foreign()), tf.function(lambda: tf.random.normal((2,)))
    with stream.drawing():
        first, second = drawn(), drawn()
    with TrialStream(foreign()).drawing():
        np.testing.assert_array_equal(first, drawn())
    assert not np.array_equal(first, second)
    assert not np.array_equal(drawn(), drawn())
    np.testing.assert_array_equal(stream.variables[0].numpy(), stream_starts([0])[0] + [0, 2])


def test_plain_keras_calls_functions_as_ever_if_the_program_draws_nothing():
    """Here one whose Python code runs once, when it is traced; inlined it would run each time."""
    stream, calls = TrialStream(foreign()), []
    function = tf.function(lambda: calls.append(len(calls)) or tf.random.normal(()))
    with stream.drawing_in_plain_keras():
        function(), function()
    assert (len(calls), stream.is_used) == (1, False)
    with stream.drawing():
        function()
    with stream.drawing_in_plain_keras():
        function(), function()
    assert (len(calls), stream.is_used) == (4, True)


def test_a_model_of_kerass_own_classes_has_no_stream():
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.1)])
    assert TrialStream(plain).variables == []


def test_a_step_that_draws_is_told_from_others():
    """Whatever `model.fit` would take for it, such a model is compiled."""
    rows = tf.ones((2, 3)), tf.ones((2, 3))
    for function, draws in ((abs, False), (lambda x: x + tf.random.normal(tf.shape(x)), True)):
        model = foreign(function)
        model.compile("sgd", "mse")
        assert draws_in_a_step(model, rows) is draws


# Trials -------------------------------------------------------------------------------------------


NOISY = """
import keras
import tensorflow as tf
from keras import layers


class Noisy(layers.Layer):
    def call(self, x, training=False):
        if training:
            x = tf.nn.dropout(x, 0.2)
        return x + tf.random.normal(tf.shape(x), stddev=0.3)


def build():
    return keras.Sequential([keras.Input((6,)), Noisy(), layers.Dense(3, "softmax")])
"""


def test_what_a_trial_draws_depends_on_its_seed_alone(tmp_path):
    """Not on the order of its pack, and it goes on from a checkpoint; evaluations draw too."""
    (tmp_path / "noisy.py").write_text(NOISY)
    training = {"epochs": 2, "checkpoint_every": 1, "check_engine": True, "engine": "fused"}
    given = {"data": {"args": FEW_ROWS}, "search": {"parameters": {}}, "training": training}
    trials = load_trials(tmp_path, builder="noisy.py:build", seeds=3, **given)
    task = make_task(tmp_path, trials)
    *said, result = train_pack(task, "CPU")
    assert "come from a stream of each trial's own" in result.reason
    expected = [row.history for row in result.trials]
    assert len({history["val_loss"].tobytes() for history in expected}) == 3
    *_, turned = train_pack(make_task(tmp_path, trials[::-1]), "CPU")
    (checkpoint,) = (one for one in said if isinstance(one, Checkpoint) and max(one.epochs) == 1)
    *_, resumed = train_pack(replace(task, checkpoint=checkpoint), "CPU")
    for again in (turned.trials[::-1], resumed.trials):
        for row, history in zip(again, expected, strict=True):
            for name, values in history.items():
                np.testing.assert_array_equal(row.history[name], values)
    # An older version had no stream, as its programs drew nothing.
    older = replace(checkpoint, optimizer=checkpoint.optimizer[:-1])
    *_, resumed = train_pack(replace(task, checkpoint=older), "CPU")
    assert [row.status for row in resumed.trials] == ["completed"] * 3
