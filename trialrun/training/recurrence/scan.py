"""Loops over steps in time: of one trial, or of all trials together."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from trialrun.training.internals import tensorflow_graph


class Value(NamedTuple):
    """A tensor of one trial, or of all trials stacked on axis 0."""

    tensor: tf.Tensor
    is_stacked: bool


class Scan(NamedTuple):
    """A loop over time.

    Attributes:
        step: (what is sliced by time..., what is constant..., what is carried...) of one trial ->
            what is carried on, and what is recorded.
        num_steps: At least one.
        num_sliced, num_constant: How many arguments of the step are of these kinds.
        recorded: What has the shape and type of what a step records.
        is_backwards: Whether the last step in time is taken first.
    """

    step: Callable[..., list[tf.Tensor]]
    num_steps: int
    num_sliced: int
    num_constant: int
    recorded: Sequence[Any]
    is_backwards: bool = False

    def run(self, inputs: Sequence[Value], num_trials: int | None = None) -> list[tf.Tensor]:
        """What is carried at the end, and what all steps recorded.

        Args:
            inputs: What is sliced (time, ...), what is constant, and what is carried first.
            num_trials: None for a single trial, without an axis of trials.

        Returns:
            What is carried (...), what is recorded (time, ...); both with an axis of trials before
            if there are trials.
        """
        sliced = [_by_time(value) for value in inputs[: self.num_sliced]]
        constant = inputs[self.num_sliced : self.num_sliced + self.num_constant]
        first = inputs[self.num_sliced + self.num_constant :]
        carried = [_all_trials(value, num_trials) for value in first]
        trials = [] if num_trials is None else [num_trials]
        recorders = [
            tf.TensorArray(one.dtype, self.num_steps, element_shape=[*trials, *one.shape])
            for one in self.recorded
        ]

        def body(number: tf.Tensor, carried: list[tf.Tensor], recorders: list[Any]) -> Any:
            time = self.num_steps - 1 - number if self.is_backwards else number
            now = [
                Value(stack[:, time] if axis else stack[time], is_stacked)
                for stack, axis, is_stacked in sliced
            ]
            before = [Value(tensor, num_trials is not None) for tensor in carried]
            results = self._step([*now, *constant, *before], num_trials)
            new, records = results[: len(carried)], results[len(carried) :]
            new = [tf.ensure_shape(a, b.shape) for a, b in zip(new, carried, strict=True)]
            written = zip(recorders, records, strict=True)
            return number + 1, new, [recorder.write(time, record) for recorder, record in written]

        # Without `maximum_iterations`: XLA would not know the loop's length.
        _, carried, recorders = tf.while_loop(
            lambda number, *_: number < self.num_steps, body, (0, carried, recorders)
        )
        stacks = [recorder.stack() for recorder in recorders]
        if num_trials is not None:
            stacks = [tf.transpose(s, [1, 0, *range(2, s.shape.rank)]) for s in stacks]
        return [*carried, *stacks]

    def _step(self, inputs: Sequence[Value], num_trials: int | None) -> list[tf.Tensor]:
        if num_trials is None:
            return self.step(*(value.tensor for value in inputs))
        axis = tf.constant(0)

        def of_trial(index: tf.Tensor) -> Any:
            return self.step(
                *(
                    tf.gather(value.tensor, index, axis=axis) if value.is_stacked else value.tensor
                    for value in inputs
                )
            )

        results: list[tf.Tensor] = tensorflow_graph.for_every_index(of_trial, num_trials)
        return results

    def traced(self, inputs: Sequence[tf.Tensor]) -> Any:
        """The loop of one trial as a concrete function, which `pfor` turns into that of all.

        Args:
            inputs: Tensors of the shapes and types of what it takes.
        """
        function = tf.function(
            lambda *tensors: self.run([Value(tensor, False) for tensor in tensors]),
            autograph=False,
        ).get_concrete_function(*(tf.TensorSpec(t.shape, t.dtype) for t in inputs))
        tensorflow_graph.vectorize_call_by(function.graph, self._run_stacked)
        return function

    def _run_stacked(self, inputs: Sequence[tuple[Any, bool]], num_trials: int) -> list[tf.Tensor]:
        return self.run([Value(*value) for value in inputs], num_trials)


def _by_time(value: Value) -> tuple[tf.Tensor, int, bool]:
    """A tensor, its axis of time, and whether it has an axis of trials.

    What a loop has recorded for all trials was transposed; the loop that goes back reads it as it
    was before, so that XLA need not transpose anything.
    """
    stack = value.tensor
    if not value.is_stacked:
        return stack, 0, False
    if stack.op.type == "Transpose":
        order = tf.get_static_value(stack.op.inputs[1])
        if order is not None and list(order) == [1, 0, *range(2, stack.shape.rank)]:
            return stack.op.inputs[0], 0, True
    return stack, 1, True


def _all_trials(value: Value, num_trials: int | None) -> tf.Tensor:
    if num_trials is None or value.is_stacked:
        return value.tensor
    return tf.broadcast_to(value.tensor, [num_trials, *value.tensor.shape])
