"""The scope in which a model's code is traced, and the state that the code leaves behind."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals.tensorflow_graph import is_known_here
from trialrun.training.program.reasons import ASSIGNED_IN_A_BRANCH
from trialrun.training.state import ModelState


class WatchingScope(keras.StatelessScope):
    """A scope with the gradients that tf.Variables would give.

    A layer may assign its own trainable weight while it is called (SpectralNormalization does).
    The gradient of a weight is then the sum of those by every value that was read from it.
    """

    _tape: tf.GradientTape | None = None

    @contextlib.contextmanager
    def watching(
        self, variables: Sequence[keras.Variable], tape: tf.GradientTape
    ) -> Iterator[list[list[tf.Tensor]]]:
        """Gives one list per variable: its value, to which assigned values are added later."""
        self._watched = {id(v): [self.get_current_value(v)] for v in variables}
        self._tape = tape
        tape.watch(list(self._watched.values()))
        yield list(self._watched.values())
        self._tape = None

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        """Called by Keras: a variable is assigned a value."""
        variable, value = update
        if self._tape is not None and id(variable) in self._watched:
            value = tf.stop_gradient(tf.convert_to_tensor(value))  # an assignment ends the path
            self._tape.watch(value)
            self._watched[id(variable)].append(value)
        super().add_update((variable, value))


def read_state(scope: keras.StatelessScope, variables: ModelState, state: ModelState) -> ModelState:
    """The values that variables have now in a scope, and the hyperparameters of a state.

    Raises:
        CannotFuse: A variable has a value that only a branch or a loop knows.
    """
    groups = ([_value_in(scope, variable) for variable in group] for group in variables[:3])
    return ModelState(*groups)._replace(hyperparameters=state.hyperparameters)


def _value_in(scope: keras.StatelessScope, variable: keras.Variable) -> tf.Tensor:
    value = tf.convert_to_tensor(scope.get_current_value(variable))
    if not is_known_here(value):
        raise CannotFuse(f"{variable.path!r} {ASSIGNED_IN_A_BRANCH}")
    return value
