"""Refuses inputs that look up a row which a table of the model does not have.

Keras's `Embedding` and the like gather rows of a weight. On a CPU, TensorFlow raises an error for a
number without a row; XLA takes the nearest row, and a GPU gives zeros, without a word. So the
numbers that a model gathers by are computed from the data beforehand. Numbers that depend on more
than the inputs, such as weights or random numbers, cannot be seen here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trialrun.errors import InputError
from trialrun.training.internals import keras_model
from trialrun.training.program.reasons import layer_of

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Table:
    """What is gathered from.

    Attributes:
        layer: The name of the layer that gathers; empty if it is unknown.
        num_rows: The number of its rows.
        is_counted_from_its_end: Whether -1 is its last row; then TensorFlow sees `num_rows` more.
    """

    layer: str
    num_rows: int
    is_counted_from_its_end: bool


@dataclass(frozen=True, slots=True)
class Gathers:
    """What a model looks up by numbers that follow from its inputs alone.

    Attributes:
        tables: From which it gathers.
        inputs: The indices of the inputs that are needed.
        numbers: A function of these inputs (rows, ...): for each table the numbers of its rows.
    """

    tables: tuple[Table, ...] = ()
    inputs: tuple[int, ...] = ()
    numbers: Any = None

    def check(self, parts: Mapping[str, Any]) -> None:
        """Raises InputError if some input of a part looks up a row that its table does not have.

        Args:
            parts: Part -> inputs (rows, ...).
        """
        for part, x in parts.items() if self.tables else ():
            arrays = [keras.tree.flatten(x)[index] for index in self.inputs]
            for start in range(0, len(arrays[0]), _ROWS_AT_ONCE):
                self._check(part, arrays, range(len(arrays[0]))[start : start + _ROWS_AT_ONCE])

    def _check(self, part: str, arrays: Sequence[Any], rows: range) -> None:
        """Refuses the first of some rows that looks up too much; rows that do so together may.

        They then look up what depends on their number, or on their order, which batches change.
        """
        for table, found in self._outside(arrays, rows):
            if len(rows) == 1:
                raise InputError(_refused(f"{part} inputs, row {rows[0]}", table, found))
            half = len(rows) // 2
            self._check(part, arrays, rows[:half])
            self._check(part, arrays, rows[half:])
            return

    def _outside(self, arrays: Sequence[Any], rows: range) -> Iterator[tuple[Table, int]]:
        """Each table that lacks a row for a number of some rows, with such a number."""
        given = (tf.constant(array[rows.start : rows.stop]) for array in arrays)
        for table, tensor in zip(self.tables, self.numbers(*given), strict=True):
            numbers = tensor.numpy()
            outside = numbers[(numbers < 0) | (numbers >= table.num_rows)]
            if outside.size:
                yield table, int(outside[0])


def _refused(where: str, table: Table, found: int) -> str:
    if found < 0 and table.is_counted_from_its_end:
        found -= table.num_rows
    who = f"the layer {table.layer!r}" if table.layer else "the model"
    return (
        f"{where}: {who} looks up the number {found}, but it has the numbers 0 to"
        f" {table.num_rows - 1}; number what is looked up from 0, or give the layer as many rows"
        " (input_dim) as there are numbers"
    )


def may_gather(model: keras.Model, x: Any) -> bool:
    """Whether a model may gather by its inputs: by an `Embedding`, or by the user's own layer."""
    inputs = keras.tree.flatten(x)
    if any(array.dtype == object for array in inputs):
        return False  # texts, for which only `model.fit` trains it
    found = keras_model.all_layers(model)
    has_numbers = any(array.dtype.kind in "iu" and array.itemsize > 1 for array in inputs)
    return any(isinstance(layer, keras.layers.Embedding) for layer in found) or (
        has_numbers and any(not type(layer).__module__.startswith("keras.") for layer in found)
    )


def find_gathers(model: keras.Model, x: Any) -> Gathers:
    """What a built model looks up in inference. It is traced, and none of its variables changes.

    Args:
        model: The model.
        x: Inputs (rows, ...), of which shapes and types are what matters.
    """
    specs = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in keras.tree.flatten(x)]

    def call(*arrays: tf.Tensor) -> Any:
        with keras.StatelessScope():
            outputs = model(keras.tree.pack_sequence_as(x, list(arrays)), training=False)
        return keras.tree.flatten(outputs)

    try:
        traced = tf.compat.v1.wrap_function(call, specs)
    except Exception:  # the user's layers may raise anything; it is reported when it is trained
        return Gathers()
    placeholders = [tensor.op for tensor in traced.inputs[: len(specs)]]
    found = [
        (table, operation.inputs[1])
        for operation in _ancestors(traced.outputs)
        if (table := _table_of(operation, model)) is not None
        and _follows_from(operation.inputs[1], placeholders)
    ]
    gathered = [numbers for _, numbers in found]
    needed = _ancestors(gathered)
    inputs = [index for index, own in enumerate(placeholders) if own in needed]
    if not inputs:
        return Gathers()
    feeds = [placeholders[index].outputs[0] for index in inputs]
    tables = tuple(table for table, _ in found)
    return Gathers(tables, tuple(inputs), traced.prune(feeds, gathered))


def _table_of(operation: Any, model: keras.Model) -> Table | None:
    """What an operation gathers from; None if it does not gather, or the size is unknown."""
    if operation.type != "GatherV2":
        return None
    values, numbers, axis = operation.inputs
    axis = tf.get_static_value(axis)
    if values.shape.rank is None or axis is None or values.shape[int(axis)] is None:
        return None
    is_keras = numbers.op.type == "SelectV2"  # `keras.ops.take` adds the length to negative ones
    return Table(layer_of(operation.name, model), int(values.shape[int(axis)]), is_keras)


def _follows_from(tensor: tf.Tensor, placeholders: list[Any]) -> bool:
    """Whether a tensor's numbers depend on some of the placeholders, and on nothing else.

    The number of rows is something else: it is not that of a batch when the data is checked.
    """
    ancestors = _ancestors([tensor], _inputs_with_numbers)
    varying = [
        own for own in ancestors if own.type in ("Placeholder", "Shape") or own.op_def.is_stateful
    ]
    return bool(varying) and all(own in placeholders for own in varying)


def _inputs_with_numbers(operation: Any) -> Any:
    return operation.inputs[:1] if operation.type == "Reshape" else operation.inputs


def _ancestors(tensors: Any, inputs: Callable[[Any], Any] = lambda own: own.inputs) -> list[Any]:
    """The operations of a graph that tensors depend on, each once."""
    found: dict[int, Any] = {}
    waiting = [tensor.op for tensor in tensors]
    while waiting:
        operation = waiting.pop()
        if id(operation) not in found:
            found[id(operation)] = operation
            waiting.extend(tensor.op for tensor in inputs(operation))
    return list(found.values())
