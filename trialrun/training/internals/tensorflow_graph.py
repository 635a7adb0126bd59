"""Private names of TensorFlow: the graphs of programs, and how `pfor` vectorizes them."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal
from unittest import mock
from weakref import WeakKeyDictionary

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework.smart_cond import smart_constant_value
from tensorflow.python.ops import (
    gen_math_ops,
    gen_nn_ops,
    gen_stateless_random_ops,
    gen_stateless_random_ops_v2,
)
from tensorflow.python.ops.parallel_for import control_flow_ops
from tensorflow.python.ops.parallel_for import pfor as parallel_for


@contextlib.contextmanager
def random_operations_replaced(
    replacement: Callable[[str, Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    """Within this context, TensorFlow's generated functions of stateless draws are replaced.

    Args:
        replacement: Takes a name such as `stateless_random_uniform_v2` and the function, and gives
            one with the same parameters.
    """
    with contextlib.ExitStack() as stack:
        for module in (gen_stateless_random_ops, gen_stateless_random_ops_v2):
            for name, function in list(vars(module).items()):
                if name.startswith("stateless_") and not name.endswith("_eager_fallback"):
                    own = replacement(name, function)
                    stack.enter_context(mock.patch.object(module, name, own))
        yield


_GENERATED = {"mat_mul": gen_math_ops, "batch_mat_mul_v2": gen_math_ops, "top_kv2": gen_nn_ops}


def operation_replaced(
    name: Literal["mat_mul", "batch_mat_mul_v2", "top_kv2"], instead: Callable[..., Any]
) -> contextlib.AbstractContextManager[Any]:
    """Within this context, TensorFlow does an operation by another function, also in gradients.

    Args:
        name: Of TensorFlow's generated function: it multiplies two matrices, or stacks of them, or
            sorts and finds the largest numbers.
        instead: Takes the generated function, and then what that takes.
    """
    owner = _GENERATED[name]
    return mock.patch.object(owner, name, functools.partial(instead, getattr(owner, name)))


def constant_of(tensor: tf.Tensor) -> Any:
    """The value of a tensor that follows from constants alone, as an array; else None."""
    return smart_constant_value(tensor)


def graph_of(graph: Any, function_name: str) -> Any:
    """The graph of a function that operations of a graph call."""
    return graph._get_function(function_name).graph


def is_known_here(tensor: tf.Tensor) -> bool:
    """Whether a tensor may be used in the graph that is being traced: it is of it or around it."""
    graph = tf.compat.v1.get_default_graph()
    while graph is not None and getattr(tensor, "graph", graph) is not graph:
        graph = getattr(graph, "outer_graph", None)
    return graph is not None


def operations_within(graph: Any) -> set[str]:
    """The types of all operations of a graph, and of the functions that it calls."""
    definition = graph.as_graph_def()
    functions = (node for function in definition.library.function for node in function.node_def)
    return {node.op for node in (*definition.node, *functions)}


def operations_needed(graph: Any) -> set[str]:
    """The types of the operations that a function's results depend on.

    Where these call functions, the operations that their results depend on are among them. What
    `pfor` has replaced is still in a graph, but no result depends on it.

    Args:
        graph: The graph of a concrete function.
    """
    definition = graph.as_graph_def()
    functions = {own.signature.name: own for own in definition.library.function}
    outputs = (
        *(tensor.op.name for tensor in graph.outputs),
        *(o.name for o in graph.control_outputs),
    )
    operations: set[str] = set()
    called: set[str] = set()
    waiting = [(definition.node, outputs)]
    while waiting:
        for node in _nodes_needed(*waiting.pop()):
            operations.add(node.op)
            for name in _functions_of(node) & functions.keys() - called:
                called.add(name)
                body = functions[name]
                returned = (*body.ret.values(), *body.control_ret.values())
                waiting.append((body.node_def, returned))
    return operations


def _nodes_needed(nodes: Sequence[Any], results: Sequence[str]) -> Iterator[Any]:
    """The nodes on which results depend, given by names such as `node` or `node:output:0`."""
    by_name = {node.name: node for node in nodes}
    waiting = list(results)
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if (node := by_name.pop(name, None)) is not None:  # else it is an argument, or was here
            waiting.extend(node.input)
            yield node


def _functions_of(node: Any) -> set[str]:
    """The names of the functions that a node may call."""
    attributes = node.attr.values()
    listed = (function for value in attributes for function in value.list.func)
    return {node.op, *(value.func.name for value in attributes), *(own.name for own in listed)}


def is_plain(graph: Any) -> bool:
    """Whether no operation of a graph calls a function or has side effects."""
    return all(
        not operation.op_def.is_stateful
        and not any(value.HasField("func") for value in operation.node_def.attr.values())
        for operation in graph.get_operations()
    )


PForInput = Any
Converter = Callable[[PForInput], Any]
stacked = parallel_for.wrap


def for_every_index(function: Callable[[tf.Tensor], Any], num_indices: int) -> Any:
    """The results of `function(0)`, `function(1)`, ... stacked on axis 0, computed together.

    Raises:
        ValueError: An operation in `function` has no converter.
    """
    # `pfor` itself would make a tf.function, with AutoGraph, which rewrites the source of all that
    # it calls, and with a further input for each tensor of the state.
    return control_flow_ops._pfor_impl(function, num_indices, fallback_to_while_loop=False)


def fold_trials_into_batch(pfor: PForInput, inputs: list[int]) -> Any:
    """Converts an operation by folding the trial axis of some inputs into their batch axis."""
    return parallel_for._convert_flatten_batch(pfor, pfor.op_type, inputs)


def converter_of(op_type: str) -> Converter | None:
    """The registered converter of an operation; None if there is none."""
    return parallel_for._pfor_converter_registry.get(op_type)


def set_converters(converters: Mapping[str, Converter]) -> None:
    """Registers converters of operations in this process, also where there are others."""
    for op_type, converter in converters.items():
        parallel_for._pfor_converter_registry[op_type] = converter


def copy_operation(operation: Any, inputs: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """The outputs of a copy of an operation in the graph that is being traced, with other inputs.

    Gradient tapes record it.
    """
    dtypes = [tensor.dtype for tensor in operation.outputs]
    attributes = operation.node_def.attr
    copy = parallel_for._create_op(operation.type, inputs, dtypes, attrs=attributes)
    outputs: Sequence[tf.Tensor] = copy.outputs
    return outputs


def unrecorded() -> contextlib.AbstractContextManager[None]:
    """Within this context, no gradient tape records anything."""
    return record.stop_recording()


# The inputs of a call, each with whether it is stacked, and the number of trials -> its outputs.
VectorizedCall = Callable[[Sequence[tuple[tf.Tensor, bool]], int], Sequence[tf.Tensor]]
_VECTORIZED_CALLS: WeakKeyDictionary[Any, VectorizedCall] = WeakKeyDictionary()


def vectorize_call_by(graph: Any, call: VectorizedCall) -> None:
    """Makes `pfor` convert calls of the function with a graph by `call`.

    Args:
        graph: The graph of a concrete function.
        call: Its results are stacked on axis 0.
    """
    _VECTORIZED_CALLS[graph] = call
    for op_type in ("PartitionedCall", "StatefulPartitionedCall"):
        if parallel_for._pfor_converter_registry[op_type] is not _convert_call:
            _STOCK_CONVERTERS[op_type] = parallel_for._pfor_converter_registry[op_type]
            parallel_for._pfor_converter_registry[op_type] = _convert_call


_STOCK_CONVERTERS: dict[str, Converter] = {}


def _convert_call(pfor: PForInput) -> Any:
    graph = graph_of(pfor.op.graph, pfor.get_attr("f").name)
    if graph not in _VECTORIZED_CALLS:
        return _STOCK_CONVERTERS[pfor.op_type](pfor)
    num_trials = tf.get_static_value(pfor.pfor.loop_len_vector)[0]
    inputs = [(value.t, value.is_stacked) for value in pfor.inputs]
    return [stacked(tensor, True) for tensor in _VECTORIZED_CALLS[graph](inputs, int(num_trials))]
