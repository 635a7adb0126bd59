"""Keras's function of recurrence, `rnn`, as a loop that vectorizes over trials."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals.gradient_tapes import tapes_are_nested
from trialrun.training.recurrence.cell import Cell, trace_cell
from trialrun.training.recurrence.loop import run_loop
from trialrun.training.recurrence.loop_step import LoopStep

KerasRnn = Callable[..., tuple[Any, Any, Any]]
# XLA takes about half a second for each; the `mapped` engine compiles Keras's own loop.
_MOST_UNROLLED_STEPS = 100


class _Options(NamedTuple):
    """The parameters of Keras's `rnn` that may be given, as Keras documents them."""

    go_backwards: bool = False
    mask: Any = None
    constants: Any = None
    unroll: bool = False
    input_length: Any = None
    time_major: bool = False
    zero_output_for_mask: bool = False
    return_all_outputs: bool = True


def rolled_or_unrolled(
    keras_rnn: KerasRnn, step: Any, inputs: Any, states: Any, **options: Any
) -> tuple[Any, Any, Any]:
    """As Keras's `rnn`; what cannot be rolled is unrolled, for its own loop does not vectorize.

    Raises:
        CannotFuse: There are too many steps to unroll.
    """
    known = _Options(**options)
    results = _rolled(step, inputs, states, known)
    if results is not None:
        return results
    num_steps = keras.tree.flatten(inputs)[0].shape[1]
    if num_steps is not None and num_steps > _MOST_UNROLLED_STEPS:
        raise CannotFuse(f"a cell of its own kind is unrolled, and {num_steps} steps are too many")
    if not known.unroll:
        _take_discarded_step(step, inputs, states, known)
    return keras_rnn(step, inputs, states, **{**options, "unroll": True})


def _take_discarded_step(step: Any, inputs: Any, states: Any, options: _Options) -> None:
    """Takes the step before its loop of which Keras wants the shape of the output alone.

    It may assign variables, or draw random numbers, so that the steps of the loop get the next.
    """
    axis = 0 if options.time_major else 1
    first = keras.tree.map_structure(lambda tensor: tf.gather(tensor, 0, axis=axis), inputs)
    step(first, (*states, *(options.constants or ())))


def rolled_or_as_it_is(
    keras_rnn: KerasRnn, step: Any, inputs: Any, states: Any, **options: Any
) -> tuple[Any, Any, Any]:
    """As Keras's `rnn`, which does itself what cannot be rolled."""
    results = _rolled(step, inputs, states, _Options(**options))
    return keras_rnn(step, inputs, states, **options) if results is None else results


def _rolled(
    step: Any, inputs: Any, states: Sequence[Any], options: _Options
) -> tuple[Any, Any, Any] | None:
    """What Keras's `rnn` gives: the last output, all outputs, the last states; None if it cannot.

    Args:
        step: (input (batch, ...), states) -> (output, new states).
        inputs: (batch, time, ...).
        states: Before the first step, in their structure.
        options: Keras's.
    """
    if not _is_known(inputs, options):
        return None
    x = _swap_batch_and_time(inputs)
    cell = trace_cell(step, tf.TensorSpec(x.shape[1:], x.dtype), states)
    if cell is None:
        return None
    sliced = [x]
    if options.mask is not None:
        mask = tf.cast(options.mask, tf.bool)
        sliced.append(_swap_batch_and_time(mask[:, :, None] if mask.shape.rank == 2 else mask))
    if options.go_backwards:
        sliced = [tf.reverse(tensor, [0]) for tensor in sliced]
    return _run(cell, sliced, states, options)


def _is_known(inputs: Any, options: _Options) -> bool:
    """Whether all that a loop must know is known, and Keras's own code would do the same."""
    if keras.tree.is_nested(inputs) or not inputs.shape.is_fully_defined():
        return False
    if options.constants or options.time_major or isinstance(options.input_length, tf.Tensor):
        return False
    if options.unroll and options.go_backwards and options.zero_output_for_mask:
        return False  # Keras does not turn the mask around if it unrolls
    return not tapes_are_nested()  # the loop's gradient has no gradient


def _run(
    cell: Cell, sliced: list[tf.Tensor], states: Sequence[Any], options: _Options
) -> tuple[Any, Any, Any]:
    first = [tf.convert_to_tensor(state) for state in keras.tree.flatten(states)]
    num_states = len(first)
    same = _state_of_output(cell, first, options)
    # The output is carried on where it is not a state, and either the next one or the end reads it.
    carries_output = same is None and (len(sliced) > 1 or not options.return_all_outputs)
    if carries_output:
        first.append(tf.zeros(cell.output.shape, cell.output.dtype))

    def core(
        sliced: list[tf.Tensor], constants: list[tf.Tensor], carried: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        x, *mask = sliced
        output, new = cell.step(x, carried[:num_states], constants)
        if mask:
            new = [_where(mask[0], a, b) for a, b in zip(new, carried[:num_states], strict=True)]
            if same is None:
                before = carried[num_states]
                before = tf.zeros_like(before) if options.zero_output_for_mask else before
                output = _where(mask[0], output, before)
        output = output if same is None else new[same]
        return [output] * options.return_all_outputs, [*new, *[output] * carries_output]

    constants = cell.constants()
    of_a_step = [tf.TensorSpec(tensor.shape[1:], tensor.dtype) for tensor in sliced]
    carried, recorded = run_loop(
        LoopStep(core, of_a_step, constants, first), sliced, constants, first
    )
    if carries_output or same is not None:
        last = carried[num_states if same is None else same]
    else:
        last = recorded[0][-1]
    outputs = _swap_batch_and_time(recorded[0]) if recorded else last[:, None]
    return last, outputs, keras.tree.pack_sequence_as(list(states), carried[:num_states])


def _state_of_output(cell: Cell, first: list[tf.Tensor], options: _Options) -> int | None:
    """The index of the state that the output is in every step, masked ones too."""
    index = cell.state_of_output
    if index is None or options.mask is None:
        return index
    # While all steps before were masked, the output is zero, and the state what it was at first.
    value = tf.get_static_value(first[index])
    is_zero = value is not None and not value.any()
    return index if is_zero and not options.zero_output_for_mask else None


def _where(mask: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """`new` in the rows where the mask (batch, 1) is true, else `old`."""
    missing = [1] * (new.shape.rank - mask.shape.rank)
    return tf.where(tf.reshape(mask, [*mask.shape, *missing]), new, old)


def _swap_batch_and_time(tensor: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])
