"""An error of Keras, TensorFlow or XLA becomes one line that names the layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from trialrun.messages import in_short, said_by
from trialrun.training.program.pure_model import read_state
from trialrun.training.program.reasons import short_reason
from trialrun.training.state import ModelState

pytestmark = pytest.mark.tensorflow

MODEL = keras.Sequential([keras.Input((6,)), layers.Dense(5)])

QR = """in user code:

    ValueError: No pfor vectorization defined for Qr
    name: "loop_body/{scopes}/Qr"
    op: "Qr"
    input: "loop_body/{scopes}/add"
"""
DAWSN = (
    "Detected unsupported operations when trying to compile graph while_body_1[] on XLA_CPU_JIT:"
    " Dawsn (No registered 'Dawsn' OpKernel for XLA_CPU_JIT devices compatible with node"
    " {{{{node loop_body/{scopes}/dawsn/Dawsn/pfor/Dawsn}}}})"
)


def nested():
    inner = keras.Sequential([layers.Dense(4, name="attend"), layers.Dense(4)], name="block")
    return keras.Sequential([keras.Input((6,)), layers.Dense(5), inner, layers.Dense(2)])


@pytest.mark.parametrize(
    ("scopes", "layer"),
    [
        ("sequential/block/attend", 'layer "attend": '),
        ("sequential_4_1/block_1/attend_1", 'layer "attend": '),
        ("sequential/block/add", 'layer "block": '),
        ("gradient_tape/sequential/block/attend/MatMul", 'layer "attend": '),
        ("sequential/elsewhere", ""),
    ],
)
def test_the_innermost_layer_around_an_operation_is_named(scopes, layer):
    model = nested()
    vectorized = short_reason(ValueError(QR.format(scopes=scopes)), model)
    assert vectorized == f"{layer}Qr has no vectorized form"
    compiled = short_reason(ValueError(DAWSN.format(scopes=scopes)), model)
    assert compiled == f"{layer}XLA cannot compile the operation Dawsn"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "XLA compilation requires a fixed tensor list size. Set the max number of elements."
            " [[{{node sequential/block/attend/while}}]]",
            'layer "attend": XLA does not know how long a loop is whose gradient is needed; give'
            " the loop (ops.while_loop, tf.while_loop) maximum_iterations",
        ),
        (
            "Detected unsupported operations when trying to compile graph a[] on XLA_CPU_JIT:"
            " TensorListReserve (No registered 'TensorListReserve' OpKernel for XLA_CPU_JIT)",
            "a loop with a gradient has no vectorized form",
        ),
        (
            "Required handle data not set for <tf.Tensor 'loop_body/b:0' dtype=variant>",
            "a loop with a gradient has no vectorized form",
        ),
        (
            "`dtype` <dtype: 'variant'> is not compatible with 0 of dtype int64.",
            "a loop with a gradient has no vectorized form",
        ),
    ],
)
def test_what_cannot_be_said_of_a_loop_is_said_in_words_of_its_users(message, reason):
    assert short_reason(ValueError(message), nested()) == reason


def test_an_error_inside_of_a_layer_is_told_with_the_layer():
    message = (
        "Exception encountered when calling Dropout.call().\n\n"
        "\x1b[1mno such rate\x1b[0m\n\nArguments received by Dropout.call():\n"
    )
    one = keras.Sequential([keras.Input((6,)), layers.Dropout(0.1, name="thin")])
    assert short_reason(ValueError(message), one) == 'layer "thin": no such rate'
    two = keras.Sequential([keras.Input((6,)), layers.Dropout(0.1), layers.Dropout(0.2)])
    assert short_reason(ValueError(message), two) == "no such rate"


class Raises(layers.Layer):
    """Calls a function that raises, or its graph, as the layer of a user might."""

    def __init__(self, function, in_graph):
        super().__init__(name="odd")
        self.function = tf.function(function) if in_graph else function

    def call(self, x):
        return self.function(x)


def bare_assert(x):
    raise AssertionError  # as `assert` does; pytest would give one of its own a message


def no_message(x):
    raise RuntimeError


def missing_key(x):
    return {}["gr\xf6\xdfe"]


def colored(x):
    raise ValueError("\x1b[31mno such\x1b[0m\n  \x1b]0;a title\x07rate")


def of_tensorflow(x):
    return tf.debugging.assert_rank(x, 3)


WAYS = {
    "at once": lambda layer: layer(tf.zeros((2, 4))),
    "in a graph": lambda layer: tf.function(lambda x: layer(x))(tf.zeros((2, 4))),
    "in a model": lambda layer: keras.Sequential([layers.Dense(4), keras.Sequential([layer])])(
        tf.zeros((2, 4))
    ),
    "in a graph of a model": lambda layer: tf.function(
        lambda x: keras.Sequential([layers.Dense(4), layer])(x)
    )(tf.zeros((2, 4))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(
    ("function", "reason", "short"),
    [
        (bare_assert, "AssertionError", "AssertionError in Raises.call()"),
        (no_message, "RuntimeError", "RuntimeError in Raises.call()"),
        (missing_key, "KeyError: 'gr\xf6\xdfe'", "KeyError in Raises.call(): 'gr\xf6\xdfe'"),
        (colored, "no such rate", "ValueError in Raises.call(): no such rate"),
        (of_tensorflow, "Tensor ", "ValueError in Raises.call(): "),
    ],
)
def test_the_cause_is_told_however_keras_and_tensorflow_wrap_it(
    function, reason, short, in_graph, way
):
    if function is missing_key and in_graph:  # this is what Keras makes of it
        short = f"RuntimeError in Raises.call(): {reason}"
        if "model" in way:
            short = "KeyError in Raises.call(): 'gr\xf6\xdfe'"
    layer = Raises(function, in_graph)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        WAYS[way](layer)
    told, told_shortly = (
        short_reason(caught.value, keras.Sequential([layer])),
        in_short(caught.value),
    )
    if function is of_tensorflow:
        assert told.startswith('layer "odd": Tensor')
        assert told_shortly.startswith(short)
        assert "must have rank 3" in told_shortly
    else:
        assert told == f'layer "odd": {reason}'
        assert told_shortly == short


def test_an_error_of_a_running_graph_is_told_without_where_its_operation_was_made():
    model = keras.Sequential([keras.Input((1,)), layers.Embedding(3, 2), layers.Flatten()])
    model.compile(loss="mse")
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        model.fit(np.full((4, 1), 9), np.zeros((4, 2)), verbose=0)
    assert in_short(caught.value) == "InvalidArgumentError: indices[0,0] = 9 is not in [0, 3)"


@pytest.mark.parametrize("is_read_again", [False, True])
def test_a_variable_that_is_assigned_in_a_branch_is_told_in_plain_words(is_read_again):
    count = keras.Variable(0.0, name="count")

    def step(x):
        with keras.StatelessScope() as scope:
            keras.ops.cond(x > 0, lambda: [count.assign_add(x), x][1], lambda: x)
            if is_read_again:
                tf.identity(count + 1)
            read_state(scope, ModelState([count], [], []), ModelState([x], [], []))

    with pytest.raises(Exception) as caught:  # noqa: PT011
        tf.function(step, autograph=False)(tf.constant(1.0))
    who = "a variable" if is_read_again else "'count'"
    assert short_reason(caught.value, MODEL).startswith(f"{who} is assigned inside a branch")


def test_an_error_within_an_error_of_a_layer_is_told_with_the_inner_call():
    """A graph inside of a layer makes a new error, which the layer wraps again."""
    inner = Raises(colored, in_graph=False)
    outer = Raises(lambda x: inner(x), in_graph=True)
    with pytest.raises(ValueError, match="no such") as caught:
        outer(tf.zeros((2, 4)))
    assert in_short(caught.value) == "ValueError in Raises.call(): no such rate"


@settings(max_examples=200, deadline=None)
@given(said=st.text(max_size=40), kind=st.sampled_from([ValueError, KeyError, AssertionError]))
def test_any_error_is_one_line_of_printable_text_that_names_a_cause(said, kind):
    for error in (kind(said), kind(f"in user code:\n\n    {kind.__name__}: {said}\n"), kind()):
        for told in (in_short(error), said_by(error), short_reason(error, MODEL)):
            assert told
            assert told.isprintable()
            assert len(told) < 400


def test_any_other_error_is_told_in_one_line():
    model = nested()
    assert short_reason(ValueError("no\nmore"), model) == "ValueError: no more"
    in_code = "in user code:\n\n    File x\n\n    TypeError: not that\n"
    assert short_reason(ValueError(in_code), model) == "TypeError: not that"
