"""Reads parts that do not fit into memory batch by batch in each epoch, for the plain engine."""

import contextlib
import re
from collections.abc import Callable, Iterator

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.data.labels import class_numbers
from trialrun.data.model_task import ModelTask
from trialrun.data.splits import Part, Splits
from trialrun.errors import InputError
from trialrun.training.devices import is_out_of_memory
from trialrun.training.model.batches import (
    batches_like,
    in_order,
    shuffle_buffer_rows,
    shuffled_rows,
    weighed_by_class,
)
from trialrun.training.scores import classes_of, judge

# TensorFlow's message names the dataset's step that raised in this form; the error follows.
_OF_ITERATOR = re.compile(r"Iterator::\S+: ")
# Separates the random orders of streamed rows from the trial's other random streams.
_STREAM_ORDER = 2


def training_batches(
    splits: Splits, batch_size: int, seed: int, epoch: Callable[[], int]
) -> tf.data.Dataset:
    """The batches of one epoch of a streamed training part; each pass reads them again.

    Args:
        splits: The trial's data.
        batch_size: Rows of a batch.
        seed: The trial's seed.
        epoch: Gives the number, from 0, of the epoch that begins. It and the seed decide the order.
    """
    stream, first_rows = splits.streams["train"], splits.part("train")

    def seed_of_pass() -> int:
        return int(np.random.SeedSequence([seed, _STREAM_ORDER, epoch()]).generate_state(1)[0])

    rows = shuffled_rows(stream.rows, shuffle_buffer_rows(first_rows), seed_of_pass)
    batches = _batches(splits, "train", rows, batch_size)
    weights = stream.class_weights
    return batches if weights is None else weighed_by_class(batches, weights)


def evaluation_batches(
    model: keras.Model, splits: Splits, part: Part, batch_size: int
) -> tf.data.Dataset:
    """The batches of a streamed part, in the order of its rows."""
    return in_order(model, _batches(splits, part, splits.streams[part].rows, batch_size))


def _batches(splits: Splits, part: Part, rows: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    return batches_like(
        rows,
        splits.part(part),
        batch_size,
        num_rows=splits.streams[part].num_rows,
        num_classes=len(splits.class_names),
    )


def streamed_confusion(
    model: keras.Model, splits: Splits, part: Part, task: ModelTask, batch_size: int
) -> npt.NDArray[np.int64] | None:
    """The confusion matrix of a streamed part, summed over its batches; see `judge`.

    The first rows tell whether the model is a classifier. If it is none, the part is not read.

    Raises:
        InputError: A later row has a label that is none of the model's classes.
    """
    if classes_of(task, splits) is None:
        return None
    total: npt.NDArray[np.int64] | None = None
    for x, y, *_ in evaluation_batches(model, splits, part, batch_size):
        if (labels := class_numbers(y.numpy(), task.num_classes)) is None:
            raise InputError(
                f"{splits.streams[part].where}: a later row has a label that is none of the"
                f" {task.num_classes} classes of the model; every label must be one of them, as in"
                " the first rows"
            )
        predictions = model.predict_on_batch(x)
        matrix = judge(task, labels, predictions, with_probabilities=False).confusion_matrix
        if matrix is None:
            return None
        total = matrix if total is None else total + matrix
    return total


@contextlib.contextmanager
def reading_streams(splits: Splits) -> Iterator[None]:
    """Raises InputError for an error in reading a stream: in the user's steps, or a wrong row."""
    try:
        yield
    except tf.errors.OpError as error:
        if not splits.streams or is_out_of_memory(error):
            raise
        said = _OF_ITERATOR.split(str(error.message))[-1].partition("\n\t [[")[0]
        raise InputError(
            f"reading {', '.join(splits.streams)} as a stream raised {type(error).__name__}:"
            f" {' '.join(said.split())[:300]}"
        ) from error
