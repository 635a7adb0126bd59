"""An error of Keras, TensorFlow or XLA becomes one line that names the layer."""

import keras
import pytest
from keras import layers

from trialrun.training.program.reasons import short_reason

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


def test_an_error_inside_of_a_layer_is_told_with_the_layer():
    message = (
        "Exception encountered when calling Dropout.call().\n\n"
        "\x1b[1mno such rate\x1b[0m\n\nArguments received by Dropout.call():\n"
    )
    one = keras.Sequential([keras.Input((6,)), layers.Dropout(0.1, name="thin")])
    assert short_reason(ValueError(message), one) == 'layer "thin": no such rate'
    two = keras.Sequential([keras.Input((6,)), layers.Dropout(0.1), layers.Dropout(0.2)])
    assert short_reason(ValueError(message), two) == "no such rate"


def test_any_other_error_is_told_in_one_line():
    model = nested()
    assert short_reason(ValueError("no\nmore"), model) == "ValueError: no more"
    in_code = "in user code:\n\n    File x\n\n    TypeError: not that\n"
    assert short_reason(ValueError(in_code), model) == "TypeError: not that"
