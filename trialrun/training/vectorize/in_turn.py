"""Runs a function of one trial for one trial after another, inside a compiled program.

Where `vectorize` changes the operations, this changes none: what XLA can compile for one trial, it
can compile in a loop over trials.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def apply_to_the_only(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The results of `function` for a single trial; tensors and results keep a trial axis of 1.

    Args:
        function: Maps one trial's tensors to a structure of tensors.
        arguments: Structures of tensors (1, ...), one per parameter of `function`.
    """
    results = function(*tf.nest.map_structure(lambda stack: stack[0], tuple(arguments)))
    return tf.nest.map_structure(lambda tensor: tf.expand_dims(tensor, 0), results)


def run_in_turn(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The results of `function` for every trial, stacked on axis 0, computed one by one.

    Args:
        function: Maps stacks of one trial, (1, ...), to a structure of such stacks.
        arguments: Structures of tensors (trials, ...), one per parameter of `function`.
    """
    stacks = tuple(arguments)
    specs = tf.nest.map_structure(lambda s: tf.TensorSpec([1, *s.shape[1:]], s.dtype), stacks)
    # A function of its own, so that one trace serves both its results' shapes and the loop.
    traced = tf.function(function, autograph=False)
    results = traced.get_concrete_function(*specs).structured_outputs
    num_trials = tf.nest.flatten(stacks)[0].shape[0]
    recorders = [
        tf.TensorArray(result.dtype, num_trials, element_shape=result.shape[1:])
        for result in tf.nest.flatten(results)
    ]

    def body(index: tf.Tensor, recorders: list[Any]) -> Any:
        own = tf.nest.flatten(traced(*tf.nest.map_structure(lambda s: s[index][None], stacks)))
        written = zip(recorders, own, strict=True)
        return index + 1, [recorder.write(index, tensor[0]) for recorder, tensor in written]

    # Not by `tf.map_fn`: with its bound on the iterations, XLA does not know the loop's length.
    _, recorders = tf.while_loop(lambda index, _: index < num_trials, body, (0, recorders))
    return tf.nest.pack_sequence_as(results, [recorder.stack() for recorder in recorders])
