"""The task of a built model, read from its losses and outputs, no matter who compiled it.

Keras is imported inside functions.
"""

import functools
import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trialrun.data.model_task import Family, OutputLoss
from trialrun.job.keras_api.names import CHOSEN_BY_SHAPES, LOSSES
from trialrun.job.keras_api.terms import class_name
from trialrun.training.model.inputs import symbolic_inputs

if TYPE_CHECKING:
    import keras

_FAMILIES: Mapping[str, Family] = {
    "BinaryCrossentropy": "binary",
    "BinaryFocalCrossentropy": "binary",
    "SparseCategoricalCrossentropy": "sparse",
    "CategoricalCrossentropy": "categorical",
    "CategoricalFocalCrossentropy": "categorical",
    "CategoricalHinge": "categorical_hinge",
    "KLDivergence": "distribution",
    "Hinge": "hinge",
    "SquaredHinge": "hinge",
    "Poisson": "count",
    "MeanSquaredLogarithmicError": "logarithm",
    "CosineSimilarity": "quantity",
    "Huber": "quantity",
    "LogCosh": "quantity",
    "MeanAbsoluteError": "quantity",
    "MeanAbsolutePercentageError": "quantity",
    "MeanSquaredError": "quantity",
}
_SAID_OF_PROBABILITIES = "thus does not represent logits"
_CLASSES = {class_name(name) for name in LOSSES if name not in CHOSEN_BY_SHAPES}


def output_losses(model: "keras.Model", loss: Any, x: Any, y: Any = None) -> tuple[OutputLoss, ...]:
    """The outputs of a model that have a loss, each with its loss, in the order of the outputs.

    Args:
        model: A built model.
        loss: As `compile` takes it.
        x: Some rows of its inputs, arrays (rows, ...) in their structure.
        y: Labels of these rows, for a loss that Keras chooses by shapes.

    Returns:
        Empty for a model whose whole loss comes from `add_loss` or its own `train_step`.
    """
    import keras

    outputs = _outputs_of(model, x)
    flat = keras.tree.flatten(outputs)
    names = _names_of(model, outputs, len(flat))
    losses = _losses_of(loss, names)
    found = []
    for index, (name, output) in enumerate(zip(names, flat, strict=True)):
        if (own := losses.get(name)) is None:
            continue
        output_name = name if len(flat) > 1 else ""
        shape = tuple(output.shape[1:])
        label_shape = _label_shape(y, output_name, index)
        known, arguments = _resolve(own, shape, label_shape)
        takes_logits = bool(arguments.get("from_logits")) and not _gives_probabilities(
            model, _callable(own, known, arguments), x, index
        )
        found.append(
            OutputLoss(
                name=_shown(own, known),
                family=_FAMILIES.get(known, "other" if known else "own"),
                shape=shape,
                output=output_name,
                from_logits=takes_logits,
                activation=_activation_of(model, output),
                ignored_class=arguments.get("ignore_class"),
            )
        )
    return tuple(found)


def _outputs_of(model: "keras.Model", x: Any) -> Any:
    """The model's symbolic outputs."""
    import keras

    if isinstance(model, keras.Sequential):
        return model.outputs[0]
    if getattr(model, "outputs", None):
        return model.output
    return model(symbolic_inputs(x))


def _names_of(model: "keras.Model", outputs: Any, num_outputs: int) -> list[str]:
    if isinstance(outputs, Mapping):
        return sorted(outputs)  # as Keras flattens them
    names = list(getattr(model, "output_names", None) or ())
    return names if len(names) == num_outputs else [str(index) for index in range(num_outputs)]


def _losses_of(loss: Any, names: list[str]) -> dict[str, Any]:
    """Output -> its loss; a single loss applies to every output."""
    if isinstance(loss, Mapping):
        if len(names) == 1 and len(loss) == 1:
            return {names[0]: next(iter(loss.values()))}
        return dict(loss)
    if isinstance(loss, list | tuple):
        return dict(zip(names, loss, strict=False))
    return dict.fromkeys(names, loss)


def _label_shape(y: Any, output: str, index: int) -> tuple[int, ...] | None:
    """The shape of one row's labels for an output; None if it is unknown."""
    if isinstance(y, Mapping):
        y = y.get(output)
    elif isinstance(y, tuple):
        y = y[index] if index < len(y) else None
    shape = getattr(y, "shape", None)
    return None if shape is None else tuple(shape[1:])


def _resolve(
    loss: Any, shape: tuple[int | None, ...], label_shape: tuple[int, ...] | None
) -> tuple[str, dict[str, Any]]:
    """The Keras class of a loss and its arguments; the class is empty for a loss of the user's."""
    import keras

    if isinstance(loss, functools.partial):
        known, _ = _resolve(loss.func, shape, label_shape)
        return known, dict(loss.keywords)
    if isinstance(loss, str):
        if loss.lower() in CHOSEN_BY_SHAPES:
            return _chosen_by_shapes(shape, label_shape), {}
        return (class_name(loss), {}) if loss in LOSSES else ("", {})
    if isinstance(loss, keras.losses.Loss):
        known = type(loss).__name__
        is_keras = getattr(keras.losses, known, None) is type(loss)
        return (known, loss.get_config()) if is_keras and known in _CLASSES else ("", {})
    name = getattr(loss, "__name__", "")
    if name in LOSSES and getattr(keras.losses, name, None) is loss:
        return class_name(name), {}
    return "", {}


def _chosen_by_shapes(shape: tuple[int | None, ...], label_shape: tuple[int, ...] | None) -> str:
    """The class that Keras chooses for `crossentropy`; empty if the labels are unknown."""
    if shape[-1:] == (1,):
        return "BinaryCrossentropy"
    if label_shape is None:
        return ""
    is_sparse = len(label_shape) < len(shape) or label_shape[-1:] == (1,)
    return "SparseCategoricalCrossentropy" if is_sparse else "CategoricalCrossentropy"


def _callable(loss: Any, known: str, arguments: Mapping[str, Any]) -> Any:
    """The loss as an object that Keras would call."""
    import keras

    if isinstance(loss, keras.losses.Loss):
        return loss
    loss_class = getattr(keras.losses, known)
    allowed = inspect.signature(loss_class).parameters
    return loss_class(**{name: value for name, value in arguments.items() if name in allowed})


def _gives_probabilities(model: "keras.Model", loss: Any, x: Any, index: int) -> bool:
    """Whether an output comes from a sigmoid or softmax whose logits Keras finds itself.

    Keras 3.15 warns when it does so. The answer is that warning, so that it is never a guess.
    """
    import keras
    import tensorflow as tf

    rows = keras.tree.map_structure(lambda array: tf.constant(array[:1]), x)

    def loss_of_rows() -> Any:
        output = keras.tree.flatten(model(rows, training=False))[index]
        is_sparse = "sparse" in type(loss).__name__.lower()
        return loss(tf.zeros_like(output[..., 0] if is_sparse else output), output)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tf.function(loss_of_rows, autograph=False).get_concrete_function()
    return any(_SAID_OF_PROBABILITIES in str(warning.message) for warning in caught)


def _shown(loss: Any, known: str) -> str:
    """The name of a loss in messages."""
    if isinstance(loss, str):
        return loss
    if isinstance(loss, functools.partial):
        loss = loss.func
    name = getattr(loss, "__name__", "") or type(loss).__name__
    return str(getattr(loss, "name", name) if known else name)


def _activation_of(model: "keras.Model", output: Any) -> str:
    """The activation of the layer that makes an output; empty if unknown."""
    layer = _maker_of(model, output)
    nested = getattr(layer, "outputs", None)
    if nested:  # a model within the model
        return _activation_of(layer, nested[0]) if len(nested) == 1 else ""
    kind = type(layer).__name__.lower()
    if kind in ("softmax", "sigmoid", "relu"):
        return kind
    activation = getattr(layer, "activation", None)
    return str(getattr(activation, "__name__", ""))


def _maker_of(model: "keras.Model", output: Any) -> Any:
    """The layer or operation of a functional model that makes an output; None if none is found."""
    for operation in reversed(getattr(model, "operations", None) or getattr(model, "layers", [])):
        try:
            made = operation.output
        except (AttributeError, ValueError):  # a layer that is called several times has no `output`
            continue
        if made is output:
            return operation
    return None
