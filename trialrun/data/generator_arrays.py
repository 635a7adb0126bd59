"""Converts the data that a user's generator returns to NumPy arrays of numbers or of texts.

pandas and SciPy objects, tensors, matrices, masked and object arrays are taken as Keras takes them.
An object whose meaning as an array is ambiguous is refused here. Whether arrays fit together and
hold valid values is checked in `trialrun.data.generator`. No other library is imported: whoever
returns such an object has already imported its library.
"""

from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np

from trialrun.data.arrays import Array, is_text, leaves, map_leaves
from trialrun.data.table.lookalikes import similar_texts
from trialrun.errors import InputError
from trialrun.host import available_memory_bytes
from trialrun.job.table_spelling import clean_text, told_apart
from trialrun.messages import bytes_text, in_short, said_by

_PARTS = ("train", "validation", "test")
_FIELDS = ("x", "y", "sample_weight")
# The largest share of the free memory that a sparse matrix may take as an array.
_SHARE_OF_MEMORY = 0.25
_REMEDIES = {
    "c": "complex numbers; give real and imaginary part as two features",
    "M": "dates; give numbers, such as days since a date",
    "m": "durations; give numbers, such as seconds",
    "V": "records; give a dict of arrays, one for each field",
}


def as_arrays(output: Any, *, source: str) -> Any:
    """A generator's output in which whatever Keras takes as an array is a NumPy array.

    Text becomes an object array of `str`; a label that is text becomes the number of its class, and
    sorted `class_names` are added. The columns of a DataFrame become `feature_names`. An array gets
    the same type in all parts.

    Args:
        output: Whatever the generator returned.
        source: How messages name the generator.

    Raises:
        InputError: Something cannot be made an array without guessing. The message says what, and
            in which part.
    """
    if not isinstance(output, Mapping):
        return output
    try:
        return _convert(dict(output))
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None


def _convert(output: dict[str, Any]) -> dict[str, Any]:
    names = _column_names(output)
    for part in _PARTS:
        value = output.get(part)
        if isinstance(value, tuple | list) and len(value) in (2, 3):
            output[part] = tuple(
                _to_arrays(f"{part} {name}", given)
                for name, given in zip(_FIELDS, value, strict=False)
            )
    if names and "feature_names" not in output:
        output["feature_names"] = names
    _unite_types(output)
    return _with_class_numbers(output)


def _parts_of(output: Mapping[str, Any]) -> list[str]:
    """The parts that are (x, y) or (x, y, sample_weight), the training part first."""
    return [
        part
        for part in _PARTS
        if isinstance(output.get(part), tuple | list) and len(output[part]) in (2, 3)
    ]


def _column_names(output: Mapping[str, Any]) -> list[str]:
    """The columns of x if it is a DataFrame; empty if it is none, or if it has no real names.

    Raises:
        ValueError: The parts have different columns, or in another order.
    """
    columns = {
        part: [str(name) for name in output[part][0].columns]
        for part in _parts_of(output)
        if _is_from(output[part][0], "pandas", "DataFrame")
    }
    names = columns.get("train", [])
    for part, others in columns.items():
        if names and others != names:
            raise ValueError(
                f"{part} x has the columns {', '.join(others)}, but train x has"
                f" {', '.join(names)}; give the same columns in the same order"
            )
    return [] if names == [str(index) for index in range(len(names))] else names


def _to_arrays(shown: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: to_array(f"{shown}[{key!r}]", leaf) for key, leaf in value.items()}
    is_list = isinstance(value, list) and value and all(_is_array(item) for item in value)
    if is_list or isinstance(value, tuple):
        return tuple(to_array(f"{shown}[{index}]", leaf) for index, leaf in enumerate(value))
    return to_array(shown, value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and getattr(value, "ndim", 1) > 0


def _is_from(value: Any, package: str, *names: str) -> bool:
    """Whether the class of a value, or one of its base classes, belongs to a package."""
    kinds = () if type(value) is np.ndarray else type(value).__mro__
    return any(
        kind.__module__.partition(".")[0] == package and (not names or kind.__name__ in names)
        for kind in kinds
    )


def to_array(shown: str, value: Any) -> Any:
    """One array of numbers or texts; anything else is returned unchanged and refused by the checks.

    Args:
        shown: How messages name it.
        value: Anything that Keras takes as an array.

    Raises:
        ValueError: Its meaning as an array is ambiguous.
    """
    if type(value) is np.ndarray:
        return _plain(shown, value)
    if _is_from(value, "pandas", "DataFrame"):
        return _of_frame(shown, value)
    if _is_from(value, "pandas"):
        return _of_series(shown, value)
    if _is_from(value, "tensorflow", "RaggedTensor", "SparseTensor"):
        raise ValueError(f"{shown} is a {type(value).__name__}; pad it, or give a dense tensor")
    if _is_from(value, "scipy") and hasattr(value, "toarray"):
        return _of_sparse(shown, value)
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(value)
        if mask.any():
            row = int(np.argwhere(mask)[0, 0])
            raise ValueError(
                f"{shown} holds masked values, first in row {row}; fill them in, or leave such rows"
                " out"
            )
        value = value.data
    if not hasattr(value, "__array__") or isinstance(value, np.generic):
        return value
    try:
        array = np.asarray(value)
    except Exception as error:
        raise ValueError(
            f"{shown} is a {type(value).__name__} that cannot be made an array: {in_short(error)}"
        ) from error
    return _plain(shown, array)


def _of_sparse(shown: str, value: Any) -> Array:
    num_bytes = value.shape[0] * value.shape[1] * value.dtype.itemsize
    free = int(available_memory_bytes() * _SHARE_OF_MEMORY)
    if num_bytes > free:
        raise ValueError(
            f"{shown} is a sparse matrix that takes {bytes_text(num_bytes)} as an array, but"
            f" only {bytes_text(free)} are free for it; give fewer features"
        )
    return np.asarray(value.toarray())


def _of_frame(shown: str, frame: Any) -> Array:
    if not len(frame.columns):
        raise ValueError(f"{shown} is a DataFrame without columns")
    arrays = []
    for index, name in enumerate(frame.columns):
        array = _of_series(f"{shown} column {str(name)!r}", frame.iloc[:, index])
        if is_text(array):
            raise ValueError(
                f"{shown} column {str(name)!r} holds text, but is in a table with other columns;"
                " give a dict of columns, encode it as numbers, or let data.csv or data.parquet"
                " read the table"
            )
        arrays.append(array)
    stacked: Array = np.stack(arrays, axis=1)
    return stacked


def _of_series(shown: str, series: Any) -> Array:
    is_missing = np.asarray(series.isna())
    if is_missing.any():
        rows = f"{int(is_missing.sum())} of {len(series)} rows"
        raise ValueError(f"{shown} lacks a value in {rows}; fill it in, or leave such rows out")
    kind = getattr(series.dtype, "numpy_dtype", None)  # for pandas's own Int64, boolean, ...
    return _plain(shown, series.to_numpy() if kind is None else series.to_numpy(dtype=kind))


def _plain(shown: str, array: Array) -> Array:
    """An array of numbers, booleans or objects as one of numbers, booleans or texts."""
    kind = array.dtype.kind
    if kind in _REMEDIES:
        raise ValueError(f"{shown} holds {_REMEDIES[kind]}")
    if kind in "SUT":
        array = array.astype(object)
    if array.dtype.kind != "O":
        return array
    found = {type(item) for item in array.flat}
    if found and all(issubclass(kind, bytes) for kind in found):
        try:
            return _map_objects(lambda text: text.decode(), array)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{shown} holds bytes that are not UTF-8 text: {said_by(error)}"
            ) from error
    if all(issubclass(kind, str) for kind in found):
        return _map_objects(str, array)
    if all(issubclass(kind, Number) and not issubclass(kind, complex) for kind in found):
        numbers: Array = np.array(array.tolist())
        return numbers if numbers.dtype.kind in "biuf" else array.astype(float)
    if any(issubclass(kind, list | tuple | np.ndarray) for kind in found):
        raise ValueError(f"{shown} holds rows of different lengths; pad them to one length")
    first, *_ = array.flat
    lacking = next((index[0] for index, item in np.ndenumerate(array) if _is_missing(item)), None)
    if lacking is not None:
        raise ValueError(
            f"{shown} lacks a value in row {lacking}; fill it in, or leave the row out"
        )
    row, odd = next(
        (
            (index[0], item)
            for index, item in np.ndenumerate(array)
            if type(item) is not type(first)
        ),
        (0, first),
    )
    raise ValueError(
        f"{shown} holds {odd!r:.80} in row {row}; it must hold either only numbers or only texts"
    )


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas's NA or NaT."""
    return type(value).__name__ in ("NoneType", "NAType", "NaTType") or (
        isinstance(value, float) and value != value
    )


def _map_objects(function: Any, array: Array) -> Array:
    """An object array of the same shape that holds a function's result for each element."""
    made = np.empty(array.size, object)
    made[:] = [function(item) for item in array.flat]
    return made.reshape(array.shape)


# All parts together ------------------------------------------------------------------------------


def _unite_types(output: dict[str, Any]) -> None:
    """Gives each array of x and y the same type in all parts: one that holds all of its values."""
    parts = _parts_of(output)
    for position, name in enumerate(_FIELDS[:2]):
        arrays_of_parts = {part: dict(leaves(output[part][position])) for part in parts}
        for where in arrays_of_parts.get("train", ()):
            arrays = {part: own.get(where) for part, own in arrays_of_parts.items()}
            if all(isinstance(array, np.ndarray) for array in arrays.values()):
                dtype = _common_type(f"{name}{where}", arrays)
                for own in arrays_of_parts.values():
                    own[where] = own[where].astype(dtype, copy=False)
        for part, own in arrays_of_parts.items():
            ready = iter(own.values())
            x_y_weights = list(output[part])
            x_y_weights[position] = map_leaves(lambda _: next(ready), x_y_weights[position])  # noqa: B023
            output[part] = tuple(x_y_weights)


def _common_type(name: str, arrays: Mapping[str, Any]) -> np.dtype[Any]:
    kinds = {part: "text" if is_text(array) else "numbers" for part, array in arrays.items()}
    for part, kind in kinds.items():
        if kind != kinds["train"]:
            raise ValueError(
                f"{part} {name} holds {kind}, but train {name} holds {kinds['train']}; give the"
                " same in all parts"
            )
    return np.result_type(*(array.dtype for array in arrays.values()))


def _with_class_numbers(output: dict[str, Any]) -> dict[str, Any]:
    """The output in which labels that are texts are class numbers, with names of the classes."""
    parts = _parts_of(output)
    targets = {part: list(leaves(output[part][1])) for part in parts}
    texts = [(part, where) for part, own in targets.items() for where, y in own if is_text(y)]
    if not texts:
        return output
    part, where = texts[0]
    if where:
        raise ValueError(
            f"{part} y{where} holds text; if there are several targets, give class numbers"
        )
    labels = {part: _map_objects(clean_text, own[0][1]) for part, own in targets.items()}
    found = sorted({text for own in labels.values() for text in own.flat})
    names = list(output.get("class_names", found))
    if len(found) < 2:
        raise ValueError(f"y holds only one class, {found[0]!r}" if found else "y is empty")
    alike = None if "class_names" in output else similar_texts(found)
    if alike is not None:
        raise ValueError(
            f"y holds {' and '.join(told_apart(*alike))}, which are probably the same class; write"
            " them alike, or give class_names if they are two classes"
        )
    numbers_of_classes = {clean_text(str(name)): number for number, name in enumerate(names)}
    for part, own in labels.items():
        odd = next((text for text in own.flat if text not in numbers_of_classes), None)
        if odd is not None:
            raise ValueError(f"{part} y holds {odd!r}, which is not among the class_names {names}")
        numbers = np.array([numbers_of_classes[text] for text in own.flat], np.int64).reshape(
            own.shape
        )
        output[part] = (output[part][0], numbers, *output[part][2:])
    return output | {"class_names": names}
