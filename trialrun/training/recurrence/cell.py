"""A recurrent cell's step, traced once into a graph of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from trialrun.training.internals.keras_tracing import leaves_scope_alone
from trialrun.training.internals.tensorflow_graph import is_plain
from trialrun.training.recurrence.replay import operations_between, replay, values_of


def trace_cell(step: Callable[..., Any], x: tf.TensorSpec, states: Sequence[Any]) -> "Cell | None":
    """A cell, traced; None if it does what only its own Python code can do at each step.

    That is assigning variables, adding losses, and operations that call functions or have side
    effects.

    Args:
        step: Keras's function of a step: (input, states) -> (output, new states).
        x: Shape and type of a step's input (batch, ...).
        states: The states before the first step, in their structure.
    """
    found: list[Cell] = []

    def trace(x: tf.Tensor, *flat: tf.Tensor) -> tf.Tensor:
        output, new = step(x, keras.tree.pack_sequence_as(tuple(states), list(flat)))
        found.append(Cell(x, flat, [output, *keras.tree.flatten(new)]))
        return tf.constant(0)  # what counts was noted above

    specs = [tf.TensorSpec(state.shape, state.dtype) for state in keras.tree.flatten(states)]
    function = tf.function(trace, autograph=False)
    if not leaves_scope_alone(lambda: function.get_concrete_function(x, *specs)):
        return None
    (cell,) = found
    return cell if is_plain(cell.output.graph) else None


class Cell:
    """What a cell computes at each step, in a graph of its own.

    Args:
        x: The input of a step.
        states: The states before it.
        results: The output, and the new states.

    Attributes:
        output: The output of a step.
        state_of_output: The index of the new state that the output always is; None if there is
            none.
    """

    def __init__(self, x: tf.Tensor, states: Sequence[tf.Tensor], results: list[tf.Tensor]) -> None:
        self._x, self._states, self._results = x, list(states), results
        self._graph = x.graph  # tensors alone do not keep it
        self._constants: list[tf.Tensor] = []
        self.output, *new = results
        same = [index for index, state in enumerate(new) if state is self.output]
        self.state_of_output = same[0] if same else None

    def constants(self) -> list[tf.Tensor]:
        """What all steps read: what they compute of weights alone, computed once.

        It is to be called before `step`, in the graph that holds the weights.
        """
        captured = {inner.ref(): outer for outer, inner in self._graph.captures}
        self._constants = self._read_from_constants(captured)
        return replay(self._constants, captured)

    def _read_from_constants(self, captured: dict[Any, tf.Tensor]) -> list[tf.Tensor]:
        """What steps read of what depends on captured tensors, but not on the step."""
        changing = {tensor.ref() for tensor in (self._x, *self._states)}
        constant = set(captured)
        reading = []
        for operation in operations_between(self._results, dict.fromkeys(changing | constant)):
            inputs = {tensor.ref() for tensor in operation.inputs}
            if inputs & changing:
                changing |= {tensor.ref() for tensor in operation.outputs}
                reading.append(operation)
            elif inputs & constant:
                constant |= {tensor.ref() for tensor in operation.outputs}
        read = [*self._results, *(tensor for operation in reading for tensor in operation.inputs)]
        return list({t.ref(): t for t in read if t.ref() in constant}.values())

    def step(
        self, x: tf.Tensor, states: Sequence[tf.Tensor], constants: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The output of a step, and the new states.

        Args:
            x: The input.
            states: The states before.
            constants: As `constants` gave them.
        """
        known = values_of([self._x, *self._states, *self._constants], [x, *states, *constants])
        output, *new = replay(self._results, known, join_slices=True)
        return output, new
