"""Loops over batches, for functions of stacked trials that are to be traced.

Shapes in comments: trials, rows (of a data set), steps (batches of an epoch), batch.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def traced(function: Any, *arguments: Any) -> Any:
    """What a `tf.function` gives, traced before: TensorFlow warns of calls that trace often."""
    function.get_concrete_function(*arguments)
    return function(*arguments)


def select_trials(mask: Any, new: Any, old: Any) -> Any:
    """Tensors (trials, ...): those of `new` for trials where the mask is true, else of `old`."""

    def select(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.reshape(mask, [-1, *[1] * (a.shape.rank - 1)]), a, b)

    return tf.nest.map_structure(select, new, old)


def record(
    take_step: Callable[[tf.Tensor, Any], tuple[Any, Any]],
    num_steps: int,
    state: Any,
    outputs: Any,
) -> tuple[Any, Any]:
    """The state after a loop of steps, and the outputs of all of them.

    Args:
        take_step: (step number, state) -> (new state, outputs); the outputs are losses (trials,)
            and predictions (trials, batch, ...).
        num_steps: At least one.
        state: The state before the first step.
        outputs: Tensors with the shapes and dtypes of a step's outputs.

    Returns:
        The state, and losses (trials, steps) and predictions (trials, rows, ...).
    """
    recorders = [
        tf.TensorArray(output.dtype, num_steps, element_shape=output.shape)
        for output in tf.nest.flatten(outputs)
    ]

    def body(index: tf.Tensor, state: Any, recorders: list[Any]) -> Any:
        state, outputs = take_step(index, state)
        recorders = [
            recorder.write(index, output)
            for recorder, output in zip(recorders, tf.nest.flatten(outputs), strict=True)
        ]
        return index + 1, state, recorders

    _, state, recorders = tf.while_loop(
        lambda index, *_: index < num_steps, body, (0, state, recorders)
    )
    losses, predictions = tf.nest.pack_sequence_as(outputs, [r.stack() for r in recorders])
    losses = tf.transpose(losses, [1, 0, *range(2, losses.shape.rank)])
    return state, (losses, tf.nest.map_structure(_join_batches, predictions))


def over_batches(
    see: Callable[[list[tf.Tensor], tf.Tensor], list[tf.Tensor]],
    values: list[tf.Tensor],
    num_rows: int,
    batch_size: int,
) -> list[tf.Tensor]:
    """The values after the batches of some rows, one after another; the last may be partial.

    Args:
        see: (values, int32 row numbers (batch,)) -> new values.
        values: The values before.
        num_rows: At least one.
        batch_size: Rows per batch.
    """
    batch_size = min(batch_size, num_rows)
    num_steps, num_left = divmod(num_rows, batch_size)

    def body(index: tf.Tensor, values: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        new = zip(see(values, index * batch_size + tf.range(batch_size)), values, strict=True)
        return index + 1, [tf.ensure_shape(value, old.shape) for value, old in new]

    _, values = tf.while_loop(lambda index, _: index < num_steps, body, (0, list(values)))
    return see(values, tf.range(num_rows - num_left, num_rows)) if num_left else values


def append(recorded: Any, last: Any) -> Any:
    """The last batch's results appended on axis 1 to those of the whole batches."""
    return tf.nest.map_structure(lambda a, b: tf.concat([a, b], 1), recorded, last)


def split_batches(orders: tf.Tensor, batch_size: int) -> tf.Tensor:
    """(trials, rows) -> (steps, trials, batch)."""
    return tf.transpose(tf.reshape(orders, [orders.shape[0], -1, batch_size]), [1, 0, 2])


def _join_batches(outputs: tf.Tensor) -> tf.Tensor:
    """(steps, trials, batch, ...) -> (trials, rows, ...)."""
    num_steps, num_trials, batch_size, *features = outputs.shape
    by_trial = tf.transpose(outputs, [1, 0, 2, *range(3, outputs.shape.rank)])
    return tf.reshape(by_trial, [num_trials, num_steps * batch_size, *features])
