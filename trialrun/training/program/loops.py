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


def repeat(
    take_step: Callable[[tf.Tensor, Any, Any], tuple[Any, Any]],
    num_steps: int | tf.Tensor,
    state: Any,
    recorders: Any = (),
    *,
    one_trial: bool = False,
) -> tuple[Any, Any]:
    """The state and the recorders after a loop of steps.

    Args:
        take_step: (step number, state, recorders) -> (new state, new recorders).
        num_steps: How many steps there are. Without `maximum_iterations`: XLA would not know the
            loop's length.
        state: Tensors (trials, ...) before the first step.
        recorders: What else is carried, such as a structure of `tf.TensorArray`.
        one_trial: Whether the state is of one trial, (1, ...), and is carried without that axis.
            With it, XLA copies all of the state in each step where it could write new values over
            the old ones: a fusion that also changes a shape does not share its memory.
    """
    flat_state = tf.nest.flatten(state)

    def body(index: tf.Tensor, carried: list[tf.Tensor], recorders: Any) -> Any:
        new, recorders = take_step(index, state_of(carried), recorders)
        pairs = zip(tf.nest.flatten(new), flat_state, strict=True)
        return index + 1, to_carry([tf.ensure_shape(a, b.shape) for a, b in pairs]), recorders

    def to_carry(stacks: list[tf.Tensor]) -> list[tf.Tensor]:
        return [tf.squeeze(stack, 0) for stack in stacks] if one_trial else stacks

    def state_of(carried: list[tf.Tensor]) -> Any:
        stacks = [tf.expand_dims(tensor, 0) for tensor in carried] if one_trial else carried
        return tf.nest.pack_sequence_as(state, stacks)

    begin = (0, to_carry(flat_state), recorders)
    _, carried, recorders = tf.while_loop(lambda index, *_: index < num_steps, body, begin)
    return state_of(carried), recorders


def record(
    take_step: Callable[[tf.Tensor, Any], tuple[Any, Any]],
    num_steps: int,
    state: Any,
    outputs: Any,
    *,
    one_trial: bool = False,
) -> tuple[Any, Any]:
    """The state after a loop of steps, and the outputs of all of them.

    Args:
        take_step: (step number, state) -> (new state, outputs); the outputs are losses (trials,)
            and predictions (trials, batch, ...).
        num_steps: At least one.
        state: The state before the first step.
        outputs: Tensors with the shapes and dtypes of a step's outputs.
        one_trial: As in `repeat`.

    Returns:
        The state, and losses (trials, steps) and predictions (trials, rows, ...).
    """
    recorders = [
        tf.TensorArray(output.dtype, num_steps, element_shape=output.shape)
        for output in tf.nest.flatten(outputs)
    ]

    def take_and_write(index: tf.Tensor, state: Any, recorders: list[Any]) -> Any:
        state, outputs = take_step(index, state)
        written = zip(recorders, tf.nest.flatten(outputs), strict=True)
        return state, [recorder.write(index, output) for recorder, output in written]

    state, recorders = repeat(take_and_write, num_steps, state, recorders, one_trial=one_trial)
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

    def see_batch(index: tf.Tensor, values: list[tf.Tensor], recorders: Any) -> Any:
        return see(values, index * batch_size + tf.range(batch_size)), recorders

    values, _ = repeat(see_batch, num_steps, list(values))
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
