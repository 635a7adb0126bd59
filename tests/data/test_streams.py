"""Parts that a generator gives as tf.data.Dataset, made into arrays."""

import numpy as np
import pytest
import tensorflow as tf

from trialrun.data.load import load_splits
from trialrun.data.splits import make_splits
from trialrun.data.streams import read_streams
from trialrun.errors import InputError, OutOfMemory
from trialrun.host import available_memory_bytes
from trialrun.job import DataSpec
from trialrun.training.pack_data import require_memory, splits_bytes

pytestmark = pytest.mark.tensorflow

X, Y = np.arange(60, dtype=np.float32).reshape(20, 3), np.arange(20) % 2
ROWS = tf.data.Dataset.from_tensor_slices((X, Y))


def read(stream, limit_bytes=1 << 20):
    output, _ = read_streams({"train": stream, "test": (X, Y)}, source="a", limit_bytes=limit_bytes)
    return output


@pytest.mark.parametrize(
    "stream",
    [
        ROWS,
        ROWS.batch(7),
        ROWS.batch(7).prefetch(2),
        ROWS.filter(lambda x, y: True),  # of unknown length
        ROWS.batch(7).cache().map(lambda x, y: (x + 0, y)),
    ],
)
def test_rows_and_batches_become_the_arrays_that_they_were_made_of(stream):
    x, y = read(stream)["train"]
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_several_inputs_keep_their_names():
    stream = tf.data.Dataset.from_tensor_slices(({"b": X, "a": X[:, 0]}, (Y, X))).batch(6)
    x, (labels, amounts) = read(stream)["train"]
    assert x.keys() == {"a", "b"}
    np.testing.assert_array_equal(x["a"], X[:, 0])
    np.testing.assert_array_equal(x["b"], X)
    np.testing.assert_array_equal(labels, Y)
    np.testing.assert_array_equal(amounts, X)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (ROWS.repeat(), "has no end; leave out repeat"),
        (ROWS.batch(5, drop_remainder=True), "may be either rows or batches; make batches without"),
        (tf.data.Dataset.from_tensor_slices((X, X)), "may be either rows or batches"),
        (tf.data.Dataset.from_tensor_slices(X), "must be (x, y), got"),
        (ROWS.filter(lambda x, y: False), "is empty"),
    ],
)
def test_a_stream_that_cannot_be_made_into_arrays_is_refused(stream, message):
    with pytest.raises(InputError) as caught:
        read(stream)
    assert message in str(caught.value)


def test_parts_share_the_room_and_those_that_do_not_fit_are_streams():
    size = X.nbytes + Y.nbytes
    output, streams = read_streams(
        {"train": ROWS, "test": ROWS, "validation": (X, Y)}, source="a", limit_bytes=size + 10
    )
    assert streams.keys() == {"test"}
    np.testing.assert_array_equal(output["train"][0], X)
    assert output["validation"] == (X, Y)
    takes = f"takes {size} bytes as arrays"
    assert streams["test"].reason == f"{takes}, but only 10 bytes are free for it"


LONG = tf.data.Dataset.range(2000).map(lambda i: (tf.fill([3], i), i % 2))


@pytest.mark.parametrize(
    "stream",
    [LONG, LONG.batch(2), LONG.filter(lambda x, y: True), LONG.batch(7).prefetch(2)],
)
def test_a_stream_that_does_not_fit_is_known_by_its_first_rows_and_not_read_to_its_end(
    stream,
):
    taken = []

    def count(x, y):
        taken.append(1)
        return x, y

    counted = stream.map(lambda x, y: tuple(tf.numpy_function(count, (x, y), [x.dtype, y.dtype])))
    shaped = counted.map(
        lambda x, y: (
            tf.ensure_shape(x, stream.element_spec[0].shape),
            tf.ensure_shape(y, stream.element_spec[1].shape),
        )
    )
    output, streams = read_streams({"train": shaped}, source="a", limit_bytes=80)
    assert len(taken) < 100
    x, y = output["train"]
    np.testing.assert_array_equal(x, np.repeat(np.arange(64), 3).reshape(64, 3))
    np.testing.assert_array_equal(y, np.arange(64) % 2)
    assert streams["train"].num_rows == 2000


def test_an_empty_part_is_refused_as_a_stream_too():
    with pytest.raises(InputError, match=r"train: the tf.data.Dataset is empty"):
        read(ROWS.take(0), limit_bytes=-1)


def test_an_error_of_the_users_own_steps_is_named():
    def broken(x, y):
        tf.debugging.assert_less(x, 30.0, message="too large")
        return x, y

    with pytest.raises(InputError, match=r"a: train: reading the tf.data.Dataset raised Invalid"):
        read(ROWS.map(broken))


def test_data_of_more_trials_than_memory_holds_is_refused_with_the_numbers():
    output = {"train": (X, Y), "test": (X, Y)}
    splits = make_splits(output, scaling="minmax", validation_split=0.5, seed=0)
    one = splits_bytes(splits)
    assert one == 40 * 3 * 4 + 40 * 4
    require_memory(splits, 10, free_bytes=19 * one)
    with pytest.raises(OutOfMemory, match="10 trials, with the device's copy"):
        require_memory(splits, 10, free_bytes=19 * one - 1)


def test_a_generator_may_return_streams(tmp_path):
    (tmp_path / "made.py").write_text(
        "import numpy as np, tensorflow as tf\n"
        "def data(seed):\n"
        "    x = np.random.default_rng(seed).normal(size=(50, 2))\n"
        "    part = tf.data.Dataset.from_tensor_slices((x, x[:, 0] > 0)).batch(8)\n"
        "    return {'train': part, 'test': part}\n"
    )
    splits = load_splits(DataSpec(generator="made.py:data", scaling="standard"), tmp_path, 0)
    assert splits.x_train.shape == (45, 2)
    assert splits.y_test.dtype == np.int32


def test_available_memory_is_what_the_kernel_says_within_the_control_group(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 40 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    assert available_memory_bytes(tmp_path) == 40 << 10
    (tmp_path / "sys/fs/cgroup/job").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text("20480\n")
    assert available_memory_bytes(tmp_path) == 20480


def test_a_dataset_that_does_not_say_its_shapes_is_refused_with_the_remedy():
    rows = tf.data.Dataset.from_generator(lambda: iter([([1.0], 0)]), (tf.float32, tf.int32))
    with pytest.raises(
        InputError, match=r"does not declare the shapes of its elements.*output_sig"
    ):
        read_streams({"train": rows, "test": rows}, source="here")


def test_a_dataset_of_ragged_rows_is_refused():
    rows = tf.data.Dataset.from_tensor_slices((tf.ragged.constant([[1], [2, 3]]), [0, 1]))
    with pytest.raises(
        InputError,
        match=r"train: a tf.data.Dataset must hold dense tensors, got RaggedTensorSpec.*; pad",
    ):
        read_streams({"train": rows, "test": rows}, source="here")


@pytest.mark.parametrize("num_batched", [None, 2])
def test_a_dataset_of_texts_becomes_texts(num_batched):
    from trialrun.data.generator_arrays import as_arrays

    rows = tf.data.Dataset.from_tensor_slices((["a", "b", "ü"], ["no", "yes", "no"]))
    rows = rows if num_batched is None else rows.batch(num_batched)
    output, _ = read_streams({"train": rows, "test": rows}, source="here")
    x, y = as_arrays(output, source="here")["train"]
    assert (x.tolist(), y.tolist()) == (["a", "b", "ü"], [0, 1, 0])
