"""Parts of data that a generator returns as a `tf.data.Dataset`: read into arrays if they fit.

A part that does not fit into memory becomes a `Stream`, which `model.fit` reads again in every
epoch. TensorFlow is not imported here, because a generator that returns such a part has done so.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.errors import InputError
from trialrun.host import available_memory_bytes
from trialrun.messages import bytes_text, in_short, said_by

_PARTS = ("train", "validation", "test")
_INFINITE, _UNKNOWN = -1, -2  # values of tf.data's cardinality()
# The rest of the free memory is for the scaled copy, its copy on the device, and everything else.
_SHARE_OF_MEMORY = 0.25
_NUM_FIRST_ROWS = 64
_ROWS_COUNTED_TOGETHER = 256


@dataclass(frozen=True, eq=False)
class Stream:
    """A part that does not fit into memory.

    Attributes:
        where: How messages name the generator and the part.
        rows: A `tf.data.Dataset` of single rows, `(x, y)` or `(x, y, sample_weight)`.
        first_rows: Arrays of its first rows, in the structure of a row.
        reason: How much memory it takes, and how much is free.
        class_weights: The weight of a row by its class, float32 (classes,); None if rows are not
            weighted by class.
    """

    where: str
    rows: Any
    first_rows: tuple[Any, ...]
    reason: str
    class_weights: npt.NDArray[np.float32] | None = None

    @functools.cached_property
    def num_rows(self) -> int:
        """How many rows there are; a dataset of unknown length is read to its end once.

        `fit` of Keras 3.15 needs the exact number: if a dataset ends earlier than expected, the
        optimizer counts a step that was never taken.
        """
        known = int(self.rows.cardinality())
        if known != _UNKNOWN:
            return known
        batches = _elements(self.rows.batch(_ROWS_COUNTED_TOGETHER), self.where)
        return sum(len(next(_leaves(batch))) for batch in batches)


class _DoesNotFit(Exception):  # noqa: N818 - a reason to stream
    """A part is too large for memory; the message says how much it takes."""


def read_streams(
    output: Any, *, source: str, limit_bytes: int | None = None
) -> tuple[Any, dict[str, Stream]]:
    """What a generator returned, with arrays instead of each `tf.data.Dataset`.

    A dataset's elements are `(x, y)` or `(x, y, sample_weight)`. They are rows, or batches if their
    first axis has no fixed length in `element_spec`, as `batch(n)` makes them. A dataset of unknown
    length is read until it ends or does not fit.

    Args:
        output: Whatever the generator returned.
        source: How messages name the generator.
        limit_bytes: The most bytes that all parts may take together; absent: a quarter of the free
            memory.

    Returns:
        The output, and name -> part for the parts that do not fit; of these, the output holds only
        the first rows.

    Raises:
        InputError: A part has no end, is empty, or does not show whether it is batched.
    """
    names = _PARTS if isinstance(output, Mapping) else ()
    streamed = [name for name in names if is_stream(output.get(name))]
    if not streamed:  # what follows would take a third of the time that other data takes
        return output, {}
    left = int(available_memory_bytes() * _SHARE_OF_MEMORY) if limit_bytes is None else limit_bytes
    read, streams = dict(output), {}
    for name in streamed:
        where = f"{source}: {name}"
        part = output[name]
        _require_usable(part, where)
        is_batched = _is_batched(part.element_spec, where)
        try:
            read[name] = _to_arrays(part, where, left, is_batched=is_batched)
            left -= sum(array.nbytes for array in _leaves(read[name]))
        except _DoesNotFit as reason:
            streams[name] = _to_stream(part, where, str(reason), is_batched=is_batched)
            read[name] = streams[name].first_rows
    return read, streams


def check_streams(streams: Mapping[str, Stream], output: Mapping[str, Any], scaling: Any) -> None:
    """Raises InputError if a job asks for something that a streamed part does not allow.

    Args:
        streams: Name of a part -> its stream.
        output: What the generator returned.
        scaling: The job's `data.scaling`.
    """
    for name, stream in streams.items():
        where = f"{stream.where} {stream.reason}, so it is streamed"
        kinds = set(scaling.values()) if isinstance(scaling, Mapping) else {scaling}
        if kinds != {"none"}:
            raise InputError(
                f"{where}; data.scaling can be fitted only on rows in memory; give"
                " data.scaling: none, and scale in the tf.data.Dataset"
            )
        if name == "train" and "validation" not in output:
            raise InputError(
                f"{where}; data.validation_split can split only rows in memory; let the generator"
                " return 'validation' too"
            )


def is_stream(value: Any) -> bool:
    """Whether a value is a `tf.data.Dataset`."""
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    return "tensorflow.DatasetV2" in kinds


def _require_usable(stream: Any, where: str) -> None:
    """Raises InputError unless a dataset has an end and elements (x, y)."""
    spec = stream.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise InputError(f"{where}: the elements of a tf.data.Dataset must be (x, y), got {spec}")
    if int(stream.cardinality()) == _INFINITE:
        raise InputError(f"{where}: the tf.data.Dataset has no end; leave out repeat()")


def _to_arrays(stream: Any, where: str, limit_bytes: float, *, is_batched: bool) -> tuple[Any, ...]:
    num_elements, known = int(stream.cardinality()), _known_bytes(stream.element_spec)
    if not is_batched and num_elements != _UNKNOWN and known is not None:
        _require_room(known * num_elements, limit_bytes, "takes")
    columns: list[list[Any]] = []
    num_bytes = 0
    for element in _elements(stream, where):
        arrays = [np.asarray(leaf) for leaf in _leaves(element)]
        columns = columns or [[] for _ in arrays]
        for column, array in zip(columns, arrays, strict=True):
            column.append(array)
        num_bytes += sum(array.nbytes for array in arrays)
        _require_room(num_bytes, limit_bytes, "takes more than")
    if not columns:
        raise InputError(f"{where}: the tf.data.Dataset is empty")
    try:
        join = np.concatenate if is_batched else np.stack
        joined = iter([join(column) for column in columns])
    except ValueError as error:
        raise InputError(
            f"{where}: rows of different shapes; pad them: {said_by(error)}"
        ) from error
    return tuple(_pack(leaf_spec, joined) for leaf_spec in stream.element_spec)


def _to_stream(stream: Any, where: str, reason: str, *, is_batched: bool) -> Stream:
    rows = stream.unbatch() if is_batched else stream
    first_rows = _to_arrays(rows.take(_NUM_FIRST_ROWS), where, math.inf, is_batched=False)
    return Stream(where, rows, first_rows, reason)


def _elements(stream: Any, where: str) -> Iterator[Any]:
    """The elements of a dataset; an error in the user's own steps becomes an InputError."""
    elements = stream.as_numpy_iterator()
    while True:
        try:
            yield next(elements)
        except StopIteration:
            return
        except Exception as error:
            raise InputError(
                f"{where}: reading the tf.data.Dataset raised {in_short(error)}"
            ) from error


def _is_batched(spec: Any, where: str) -> bool:
    """Whether elements are batches, i.e. whether the length of their first axis is not fixed."""
    for leaf in _leaves(spec):
        if not hasattr(leaf, "shape") or type(leaf).__name__ != "TensorSpec":
            raise InputError(
                f"{where}: a tf.data.Dataset must hold dense tensors, got {leaf}; pad its rows, or"
                " give arrays"
            )
        if leaf.shape.rank is None:
            raise InputError(
                f"{where}: the tf.data.Dataset does not declare the shapes of its elements, {leaf};"
                " give Dataset.from_generator an output_signature of tf.TensorSpec(shape, dtype)"
            )
    shapes = [tuple(leaf.shape) for leaf in _leaves(spec)]
    firsts = {shape[0] if shape else "row" for shape in shapes}
    if firsts == {None}:
        return True
    if len(firsts) == 1 and "row" not in firsts:
        raise InputError(
            f"{where}: the elements of the tf.data.Dataset, {', '.join(map(str, shapes))}, may be"
            " either rows or batches; make batches without drop_remainder=True, or give arrays"
        )
    return False


def _known_bytes(spec: Any) -> int | None:
    """The bytes of one element; None if its shape is not fixed."""
    sizes = [
        leaf.shape.num_elements() * leaf.dtype.size
        if leaf.shape.is_fully_defined() and leaf.dtype.size  # texts have no fixed size
        else None
        for leaf in _leaves(spec)
    ]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _require_room(num_bytes: int, limit_bytes: float, verb: str) -> None:
    if num_bytes > limit_bytes:
        raise _DoesNotFit(
            f"{verb} {bytes_text(num_bytes)} as arrays, but only {bytes_text(limit_bytes)} are free"
            " for it"
        )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key])
    elif isinstance(value, tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _pack(spec: Any, arrays: Iterator[Any]) -> Any:
    """Arrays in the structure of a specification."""
    if isinstance(spec, Mapping):
        packed = {key: _pack(spec[key], arrays) for key in sorted(spec)}
        return {key: packed[key] for key in spec}
    if isinstance(spec, tuple):
        return tuple(_pack(item, arrays) for item in spec)
    return next(arrays)
