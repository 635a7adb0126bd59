"""Vectorizes a function of one trial over the trial axis.

TensorFlow's `pfor` converts a traced function operation by operation. When this module is imported,
`converters` and `convolutions` add the conversions that `pfor` lacks and training needs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trialrun.training.internals import tensorflow_graph
from trialrun.training.vectorize import converters, convolutions  # noqa: F401


def vectorize(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The results of `function` for every trial, stacked on axis 0, computed together.

    Args:
        function: Maps one trial's tensors to a structure of tensors; traced once.
        arguments: Structures of tensors `(trials, ...)`, one per parameter of `function`.

    Raises:
        ValueError: An operation in `function` has no vectorized form; the message names it.
    """
    stacks = tuple(arguments)
    num_trials = tf.nest.flatten(stacks)[0].shape[0]
    # `tf.vectorized_map` would leave a single trial unconverted: its dropout would be drawn by
    # XLA's own generators, which give other numbers.
    return tensorflow_graph.for_every_index(
        lambda index: function(*tf.nest.map_structure(lambda s: tf.gather(s, index), stacks)),
        num_trials,
    )
