"""A part that a generator gives as a `tf.data.Dataset`: made into arrays, where it fits.

TensorFlow is not imported here: a generator that returns such a part has done so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trialrun.errors import InputError
from trialrun.host import available_memory_bytes

_PARTS = ("train", "validation", "test")
_INFINITE, _UNKNOWN = -1, -2  # tf.data's words for how many elements there are
# The rest is for the scaled copy, its copy on the device, and everything else.
_SHARE_OF_MEMORY = 0.25


def read_streams(output: Any, *, source: str, limit_bytes: int | None = None) -> Any:
    """What a generator returned, with arrays in the place of each `tf.data.Dataset`.

    A dataset's elements are `(x, y)`, or `(x, y, sample_weight)`: rows, or batches whose number of
    rows is open in its `element_spec`, as `batch(n)` makes them.

    Args:
        output: Whatever the generator returned.
        source: The generator, for messages.
        limit_bytes: Most bytes that one part may take; absent, a quarter of the memory that is
            free.

    Raises:
        InputError: A part has no end, does not fit, or may be batched or not.
    """
    if not isinstance(output, Mapping):
        return output
    limit = int(available_memory_bytes() * _SHARE_OF_MEMORY) if limit_bytes is None else limit_bytes
    return {
        key: _read(value, f"{source}: {key}", limit)
        if key in _PARTS and is_stream(value)
        else value
        for key, value in output.items()
    }


def is_stream(value: Any) -> bool:
    """Whether a value is a `tf.data.Dataset`."""
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    return "tensorflow.DatasetV2" in kinds


def _read(stream: Any, where: str, limit_bytes: int) -> tuple[Any, ...]:
    spec = stream.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise InputError(f"{where}: the elements of a tf.data.Dataset must be (x, y), got {spec}")
    is_batched = _is_batched(spec, where)
    num_elements = int(stream.cardinality())
    if num_elements == _INFINITE:
        raise InputError(f"{where}: the tf.data.Dataset has no end; leave out repeat()")
    known = _known_bytes(spec)
    if not is_batched and num_elements != _UNKNOWN and known is not None:
        _require_room(known * num_elements, limit_bytes, where, "takes")
    columns: list[list[Any]] = []
    num_bytes = 0
    for element in _elements(stream, where):
        arrays = [np.asarray(leaf) for leaf in _leaves(element)]
        columns = columns or [[] for _ in arrays]
        for column, array in zip(columns, arrays, strict=True):
            column.append(array)
        num_bytes += sum(array.nbytes for array in arrays)
        _require_room(num_bytes, limit_bytes, where, "takes more than")
    if not columns:
        raise InputError(f"{where}: the tf.data.Dataset is empty")
    try:
        join = np.concatenate if is_batched else np.stack
        joined = iter([join(column) for column in columns])
    except ValueError as error:
        raise InputError(f"{where}: rows of different shapes; pad them: {error}") from error
    return tuple(_pack(one, joined) for one in spec)


def _elements(stream: Any, where: str) -> Iterator[Any]:
    """The elements; what the user's own steps raise on the way is named as theirs."""
    elements = stream.as_numpy_iterator()
    while True:
        try:
            yield next(elements)
        except StopIteration:
            return
        except Exception as error:
            raise InputError(
                f"{where}: reading the tf.data.Dataset raised {type(error).__name__}: {error}"
            ) from error


def _is_batched(spec: Any, where: str) -> bool:
    """Whether elements are batches: their number of rows is open."""
    shapes = [tuple(leaf.shape) for leaf in _leaves(spec)]
    firsts = {shape[0] if shape else "row" for shape in shapes}
    if firsts == {None}:
        return True
    if len(firsts) == 1 and "row" not in firsts:
        raise InputError(
            f"{where}: the elements of the tf.data.Dataset, {', '.join(map(str, shapes))}, may be"
            " rows or batches; make batches without drop_remainder=True, or give arrays"
        )
    return False


def _known_bytes(spec: Any) -> int | None:
    """Bytes of one element; None if its shape is open."""
    sizes = [
        leaf.shape.num_elements() * leaf.dtype.size if leaf.shape.is_fully_defined() else None
        for leaf in _leaves(spec)
    ]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _require_room(num_bytes: int, limit_bytes: int, where: str, verb: str) -> None:
    if num_bytes > limit_bytes:
        raise InputError(
            f"{where}: the tf.data.Dataset {verb} {num_bytes / 2**20:,.0f} MiB as arrays, and"
            f" {limit_bytes / 2**20:,.0f} MiB are free for it; give fewer rows, or smaller ones"
        )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key])
    elif isinstance(value, tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _pack(spec: Any, arrays: Iterator[Any]) -> Any:
    """Arrays in the structure of a specification."""
    if isinstance(spec, Mapping):
        packed = {key: _pack(spec[key], arrays) for key in sorted(spec)}
        return {key: packed[key] for key in spec}
    if isinstance(spec, tuple):
        return tuple(_pack(one, arrays) for one in spec)
    return next(arrays)
