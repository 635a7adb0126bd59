"""Copies parts of a traced graph into the graph that is being traced."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from trialrun.training.internals.tensorflow_graph import copy_operation

Values = dict[Any, tf.Tensor]  # `tensor.ref()` -> the tensor that stands for it


def values_of(tensors: Iterable[tf.Tensor], values: Iterable[tf.Tensor]) -> Values:
    """What stands for each of some tensors."""
    return {tensor.ref(): value for tensor, value in zip(tensors, values, strict=True)}


def replay(
    targets: Sequence[tf.Tensor],
    known: Mapping[Any, tf.Tensor],
    join_slices: bool = False,
) -> list[tf.Tensor]:
    """Tensors of a graph, computed in the graph that is being traced by copies of its operations.

    Args:
        targets: Tensors of one graph.
        known: What stands for some of its tensors; what leads to these is not copied.
        join_slices: Whether slices that make up a whole become one split of it.
    """
    values = dict(known)
    operations = operations_between(targets, known)
    slices = Slices(operations) if join_slices else Slices([])
    for operation in operations:
        inputs = [values[tensor.ref()] for tensor in operation.inputs]
        outputs = slices.get(operation, inputs) or copy_operation(operation, inputs)
        values.update(values_of(operation.outputs, outputs))
    return [values[tensor.ref()] for tensor in targets]


def operations_between(targets: Sequence[tf.Tensor], known: Mapping[Any, Any]) -> list[Any]:
    """The operations that lead from known tensors to targets, in the order of their graph."""
    found: dict[str, Any] = {}
    waiting = [tensor.op for tensor in targets if tensor.ref() not in known]
    while waiting:
        operation = waiting.pop()
        if operation.name in found:
            continue
        found[operation.name] = operation
        waiting += [tensor.op for tensor in operation.inputs if tensor.ref() not in known]
    if not found:
        return []
    return [operation for operation in targets[0].graph.get_operations() if operation.name in found]


class Slices:
    """Operations that cut a tensor along its last axis into parts: one split takes their place.

    The gradient of slices is a sum of padded tensors, which XLA computes slowly; that of a split is
    a concatenation.
    """

    def __init__(self, operations: Sequence[Any]) -> None:
        groups: dict[Any, list[tuple[int, int, Any]]] = {}
        for operation in operations:
            if operation.type == "StridedSlice" and (part := _part_of_last_axis(operation)):
                groups.setdefault(operation.inputs[0].ref(), []).append((*part, operation))
        self._sizes: dict[Any, list[int]] = {}
        self._index: dict[str, int] = {}
        for source, parts in groups.items():
            edges = sorted({(begin, end) for begin, end, _ in parts})
            ends = [0, *(end for _, end in edges)]
            if [b for b, _ in edges] == ends[:-1] and ends[-1] == source.deref().shape[-1]:
                self._sizes[source] = [end - begin for begin, end in edges]
                for begin, end, operation in parts:
                    self._index[operation.name] = edges.index((begin, end))
        self._made: dict[Any, list[tf.Tensor]] = {}

    def get(self, operation: Any, inputs: list[tf.Tensor]) -> list[tf.Tensor] | None:
        """The output of an operation's copy, if it is one of these."""
        if operation.name not in self._index:
            return None
        source = operation.inputs[0].ref()
        if source not in self._made:
            self._made[source] = tf.split(inputs[0], self._sizes[source], axis=-1)
        return [self._made[source][self._index[operation.name]]]


def _part_of_last_axis(operation: Any) -> tuple[int, int] | None:
    """Where a slice begins and ends on the last axis, if it takes all of the others."""
    source, *given = operation.inputs
    begin, end, strides = map(tf.get_static_value, given)
    if any(value is None for value in (begin, end, strides)) or (strides != 1).any():
        return None
    if any(operation.get_attr(f"{kind}_mask") for kind in ("ellipsis", "new_axis", "shrink_axis")):
        return None
    begins, ends = operation.get_attr("begin_mask"), operation.get_attr("end_mask")
    shape = source.shape
    if len(begin) != shape.rank:
        return None
    bounds = [
        slice(None if begins >> i & 1 else b, None if ends >> i & 1 else e).indices(length)[:2]
        for i, (b, e, length) in enumerate(zip(begin, end, shape, strict=True))
    ]
    if any(own != (0, n) for own, n in zip(bounds[:-1], shape[:-1], strict=True)):
        return None
    return bounds[-1]
