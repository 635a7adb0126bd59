"""Gradient tapes that watch what Keras variables hold within a stateless scope.

Inside such a scope the variables are not read, so a tape of TensorFlow would watch nothing. While
`tapes_in` lasts, each tape that is entered puts an identity of every trainable value into the
scope and watches that. Tapes nest, because an inner one takes its identity of the outer one's.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import keras
import tensorflow as tf
from keras.src.backend.common.stateless_scope import get_stateless_scope
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.eager.polymorphic_function import (
    autograph_util,
    function_type_utils,
    polymorphic_function,
)

from trialrun.errors import CannotFuse


class TapedScope(keras.StatelessScope):
    """A scope that knows which values its tapes watch.

    The gradient of a variable is the sum of those by every value that was read from it while the
    tape recorded, because an optimizer or a layer may assign it meanwhile. As with a `tf.Variable`,
    an assignment ends the path of the gradients.
    """

    def __init__(self, pairs: Sequence[tuple[keras.Variable, Any]]) -> None:
        super().__init__(pairs, collect_losses=True)
        self._variables = [variable for variable, _ in pairs]
        # `id(tape)` -> the tape, and `id(variable)` -> the values that it watches.
        self._watched: dict[int, tuple[tf.GradientTape, dict[int, list[Any]]]] = {}

    def enter(self, tape: tf.GradientTape) -> None:
        """Called when a tape begins to record, or does so again."""
        self._watched.setdefault(id(tape), (tape, {}))
        if tape._watch_accessed_variables:
            for variable in self._variables:
                if variable._value.trainable:
                    self.watch(tape, variable)

    def variable_with(self, value: Any) -> keras.Variable | None:
        """The variable that has this very tensor as its value; None if there is none."""
        values = self.state_mapping
        return next((v for v in self._variables if values.get(id(v)) is value), None)

    def watch(self, tape: tf.GradientTape, variable: keras.Variable) -> None:
        """Makes a tape watch the value that a variable has now."""
        values = self.watched(tape).setdefault(id(variable), [])
        now = tf.convert_to_tensor(self._value_of(variable))
        if values and values[-1] is now:
            return
        value = tf.stop_gradient(now) if values else tf.identity(now)
        tape.watch(value)  # before it is the variable's
        values.append(value)
        self.state_mapping[id(variable)] = value

    def watched(self, tape: tf.GradientTape) -> dict[int, list[Any]]:
        """`id(variable)` -> the values that a tape watches."""
        return self._watched[id(tape)][1] if id(tape) in self._watched else {}

    def values_of(self, tape: tf.GradientTape, source: Any) -> list[Any]:
        """The tensors that a tape differentiates by for a source of gradients."""
        if not isinstance(source, keras.Variable):
            return [source]
        # Of an unwatched variable: a new tensor, with which nothing was computed.
        return self.watched(tape).get(id(source)) or [tf.identity(self._value_of(source))]

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        """Called by Keras: a variable is assigned a value."""
        variable, value = update
        tapes = [
            (tape, values[id(variable)])
            for tape, values in self._watched.values()
            if tape._recording and id(variable) in values
        ]
        if tapes:
            value = tf.stop_gradient(tf.convert_to_tensor(value))
        for tape, values in tapes:
            tape.watch(value)
            values.append(value)
        super().add_update((variable, value))

    def _value_of(self, variable: keras.Variable) -> Any:
        value = self.get_current_value(variable)
        return variable._value if value is None else value


@contextlib.contextmanager
def tapes_in(scope: TapedScope) -> Iterator[None]:
    """Within this context, gradient tapes take the variables of a scope as sources."""
    kind = tf.GradientTape
    enter, watch, gradient = kind.__enter__, kind.watch, kind.gradient

    def own_enter(tape: tf.GradientTape) -> tf.GradientTape:
        enter(tape)
        scope.enter(tape)
        return tape

    def own_watch(tape: tf.GradientTape, tensor: Any) -> None:
        for one in tf.nest.flatten(tensor):
            variable = scope.variable_with(one)
            if variable is None:
                watch(tape, one)
            elif id(variable) not in scope.watched(tape):
                scope.watch(tape, variable)

    def own_gradient(
        tape: tf.GradientTape, target: Any, sources: Any, *args: Any, **given: Any
    ) -> Any:
        flat = tf.nest.flatten(sources)
        values = [scope.values_of(tape, source) for source in flat]
        everything = [value for group in values for value in group]
        gradients = iter(gradient(tape, target, everything, *args, **given))
        sums = [sum_gradients([next(gradients) for _ in group]) for group in values]
        return tf.nest.pack_sequence_as(sources, sums)

    with contextlib.ExitStack() as stack:
        own = {"__enter__": own_enter, "watch": own_watch, "gradient": own_gradient}
        for name in ("jacobian", "batch_jacobian"):
            own[name] = _by_one_value(scope, getattr(kind, name))
        for name in ("reset", "watched_variables"):
            own[name] = _refused(f"tf.GradientTape.{name}")
        for name, method in own.items():
            stack.enter_context(mock.patch.object(kind, name, method))
        refused = _refused("tf.autodiff.ForwardAccumulator")
        stack.enter_context(mock.patch.object(tf.autodiff.ForwardAccumulator, "__init__", refused))
        yield


def _by_one_value(scope: TapedScope, method: Callable[..., Any]) -> Callable[..., Any]:
    """A tape's method, by sources of which each must have had one value."""

    def by_value(tape: tf.GradientTape, target: Any, sources: Any, **given: Any) -> Any:
        def only(source: Any) -> Any:
            values = scope.values_of(tape, source)
            if len(values) > 1:
                raise CannotFuse("a Jacobian by a weight that is assigned while a tape records")
            return values[0]

        return method(tape, target, tf.nest.map_structure(only, sources), **given)

    return by_value


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise CannotFuse(f"a step uses {name}, which does not know variables within a program")

    return refuse


def tapes_are_nested() -> bool:
    """Whether more than one tape records, so that a gradient may be differentiated."""
    scope = get_stateless_scope()
    watched = scope._watched.values() if isinstance(scope, TapedScope) else ()
    return sum(bool(tape._recording) for tape, _ in watched) > 1


def sum_gradients(gradients: Sequence[Any]) -> Any:
    """The sum of a variable's gradients; a single one is left as it is, also if it is sparse."""
    known = [gradient for gradient in gradients if gradient is not None]
    if len(known) <= 1:
        return known[0] if known else None
    return tf.add_n([tf.convert_to_tensor(gradient) for gradient in known])


@contextlib.contextmanager
def functions_inlined() -> Iterator[None]:
    """Within this context, a `tf.function` is called as the Python function that it was made of.

    What it assigns would otherwise leak a tensor of its own graph into the scope. AutoGraph
    converts it where it would, so that its branches and loops may depend on tensors. An input
    signature makes tensors of lists, arrays and numbers, as it does in a call of TensorFlow's.
    """

    call_of_tensorflow = polymorphic_function.Function.__call__

    def call(function: Any, *args: Any, **given: Any) -> Any:
        python = function.python_function
        if str(python.__module__).startswith("tensorflow."):  # of `tf.vectorized_map`
            return call_of_tensorflow(function, *args, **given)
        if function.input_signature is not None:
            kind, defaults = function.function_type, function._default_values
            bound = function_type_utils.bind_function_inputs(args, given, kind, defaults)
            args, given = bound.args, bound.kwargs
        if function._autograph and not tf.executing_eagerly():
            options = function._experimental_autograph_options
            python = autograph_util.py_func_from_autograph(python, options)
        with ag_ctx.ControlStatusCtx(ag_ctx.Status.UNSPECIFIED):  # programs are traced without it
            return python(*args, **given)

    with mock.patch.object(polymorphic_function.Function, "__call__", call):
        yield
