"""A model's inputs as Keras takes them: symbolic inputs, and texts as tensors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def symbolic_inputs(x: Any) -> Any:
    """Symbolic inputs with the shape and type of `x` and any number of rows."""
    import keras

    def symbolic(array: Any) -> "keras.KerasTensor":
        dtype = "string" if array.dtype == object else str(array.dtype)
        return keras.KerasTensor((None, *array.shape[1:]), dtype)

    return keras.tree.map_structure(symbolic, x)


def with_text_tensors(x: Any) -> Any:
    """The inputs, all as tensors if one of them is text; else unchanged.

    Keras 3.15 takes neither arrays of text nor a mix of arrays and tensors.
    """
    import keras
    import tensorflow as tf

    if all(array.dtype != object for array in keras.tree.flatten(x)):
        return x
    return keras.tree.map_structure(tf.convert_to_tensor, x)
