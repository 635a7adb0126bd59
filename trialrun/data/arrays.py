"""Structures of arrays as Keras takes them for x and y: an array, or a dict or tuple of arrays."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Array | Mapping[str, Array] | tuple[Array, ...]


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of a structure, each with the subscript that finds it, e.g. `['age']`."""
    if isinstance(value, Mapping):
        for key, leaf in value.items():
            yield f"[{key!r}]", leaf
    elif isinstance(value, tuple):
        for position, leaf in enumerate(value):
            yield f"[{position}]", leaf
    else:
        yield "", value


def is_text(value: Any) -> bool:
    """Whether a value is an array of texts, as `trialrun.data.generator_arrays` makes it."""
    return isinstance(value, np.ndarray) and value.dtype == object


def map_leaves(function: Callable[[Array], Any], value: Arrays) -> Any:
    """The same structure, with each array replaced by a function's result for it."""
    if isinstance(value, Mapping):
        return {key: function(leaf) for key, leaf in value.items()}
    if isinstance(value, tuple):
        return tuple(function(leaf) for leaf in value)
    return function(value)


def join_outputs(outputs: Any) -> Array:
    """A model's predictions as one array; several outputs are put side by side, (rows, columns)."""
    if isinstance(outputs, Mapping):
        outputs = [outputs[name] for name in sorted(outputs)]
    if not isinstance(outputs, list | tuple):
        return np.asarray(outputs)
    return np.concatenate([np.asarray(output).reshape(len(output), -1) for output in outputs], 1)
