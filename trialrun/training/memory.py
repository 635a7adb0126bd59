"""Estimates, before a program is compiled, how much memory it needs for each trial."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from trialrun.errors import OutOfMemory
from trialrun.training import internals

if TYPE_CHECKING:
    from trialrun.training.prepared import PreparedPack

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
        sum(map(_tensor_bytes, operation.outputs)) + sum(map(_outputs_bytes, _functions(operation)))
        for operation in graph.get_operations()
    )


def _inputs_bytes(graph: Any) -> int:
    return sum(_tensor_bytes(tensor) for tensor in graph.inputs)


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
                sizes[tensor.name] = 0 if is_fused else _tensor_bytes(tensor)
                live += sizes[tensor.name]
                dying.setdefault(last_use.get(tensor.name, number), []).append(tensor.name)
        peak = max(peak, live + inner)
        live -= sum(sizes[name] for name in dying.get(number, ()))
    known[id(graph)] = peak
    return peak


_CALLS = (
    "PartitionedCall",
    "StatefulPartitionedCall",
    "While",
    "StatelessWhile",
    "If",
    "StatelessIf",
)


def _functions(operation: Any) -> Iterator[Any]:
    """The graphs of the functions that an operation calls."""
    if operation.type not in _CALLS:
        return
    for name in ("f", "body", "then_branch", "else_branch"):
        if name in operation.node_def.attr:
            yield internals.graph_of(operation.graph, operation.node_def.attr[name].func.name)


def _tensor_bytes(tensor: tf.Tensor) -> int:
    """A tensor's bytes; 0 if its shape or type is not known, as of a list that a loop fills."""
    if not tensor.shape.is_fully_defined():
        return 0
    return int(tensor.shape.num_elements()) * int(tensor.dtype.size or 0)


def required_bytes(prepared: "PreparedPack") -> tuple[int, int]:
    """Bytes that a pack needs on its device, and bytes that each further trial would take.

    All slices hold their trials' state and data; those that are being trained also need memory for
    the computation. Data that all trials share is held once.
    """
    own, num_slices = prepared.slices[0], len(prepared.slices)
    peak, inputs = prepared.program.memory_bytes(len(own.indices))
    shared = sum(map(_tensor_bytes, tf.nest.flatten((own.train, own.val)))) if own.is_shared else 0
    num_active = min(prepared.task.num_threads, num_slices)
    for_trials = (inputs - shared) * num_slices + (peak - inputs) * num_active
    return shared + for_trials, for_trials // (len(own.indices) * num_slices)


def require_device_memory(prepared: "PreparedPack", free_bytes: int) -> None:
    """Refuses a pack that needs more than is free; a single trial is always tried.

    Raises:
        OutOfMemory: Says how many trials fit.
    """
    num_trials = len(prepared.task.pack.trials)
    needed, per_trial = required_bytes(prepared)
    if needed <= _SHARE_OF_FREE * free_bytes or num_trials == 1:
        return
    num_rows = sum(len(own.indices) for own in prepared.slices)  # repeated trials included
    shared = needed - per_trial * num_rows
    fit = max(1, int((_SHARE_OF_FREE * free_bytes - shared) / per_trial))
    raise OutOfMemory(
        f"{num_trials} trials need about {needed / 2**20:,.0f} MiB,"
        f" {per_trial / 2**20:,.1f} MiB each, and {free_bytes / 2**20:,.0f} MiB are free",
        max_trials=min(fit, num_trials - 1),
    )


# The rest is for what the estimate leaves out: XLA's own buffers, other processes.
_SHARE_OF_FREE = 0.7
