"""A part that a generator gives as a `tf.data.Dataset`: made into arrays where it fits.

What does not fit is a `Stream`: read anew in every epoch, by `model.fit`. TensorFlow is not
imported here: a generator that returns such a part has done so.
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

_PARTS = ("train", "validation", "test")
_INFINITE, _UNKNOWN = -1, -2  # tf.data's words for how many elements there are
# The rest is for the scaled copy, its copy on the device, and everything else.
_SHARE_OF_MEMORY = 0.25
_NUM_FIRST_ROWS = 64
_ROWS_COUNTED_TOGETHER = 256


@dataclass(frozen=True, eq=False)
class Stream:
    """A part that does not fit into memory.

    Attributes:
        where: The generator and the part, for messages.
        rows: A `tf.data.Dataset` of single rows, `(x, y)` or `(x, y, sample_weight)`.
        first_rows: Arrays of its first rows, in the structure of a row.
        reason: What it takes and what is free.
        class_weights: float32 (classes,) weight of a row by its class; None without.
    """

    where: str
    rows: Any
    first_rows: tuple[Any, ...]
    reason: str
    class_weights: npt.NDArray[np.float32] | None = None

    @functools.cached_property
    def num_rows(self) -> int:
        """How many rows there are; a dataset that does not know is read to its end, once.

        `fit` of Keras 3.15 must know it: where a dataset ends before it is said to, the optimizer
        counts a step that was never taken.
        """
        known = int(self.rows.cardinality())
        if known != _UNKNOWN:
            return known
        batches = _elements(self.rows.batch(_ROWS_COUNTED_TOGETHER), self.where)
        return sum(len(next(_leaves(batch))) for batch in batches)


class _DoesNotFit(Exception):  # noqa: N818 - a reason to stream
    """A part is too large; says what it takes."""


def read_streams(
    output: Any, *, source: str, limit_bytes: int | None = None
) -> tuple[Any, dict[str, Stream]]:
    """What a generator returned, with arrays in the place of each `tf.data.Dataset`.

    A dataset's elements are `(x, y)`, or `(x, y, sample_weight)`: rows, or batches whose number of
    rows is open in its `element_spec`, as `batch(n)` makes them. One of unknown length is read
    until it ends or does not fit.

    Args:
        output: Whatever the generator returned.
        source: The generator, for messages.
        limit_bytes: Most bytes that the parts may take together; absent, a quarter of the memory
            that is free.

    Returns:
        The output, and the parts that do not fit by their names: of these, the output holds the
        first rows.

    Raises:
        InputError: A part has no end, is empty, or may be batched or not.
    """
    if not isinstance(output, Mapping):
        return output, {}
    left = int(available_memory_bytes() * _SHARE_OF_MEMORY) if limit_bytes is None else limit_bytes
    read, streams = dict(output), {}
    for name in (name for name in _PARTS if is_stream(output.get(name))):
        where = f"{source}: {name}"
        part = output[name]
        is_batched = _check(part, where)
        try:
            read[name] = _to_arrays(part, where, left, is_batched=is_batched)
            left -= sum(array.nbytes for array in _leaves(read[name]))
        except _DoesNotFit as reason:
            streams[name] = _to_stream(part, where, str(reason), is_batched=is_batched)
            read[name] = streams[name].first_rows
    return read, streams


def check_streams(streams: Mapping[str, Stream], output: Mapping[str, Any], scaling: Any) -> None:
    """Raises InputError where a job asks for what cannot be done with a part that is streamed.

    Args:
        streams: By the names of their parts.
        output: What the generator returned.
        scaling: `data.scaling` of the job.
    """
    for name, stream in streams.items():
        where = f"{stream.where} {stream.reason}, so it is streamed"
        kinds = set(scaling.values()) if isinstance(scaling, Mapping) else {scaling}
        if kinds != {"none"}:
            raise InputError(
                f"{where}; data.scaling is fitted on rows in memory: set data.scaling: none, and"
                " scale in the tf.data.Dataset"
            )
        if name == "train" and "validation" not in output:
            raise InputError(
                f"{where}; data.validation_split takes rows in memory: let the generator return"
                " 'validation' too"
            )


def is_stream(value: Any) -> bool:
    """Whether a value is a `tf.data.Dataset`."""
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    return "tensorflow.DatasetV2" in kinds


def _check(stream: Any, where: str) -> bool:
    """Whether a dataset's elements are batches; raises InputError if it cannot be read at all."""
    spec = stream.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise InputError(f"{where}: the elements of a tf.data.Dataset must be (x, y), got {spec}")
    if int(stream.cardinality()) == _INFINITE:
        raise InputError(f"{where}: the tf.data.Dataset has no end; leave out repeat()")
    return _is_batched(spec, where)


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
        raise InputError(f"{where}: rows of different shapes; pad them: {error}") from error
    return tuple(_pack(one, joined) for one in stream.element_spec)


def _to_stream(stream: Any, where: str, reason: str, *, is_batched: bool) -> Stream:
    rows = stream.unbatch() if is_batched else stream
    first_rows = _to_arrays(rows.take(_NUM_FIRST_ROWS), where, math.inf, is_batched=False)
    return Stream(where, rows, first_rows, reason)


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
    for leaf in _leaves(spec):
        if not hasattr(leaf, "shape") or type(leaf).__name__ != "TensorSpec":
            raise InputError(f"{where}: a tf.data.Dataset of {leaf}; pad its rows, or give arrays")
        if leaf.shape.rank is None:
            raise InputError(
                f"{where}: the tf.data.Dataset does not say the shapes of its elements, {leaf};"
                " give Dataset.from_generator an output_signature of tf.TensorSpec(shape, dtype)"
            )
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
        leaf.shape.num_elements() * leaf.dtype.size
        if leaf.shape.is_fully_defined() and leaf.dtype.size  # a text has none
        else None
        for leaf in _leaves(spec)
    ]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _require_room(num_bytes: int, limit_bytes: float, verb: str) -> None:
    if num_bytes > limit_bytes:
        raise _DoesNotFit(
            f"{verb} {_mib(num_bytes)} MiB as arrays, and {_mib(limit_bytes)} MiB are free for it"
        )


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.0f}"


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
