"""Products of matrices, where XLA is slow, in ways that it computes fast.

Products of small matrices become multiplications and sums on a CPU: these are fused into one
vectorized loop. The limits were measured, and hold for CPUs only.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from trialrun.training.internals import tensorflow_graph
from trialrun.training.internals.tensorflow_graph import Converter, PForInput, stacked


@contextlib.contextmanager
def products_for_xla(*, one_trial: bool) -> Iterator[None]:
    """Within this context, TensorFlow multiplies matrices in ways that XLA computes fast.

    Args:
        one_trial: Whether the program is not vectorized over trials.
    """
    replaced = tensorflow_graph.operation_replaced
    by_sums = one_trial and _is_for_cpu()
    with (
        replaced("batch_mat_mul_v2", _as_one_product),
        replaced("mat_mul", _by_a_sum) if by_sums else contextlib.nullcontext(),
    ):
        yield


def _as_one_product(
    own: Callable[..., Any],
    x: Any,
    y: Any,
    adj_x: bool = False,
    adj_y: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Stacks (..., rows, inner) times one matrix, as the product of all their rows.

    Its gradient for the matrix is one product too, in place of one for each of the stack and a sum.
    Whole numbers are left to TensorFlow: stacks may be of types of which two matrices may not.
    """
    left, right = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    is_known = left.shape.is_fully_defined() and right.shape.is_fully_defined()
    is_real = left.dtype.is_floating and left.dtype == right.dtype
    if adj_x or not is_known or right.shape.rank != 2 or not is_real:
        return own(left, right, adj_x, adj_y, *args, **kwargs)
    product = tf.matmul(tf.reshape(left, [-1, left.shape[-1]]), right, transpose_b=adj_y)
    return tf.reshape(product, [*left.shape[:-1], product.shape[1]])


def _by_a_sum(
    own: Callable[..., Any],
    a: Any,
    b: Any,
    transpose_a: bool = False,
    transpose_b: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """The gradient of the input of a layer with two or three units, such as a softmax of classes.

    XLA computes that element by element: for 128 rows and 256 inputs in 50 us, in place of 6.
    """
    left, right = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    are_matrices = left.shape.rank == right.shape.rank == 2 and left.dtype == tf.float32
    is_slow = are_matrices and left.shape[1] == right.shape[1] and left.shape[1] in (2, 3)
    if is_slow and transpose_b and not transpose_a:
        return tf.reduce_sum(left[:, None] * right, 2)
    return own(left, right, transpose_a, transpose_b, *args, **kwargs)


def _is_for_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


def product_converters() -> dict[str, Converter]:
    """The name of an operation -> its converter, for products of all trials' matrices."""
    if not _is_for_cpu():
        return {}
    return {
        "MatMul": _matmul_converter("MatMul", "transpose_a", "transpose_b"),
        "BatchMatMulV2": _matmul_converter("BatchMatMulV2", "adj_x", "adj_y"),
    }


def _multiply_and_sum_is_faster(
    rows: int, inner: int, columns: int, *, transpose_a: bool, transpose_b: bool
) -> bool:
    """Whether XLA's CPU backend multiplies stacked matrices of this size faster without its dot.

    Its batched dot runs tiny shapes at 0.5 to 8 GFLOP/s, as it calls a kernel per matrix.
    """
    if transpose_a and not transpose_b:  # gradient of a kernel: (features, batch) x (batch, units)
        return inner <= 16 and rows <= 256 and columns <= 256
    if transpose_b and not transpose_a:  # gradient of a layer's input
        return inner <= 4
    if not transpose_a and not transpose_b:  # forward pass
        return columns <= 4 and inner <= 64
    return False


def _matmul_converter(op_type: str, transpose_a_name: str, transpose_b_name: str) -> Converter:
    convert_with_dot = tensorflow_graph.converter_of(op_type)
    assert convert_with_dot is not None

    def convert(pfor: PForInput) -> Any:
        transpose_a, transpose_b = pfor.get_attr(transpose_a_name), pfor.get_attr(transpose_b_name)
        left, right = pfor.input(0), pfor.input(1)
        if not (_is_stack_of_matrices(left) and _is_stack_of_matrices(right)):
            return convert_with_dot(pfor)
        a = tf.transpose(left.t, [0, 2, 1]) if transpose_a else left.t
        b = tf.transpose(right.t, [0, 2, 1]) if transpose_b else right.t
        (_, rows, inner), columns = a.shape, b.shape[2]
        if not _multiply_and_sum_is_faster(
            rows, inner, columns, transpose_a=transpose_a, transpose_b=transpose_b
        ):
            return convert_with_dot(pfor)
        products = tf.expand_dims(a, 3) * tf.expand_dims(b, 1)
        return stacked(tf.reduce_sum(products, 2), True)

    return convert


def _is_stack_of_matrices(value: Any) -> bool:
    shape = value.t.shape
    return bool(
        value.is_stacked
        and shape.rank == 3
        and shape.is_fully_defined()
        and value.t.dtype == tf.float32
    )
