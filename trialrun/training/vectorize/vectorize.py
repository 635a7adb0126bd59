"""Vectorizes a function of one trial over the trial axis.

TensorFlow's `pfor` converts a traced function operation by operation. `converters`, `convolutions`
and `scatters` hold the conversions that it lacks and training needs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trialrun.training.internals import tensorflow_graph
from trialrun.training.vectorize.converters import own_converters
from trialrun.training.vectorize.convolutions import convolution_converters
from trialrun.training.vectorize.scatters import scatter_converters


def vectorize(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The results of `function` for every trial, stacked on axis 0, computed together.

    Args:
        function: Maps one trial's tensors to a structure of tensors; traced once.
        arguments: Structures of tensors `(trials, ...)`, one per parameter of `function`.

    Raises:
        ValueError: An operation in `function` has no vectorized form; the message names it.
    """
    _add_converters()
    stacks = tuple(arguments)
    num_trials = tf.nest.flatten(stacks)[0].shape[0]
    axis = tf.constant(0)  # one node of the graph for all that follows

    def of_trial(index: tf.Tensor) -> Any:
        return function(*tf.nest.map_structure(lambda s: tf.gather(s, index, axis=axis), stacks))

    # `tf.vectorized_map` would leave a single trial unconverted: its dropout would be drawn by
    # XLA's own generators, which give other numbers.
    return tensorflow_graph.for_every_index(of_trial, num_trials)


@functools.cache
def _add_converters() -> None:
    """Gives `pfor` the conversions that it lacks, for the life of this process."""
    tensorflow_graph.set_converters(
        {**own_converters(), **convolution_converters(), **scatter_converters()}
    )
