"""How much memory a program needs for each trial, before it is compiled."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trialrun.training.internals import tensorflow_graph

# Operations that XLA computes inside the operation that reads them, without writing to memory.
_FUSED_AWAY = frozenset(
    {
        *(
            "Abs",
            "Add",
            "AddV2",
            "BiasAdd",
            "Div",
            "Maximum",
            "Minimum",
            "Mul",
            "Neg",
            "Pow",
            "RealDiv",
            "Reciprocal",
            "Sign",
            "Square",
            "SquaredDifference",
            "Sub",
        ),
        *(
            "Elu",
            "Erf",
            "Exp",
            "Log",
            "Log1p",
            "Relu",
            "ReluGrad",
            "Rsqrt",
            "RsqrtGrad",
            "Sigmoid",
            "SigmoidGrad",
            "Softplus",
            "SoftplusGrad",
            "Sqrt",
            "SqrtGrad",
            "Tanh",
            "TanhGrad",
        ),
        *(
            "Equal",
            "Greater",
            "GreaterEqual",
            "Less",
            "LessEqual",
            "LogicalAnd",
            "LogicalNot",
            "LogicalOr",
            "Select",
            "SelectV2",
        ),
        *("Bitcast", "BitwiseAnd", "BitwiseXor", "LeftShift", "RightShift"),
        *(
            "BroadcastTo",
            "Cast",
            "Const",
            "ExpandDims",
            "Fill",
            "Identity",
            "OnesLike",
            "Range",
            "Reshape",
            "Shape",
            "Squeeze",
            "StopGradient",
            "Tile",
            "ZerosLike",
        ),
    }
)
_CALLS = (
    "PartitionedCall",
    "StatefulPartitionedCall",
    "While",
    "StatelessWhile",
    "If",
    "StatelessIf",
)


def peak_bytes(function: Any) -> tuple[int, int]:
    """The most memory that a traced function's tensors take at one time, its arguments included.

    The estimate follows the operations in the order in which they were traced. A tensor lives from
    the operation that makes it to the last one that reads it. A tensor that XLA fuses into the
    operation that reads it takes no memory. A loop needs what its body needs.

    Args:
        function: A `tf.types.experimental.ConcreteFunction`.

    Returns:
        The most bytes at one time, and the bytes of the arguments alone.
    """
    inputs = _inputs_bytes(function.graph)
    return inputs + _temporary_bytes(function.graph, {}), inputs


def traffic_bytes(function: Any) -> int:
    """The bytes that all operations of a traced function give, summed."""
    return _outputs_bytes(function.graph)


def _outputs_bytes(graph: Any) -> int:
    return sum(
        sum(map(tensor_bytes, operation.outputs)) + sum(map(_outputs_bytes, _functions(operation)))
        for operation in graph.get_operations()
    )


def _inputs_bytes(graph: Any) -> int:
    return sum(tensor_bytes(tensor) for tensor in graph.inputs)


def _temporary_bytes(graph: Any, known: dict[int, int]) -> int:
    """The most bytes at one time that a graph's operations take beyond its inputs.

    Args:
        graph: The graph.
        known: `id(graph)` -> results, for graphs that are called more than once.
    """
    if id(graph) in known:
        return known[id(graph)]
    operations = graph.get_operations()
    last_use: dict[str, int] = {}
    num_readers: dict[str, int] = {}
    for number, operation in enumerate(operations):
        for tensor in operation.inputs:
            last_use[tensor.name] = number
            num_readers[tensor.name] = num_readers.get(tensor.name, 0) + 1
    for tensor in graph.outputs:
        last_use[tensor.name] = len(operations)
    sizes: dict[str, int] = {}
    dying: dict[int, list[str]] = {}
    live = peak = 0
    for number, operation in enumerate(operations):
        inner = max((_temporary_bytes(f, known) for f in _functions(operation)), default=0)
        if operation.type != "Placeholder":
            for tensor in operation.outputs:
                is_fused = operation.type in _FUSED_AWAY and num_readers.get(tensor.name, 0) <= 1
                sizes[tensor.name] = 0 if is_fused else tensor_bytes(tensor)
                live += sizes[tensor.name]
                dying.setdefault(last_use.get(tensor.name, number), []).append(tensor.name)
        peak = max(peak, live + inner)
        live -= sum(sizes[name] for name in dying.get(number, ()))
    known[id(graph)] = peak
    return peak


def _functions(operation: Any) -> Iterator[Any]:
    """The graphs of the functions that an operation calls."""
    if operation.type not in _CALLS:
        return
    for name in ("f", "body", "then_branch", "else_branch"):
        if name in operation.node_def.attr:
            yield tensorflow_graph.graph_of(
                operation.graph, operation.node_def.attr[name].func.name
            )


def tensor_bytes(tensor: tf.Tensor) -> int:
    """A tensor's bytes; 0 if its shape or type is not known, as of a list that a loop fills."""
    if not tensor.shape.is_fully_defined():
        return 0
    return int(tensor.shape.num_elements()) * int(tensor.dtype.size or 0)
