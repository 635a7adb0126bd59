"""The built-in builder, `trialrun.models:mlp` in a job.

Keras is imported inside functions: naming a builder costs nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def mlp(
    *,
    units: Sequence[int] = (16, 32),
    activation: str = "relu",
    num_classes: int = 2,
    dropout: float = 0.0,
    batch_normalization: bool = False,
    l2: float = 0.0,
) -> "keras.Model":
    """A multilayer perceptron that classifies: one dense layer per entry of `units`, then softmax.

    With the defaults and one input feature it has 642 parameters.

    Args:
        units: Width of each hidden layer.
        activation: Activation of the hidden layers; any name that Keras knows.
        num_classes: Width of the softmax.
        dropout: Rate after each hidden layer, from 0 to below 1; 0 adds no layer.
        batch_normalization: Whether each hidden layer is normalized before its activation.
        l2: Factor of the L2 penalty on the hidden layers' kernels.

    Returns:
        A model (rows, features) -> (rows, num_classes), which is built when it first sees data.
    """
    import keras

    layers: list[keras.layers.Layer] = []
    for width in units:
        penalty = keras.regularizers.L2(l2) if l2 else None
        if batch_normalization:
            layers += [
                # The normalization removes a bias before it, which would only drift in training.
                keras.layers.Dense(width, use_bias=False, kernel_regularizer=penalty),
                keras.layers.BatchNormalization(),
                keras.layers.Activation(activation),
            ]
        else:
            layers.append(
                keras.layers.Dense(width, activation=activation, kernel_regularizer=penalty)
            )
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
    layers.append(keras.layers.Dense(num_classes, activation="softmax"))
    return keras.Sequential(layers)
