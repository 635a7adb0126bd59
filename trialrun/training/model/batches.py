"""Batches of rows that are streamed from a `tf.data.Dataset`: shuffled, cast, checked, weighted.

Each function makes a dataset from another one. TensorFlow is imported inside functions.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.training.model.build import in_order_of_outputs

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# A shuffle buffer holds as many rows as fit in these bytes, but at most this number of rows.
_SHUFFLE_BYTES = 256 << 20
_MAX_SHUFFLED_ROWS = 10_000


def shuffled_rows(
    rows: "tf.data.Dataset", buffer_rows: int, seed_of_pass: Callable[[], int]
) -> "tf.data.Dataset":
    """The rows in random order, shuffled anew with its own seed in each pass.

    Args:
        rows: In the same order in each pass.
        buffer_rows: How many rows wait in the buffer from which each row is drawn.
        seed_of_pass: Called at the beginning of a pass; gives its seed.
    """
    import tensorflow as tf

    def draw(_: Any) -> Any:
        return tf.numpy_function(lambda: np.int64(seed_of_pass()), [], tf.int64)

    def shuffle(seed: Any) -> Any:
        # Sets the seed of this function's graph only: without one, TensorFlow compares the pair of
        # seeds with (0, 0), which it cannot do for a tensor.
        tf.random.set_seed(1)
        return rows.shuffle(buffer_rows, seed=seed, reshuffle_each_iteration=False)

    # AutoGraph would leave the source code that it generates in the folder for temporary files.
    as_written = tf.autograph.experimental.do_not_convert
    return tf.data.Dataset.from_tensors(0).map(as_written(draw)).flat_map(as_written(shuffle))


def shuffle_buffer_rows(first_rows: Sequence[Any]) -> int:
    """How many rows the shuffle buffer holds; it depends on nothing but the size of the first rows.

    Args:
        first_rows: Arrays (rows, ...) of inputs, targets and perhaps weights.
    """
    import keras

    arrays = keras.tree.flatten(tuple(first_rows))
    row_bytes = sum(array.nbytes for array in arrays) / len(arrays[0])
    return max(1, min(_MAX_SHUFFLED_ROWS, int(_SHUFFLE_BYTES / row_bytes)))


def batches_like(
    rows: "tf.data.Dataset",
    first_rows: tuple[Any, ...],
    batch_size: int,
    *,
    num_rows: int,
    num_classes: int = 0,
) -> "tf.data.Dataset":
    """The rows in batches, in the types that the model takes; the last batch may be partial.

    Reading it raises `tf.errors.InvalidArgumentError` at a row for which data in memory would be
    refused: NaN or infinity, a label below 0 or without a class, an integer that does not fit in
    its type.

    Args:
        rows: `(x, y)` or `(x, y, sample_weight)`.
        first_rows: Arrays (rows, ...) in the structure of a row and in the types to cast to.
        batch_size: Rows per batch.
        num_rows: Number of all rows, so that Keras knows the number of batches.
        num_classes: Number of classes that have names; 0 if none have.
    """
    import tensorflow as tf

    def cast(*batch: Any) -> Any:
        x = tf.nest.map_structure(_cast, batch[0], first_rows[0])
        y = tf.nest.map_structure(
            lambda labels, like: _check_labels(_cast(labels, like), num_classes),
            batch[1],
            first_rows[1],
        )
        return (x, y, *(tf.nest.map_structure(_cast, w, first_rows[2]) for w in batch[2:]))

    batches = rows.batch(batch_size).map(tf.autograph.experimental.do_not_convert(cast))
    length = tf.data.experimental.assert_cardinality(math.ceil(num_rows / batch_size))
    return batches.prefetch(2).apply(length)


def in_order(model: "keras.Model", batches: "tf.data.Dataset") -> "tf.data.Dataset":
    """The batches as Keras evaluates them; see `in_order_of_outputs`."""
    import tensorflow as tf

    def order(*batch: Any) -> Any:
        return in_order_of_outputs(model, batch)

    return batches.map(tf.autograph.experimental.do_not_convert(order))


def _cast(tensor: "tf.Tensor", like: Any) -> "tf.Tensor":
    import tensorflow as tf

    if tensor.dtype == tf.string:
        return tensor
    cast = tf.cast(tensor, like.dtype)
    if tensor.dtype.is_floating:
        cast = tf.debugging.assert_all_finite(cast, "the data holds NaN or infinity")
    elif cast.dtype != tensor.dtype and tensor.dtype.is_integer:
        same = tf.reduce_all(tf.cast(cast, tensor.dtype) == tensor)
        with tf.control_dependencies(
            [tf.Assert(same, ["integers do not fit in", like.dtype.name])]
        ):
            cast = tf.identity(cast)
    return cast


def _check_labels(labels: "tf.Tensor", num_classes: int) -> "tf.Tensor":
    import tensorflow as tf

    if not labels.dtype.is_integer:
        return labels
    checks = [tf.debugging.assert_non_negative(labels, "the data has a label below 0")]
    if num_classes:
        message = f"the data has a label above {num_classes - 1}, for {num_classes} class_names"
        checks.append(tf.debugging.assert_less(labels, num_classes, message))
    with tf.control_dependencies(checks):
        return tf.identity(labels)


def weighed_by_class(
    batches: "tf.data.Dataset", weights: npt.NDArray[np.float32]
) -> "tf.data.Dataset":
    """Batches in which each row has the weight of its class; the arithmetic is Keras's.

    Args:
        batches: `(x, y)`, or `(x, y, weights)`, whose weights are multiplied by those of the
            classes. `y` is one array of labels: class numbers, or one column per class.
        weights: float32 (classes,); a class number without an entry has the weight 1.
    """
    import tensorflow as tf

    def weigh(x: Any, labels: Any, *own: Any) -> Any:
        y = labels
        if y.shape.rank > 1:
            y = tf.argmax(y, -1) if y.shape[-1] != 1 else y[..., 0]
        class_indices = tf.minimum(
            tf.cast(tf.round(tf.cast(y, tf.float64)), tf.int32), len(weights)
        )
        row_weights = tf.gather(tf.constant([*weights, 1.0], tf.float32), class_indices)
        return x, labels, row_weights * own[0] if own else row_weights

    return batches.map(tf.autograph.experimental.do_not_convert(weigh))
