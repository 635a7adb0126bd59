"""Turns an error of Keras, TensorFlow or XLA about a program into one line that names the layer."""

import re

import keras

from trialrun.messages import Cause, cause_of
from trialrun.training.internals import keras_model

_MAX_LENGTH = 200
_NO_VECTORIZED_FORM = re.compile(r"No pfor vectorization defined for (\w+)")
_NO_KERNEL = re.compile(r" on XLA_\w+: (\w+) \(")
ASSIGNED_IN_A_BRANCH = (
    "is assigned inside a branch or a loop (ops.cond, tf.cond, tf.while_loop); assign it outside,"
    " to what ops.where chooses"
)
# What TensorFlow and XLA say of the lists in which a loop keeps what its gradient reads.
_LOOP_OF_UNKNOWN_LENGTH = "requires a fixed tensor list size"
_LOOP_OF_TRIALS = re.compile(
    r"Required handle data not set|<dtype: 'variant'> is not compatible| on XLA_\w+: TensorList"
)
_OURS = ("CannotFuse", "CannotShare")  # their words tell everything
# How an error names a graph's operation: in TensorFlow's vectorization, and in XLA.
_OPERATION = re.compile(r'^\s*name: "([^"]+)"$|\{\{node ([^}]+)\}\}', re.MULTILINE)
_NUMBER = re.compile(r"_\d+$")


def short_reason(error: Exception, model: keras.Model) -> str:
    """An error in one line, such as `layer "attend": Qr has no vectorized form`.

    Args:
        error: An error that was raised while a program of the model was traced or compiled.
        model: The model, whose layers give the names.
    """
    message, cause = str(error), cause_of(error)
    layer = _layer_of_operation(message, model) or _layer_of_class(cause, model)
    if operation := _NO_VECTORIZED_FORM.search(message):
        reason = f"{operation[1]} has no vectorized form"
    elif _LOOP_OF_TRIALS.search(message):
        reason = "a loop with a gradient has no vectorized form"
    elif _LOOP_OF_UNKNOWN_LENGTH in message:
        reason = (
            "XLA does not know how long a loop is whose gradient is needed; give the loop"
            " (ops.while_loop, tf.while_loop) maximum_iterations"
        )
    elif operation := _NO_KERNEL.search(message):
        reason = f"XLA cannot compile the operation {operation[1]}"
    elif cause.kind == "InaccessibleTensorError":  # it is read after that
        reason = f"a variable {ASSIGNED_IN_A_BRANCH}"
    else:
        # A key by itself tells nothing.
        needs_kind = cause.kind == "KeyError" or not (cause.call or cause.kind in _OURS)
        reason = ": ".join(filter(None, (cause.kind if needs_kind else "", cause.said)))
        reason = reason or cause.kind
    where = f'layer "{layer}": ' if layer else ""
    return f"{where}{reason}"[:_MAX_LENGTH]


def _layer_of_operation(message: str, model: keras.Model) -> str:
    """The innermost layer whose scope holds an operation of the message; empty if there is none."""
    operations = (found[1] or found[2] for found in _OPERATION.finditer(message))
    return next(filter(None, (layer_of(operation, model) for operation in operations)), "")


def layer_of(operation: str, model: keras.Model) -> str:
    """The innermost layer in whose scope an operation with a name is; empty if there is none.

    TensorFlow numbers a scope that is entered again: `sequential_1/attend_1/Qr`.
    """
    names = {layer.name for layer in keras_model.all_layers(model) if layer is not model}
    scopes = reversed(operation.split("/")[:-1])
    found = (name for scope in scopes for name in (scope, _NUMBER.sub("", scope)) if name in names)
    return next(found, "")


def _layer_of_class(cause: Cause, model: keras.Model) -> str:
    """The only layer of the class whose call raised an error; empty if there is not exactly one."""
    name = cause.call.partition(".")[0]
    found = [layer for layer in keras_model.all_layers(model) if type(layer).__name__ == name]
    return str(found[0].name) if len(found) == 1 else ""
