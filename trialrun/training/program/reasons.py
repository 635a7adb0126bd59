"""Turns an error of Keras, TensorFlow or XLA about a program into one line that names the layer."""

import re

import keras

from trialrun.messages import in_short
from trialrun.training.internals import keras_model

_MAX_LENGTH = 200
_NO_VECTORIZED_FORM = re.compile(r"No pfor vectorization defined for (\w+)")
_NO_KERNEL = re.compile(r" on XLA_\w+: (\w+) \(")
_WITHIN_KERAS = re.compile(
    r"Exception encountered when calling (\w+)\.\w+\(\)\.?\s+(?:\x1b\[\d*m)*(.*?)(?:\x1b|\n)"
)
# How an error names a graph's operation: in TensorFlow's vectorization, and in XLA.
_OPERATION = re.compile(r'^\s*name: "([^"]+)"$|\{\{node ([^}]+)\}\}', re.MULTILINE)
_NUMBER = re.compile(r"_\d+$")


def short_reason(error: Exception, model: keras.Model) -> str:
    """An error in one line, such as `layer "attend": Qr has no vectorized form`.

    Args:
        error: An error that was raised while a program of the model was traced or compiled.
        model: The model, whose layers give the names.
    """
    message = str(error)
    layer = _layer_of_operation(message, model)
    if operation := _NO_VECTORIZED_FORM.search(message):
        reason = f"{operation[1]} has no vectorized form"
    elif operation := _NO_KERNEL.search(message):
        reason = f"XLA cannot compile the operation {operation[1]}"
    elif call := _WITHIN_KERAS.search(message):
        layer, reason = layer or _layer_of_class(call[1], model), call[2]
    else:
        reason = in_short(error).removeprefix("CannotFuse: ").removeprefix("CannotShare: ")
    where = f'layer "{layer}": ' if layer else ""
    return f"{where}{reason}"[:_MAX_LENGTH]


def _layer_of_operation(message: str, model: keras.Model) -> str:
    """The innermost layer whose scope holds an operation of the message; empty if there is none.

    TensorFlow numbers a scope that is entered again: `sequential_1/attend_1/Qr`.
    """
    names = {layer.name for layer in keras_model.all_layers(model) if layer is not model}
    for found in _OPERATION.finditer(message):
        *scopes, _ = (found[1] or found[2]).split("/")
        for scope in reversed(scopes):
            for name in (scope, _NUMBER.sub("", scope)):
                if name in names:
                    return name
    return ""


def _layer_of_class(class_name: str, model: keras.Model) -> str:
    """The name of the only layer of a class; empty if there is not exactly one."""
    found = [layer for layer in keras_model.all_layers(model) if type(layer).__name__ == class_name]
    return str(found[0].name) if len(found) == 1 else ""
