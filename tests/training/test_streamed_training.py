"""Parts that do not fit into memory: trained by `model.fit` as streams, with a pretended limit."""

import itertools
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from sklearn.metrics import confusion_matrix
from training_jobs import PARTIAL_BATCH, load_trials, make_task, train

from trialrun.data import streams
from trialrun.data.load import load_splits
from trialrun.driver.preview.plan import print_plan
from trialrun.errors import InputError, ModelError
from trialrun.export.check import evaluate
from trialrun.job import load_job
from trialrun.statistics.probabilities import ProbabilityScores
from trialrun.training.channel import Reports
from trialrun.training.dry_run import examine
from trialrun.training.engine_choice import choose_engine
from trialrun.training.keras_fit.fit import train_keras
from trialrun.training.keras_fit.streaming import training_batches
from trialrun.training.model import batches
from trialrun.training.model.build import build_model, compile_model
from trialrun.training.pack import train_pack
from trialrun.training.pack_data import load_pack_data
from trialrun.trials.results import Checkpoint, PackResult

pytestmark = pytest.mark.tensorflow

STREAMS = '''
import numpy as np
import tensorflow as tf
from data import blobs


def rows(seed, *, unknown=False, wrong=None, only=("train", "validation", "test"), **sizes):
    """The blobs as streams of rows."""
    output = blobs(seed, **{"num_train": 44, "num_val": 19, "num_test": 23, **sizes})
    if "validation" not in only:
        del output["validation"]
    for key in only:
        x, y = output[key]
        if wrong is not None and key == "train":
            x[100] = wrong
        part = tf.data.Dataset.from_tensor_slices((x, y))
        output[key] = part.filter(lambda x, y: True) if unknown else part
    return output


def batches(seed, **args):
    return {key: part.batch(16) for key, part in rows(seed, **args).items()}


def named(seed, **args):
    return {**rows(seed, **args), "class_names": ["a", "b", "c"]}
'''
UNSCALED = {"generator": "streams.py:rows", "scaling": "none"}


@pytest.fixture(autouse=True)
def tiny_memory(monkeypatch):
    """As if the machine had no memory to spare for arrays of a tf.data.Dataset."""
    monkeypatch.setattr(streams, "available_memory_bytes", lambda: 400)


@pytest.fixture
def in_order(monkeypatch):
    """Rows are not shuffled: what is trained can be said with arrays."""
    monkeypatch.setattr(batches, "_MAX_SHUFFLED_ROWS", 1)


def trials_of(folder, *, builder="dense", seeds=(1,), data=(), **sections):
    (folder / "streams.py").write_text(STREAMS)
    return load_trials(
        folder, builder=builder, seeds=list(seeds), data={**UNSCALED, **dict(data)}, **sections
    )


def arrays_of(folder, trial):
    """The same data, in memory."""
    whole = {"generator": "data.py:blobs", "scaling": "none"}
    data = trial.variant.data.model_copy(update=whole | {"args": PARTIAL_BATCH})
    return load_splits(data, folder, trial.seed)


def fit_plainly(folder, trial, splits, **arguments):
    """The model of a trial after plain `model.fit` on arrays in their order, and its history."""
    keras.utils.set_random_seed(trial.seed)
    model = build_model(trial.variant.model, folder, splits.x_train)
    compile_model(model, trial.variant.training, 6, splits.x_train)
    history = model.fit(
        splits.x_train,
        splits.y_train,
        batch_size=8,
        epochs=3,
        shuffle=False,
        validation_data=(splits.x_val, splits.y_val),
        validation_batch_size=8,
        verbose=0,
        **arguments,
    )
    return model, history.history


@pytest.mark.parametrize(
    ("builder", "seeds", "data", "training", "arguments"),
    [
        ("dropout", (0, 2), {}, {}, {}),
        # A schedule in epochs is that of as many steps, though no length is known.
        (
            "dense",
            (1,),
            {"generator": "streams.py:batches", "args": {"unknown": True}},
            {
                "learning_rate_schedule": {"name": "cosine_decay", "decay_epochs": 2},
                "class_weight": {"0": 2.0, "2": 0.5},
            },
            {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5}},
        ),
    ],
)
def test_a_stream_is_trained_as_plain_fit_trains_its_rows(
    tmp_path, in_order, builder, seeds, data, training, arguments
):
    trials = trials_of(tmp_path, builder=builder, seeds=seeds, data=data, training=training)
    result = train(make_task(tmp_path, trials))
    weights = {}
    for trial, row in zip(trials, result.trials, strict=True):
        splits = arrays_of(tmp_path, trial)
        model, history = fit_plainly(tmp_path, trial, splits, **arguments)
        weights[trial.trial_id] = [variable.numpy() for variable in model.trainable_variables]
        assert (row.engine, row.status, row.epochs) == ("keras", "completed", 3)
        for name, values in history.items():
            np.testing.assert_allclose(row.history[name], values, rtol=1e-6)
        logs = model.evaluate(
            splits.x_test, splits.y_test, batch_size=8, verbose=0, return_dict=True
        )
        for name, value in logs.items():
            assert row.metrics[f"test_{name}"] == pytest.approx(value, rel=1e-6)
        for part in ("val", "test"):
            x, y = splits.part(part)
            expected = confusion_matrix(y, model(x, training=False).numpy().argmax(1))
            np.testing.assert_array_equal(getattr(row, f"{part}_confusion_matrix"), expected)
    best = result.best_states["v00"]
    for array, expected in zip(best.trainable, weights[best.trial_id], strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_test_part_alone_may_be_streamed_and_the_rest_is_as_in_memory(tmp_path):
    (trial,) = trials_of(tmp_path, data={"args": {"only": ["test"], "num_test": 300}})
    (row,) = train(make_task(tmp_path, [trial])).trials
    (whole,) = load_trials(
        tmp_path,
        builder="dense",
        seeds=[1],
        data={
            "generator": "streams.py:rows",
            "scaling": "none",
            "args": {"only": [], "num_test": 300},
        },
        training={"engine": "keras"},
    )
    (expected,) = train(make_task(tmp_path, [whole])).trials
    # What ranks all rows needs them all in memory.
    assert expected.metrics.keys() - row.metrics.keys() == {
        f"test_{name}" for name in ProbabilityScores._fields
    }
    of_both = {name: expected.metrics[name] for name in row.metrics}
    assert row.metrics == pytest.approx(of_both, rel=1e-6)
    assert row.test_confusion_matrix.sum() == 300
    np.testing.assert_array_equal(row.test_confusion_matrix, expected.test_confusion_matrix)


# Order --------------------------------------------------------------------------------------------


def orders(splits, seed, epochs):
    """The first feature of all rows as they come, epoch after epoch."""
    begun = itertools.count()
    of_epochs = training_batches(splits, 8, seed, lambda: next(begun))
    return [np.concatenate([x.numpy()[:, 0] for x, _ in of_epochs]) for _ in range(epochs)]


def test_the_order_of_rows_is_decided_by_the_seed_and_the_epoch(tmp_path, monkeypatch):
    (trial,) = trials_of(tmp_path)
    splits = load_splits(trial.variant.data, tmp_path, 1)
    rows = arrays_of(tmp_path, trial).x_train[:, 0]
    first, second = orders(splits, 1, 2)
    for order in (first, second):
        assert sorted(order) == sorted(rows)
        assert (order != rows).sum() > 30
    assert (first != second).sum() > 30
    keras.utils.set_random_seed(0)  # nothing but the trial's seed matters
    np.testing.assert_array_equal(orders(splits, 1, 2), [first, second])
    assert (orders(splits, 2, 1)[0] != first).sum() > 30


def test_the_buffer_holds_as_many_rows_as_their_size_allows():
    small, large = np.zeros((64, 10), np.float32), np.zeros((2, 1 << 24), np.float32)
    assert batches.shuffle_buffer_rows((small, np.zeros(64, np.int32))) == 10_000
    assert batches.shuffle_buffer_rows((large, np.zeros(2, np.int32))) == 3


def test_a_stopped_trial_goes_on_bit_for_bit(tmp_path):
    trials = trials_of(tmp_path, builder="dropout", training={"checkpoint_every": 1, "epochs": 4})
    task = make_task(tmp_path, trials)
    said = list(train_pack(task, "CPU"))
    whole = said[-1]
    assert isinstance(whole, PackResult)
    begun = next(one for one in said if isinstance(one, Checkpoint) and one.epochs[0] == 2)
    goes_on = type(task)(task.pack, task.job_folder, task.select, checkpoint=begun)
    again = train(goes_on)
    (one,), (other,) = whole.trials, again.trials
    for name, values in one.history.items():
        np.testing.assert_array_equal(other.history[name], values)
    assert one.metrics == other.metrics


# Which engine, and why ----------------------------------------------------------------------------


def choose(task):
    data, errors = load_pack_data(task.pack.trials, task.job_folder)
    assert not errors
    return choose_engine(task, data, {})


def test_the_engine_is_keras_and_the_reason_names_the_part_and_the_room(tmp_path):
    (found,) = examine(make_task(tmp_path, trials_of(tmp_path)))
    assert found.engine == "keras"
    assert re.fullmatch(
        r"not fused or mapped: train takes [\d.]+ KiB as arrays, but only 100 bytes are free for"
        r" it, so model\.fit reads it as a stream",
        found.reason,
    )


@pytest.mark.parametrize("engine", ["fused", "mapped"])
def test_another_engine_cannot_be_forced(tmp_path, engine):
    task = make_task(tmp_path, trials_of(tmp_path, training={"engine": engine}))
    with pytest.raises(ModelError, match=f"training.engine: {engine} is not possible: train takes"):
        choose(task)


def test_the_plan_says_what_is_streamed(tmp_path):
    trials_of(tmp_path)
    console = Console(width=200, record=True)
    print_plan(console, load_job(tmp_path / "job.yaml"))
    print_plan(console, load_job(tmp_path / "job.yaml"), trace=True)
    text = console.export_text()
    plain, traced = text.split("Packs")[1:]
    assert "streamed" in plain
    assert "keras" in traced
    assert "so model.fit reads it as a stream." in traced


# What cannot be done ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"scaling": "minmax"}, "so it is streamed; data.scaling can be fitted only on rows in"),
        ({"args": {"only": ["train"]}}, "data.validation_split can split only rows in memory; let"),
    ],
)
def test_what_needs_all_rows_at_once_is_refused_with_what_to_do(tmp_path, data, message):
    (trial,) = trials_of(tmp_path, data=data)
    with pytest.raises(InputError, match=message) as caught:
        load_splits(trial.variant.data, tmp_path, 1)
    assert re.search(r"\(seed 1\): train takes [\d.]+ KiB as arrays", str(caught.value))


def test_balanced_class_weights_are_refused(tmp_path):
    trials = trials_of(tmp_path, training={"class_weight": "balanced"})
    _, errors = load_pack_data(trials, tmp_path)
    assert "balanced needs the classes of all training rows" in str(errors[trials[0].trial_id])


def test_wrong_first_rows_are_refused_before_training(tmp_path):
    data = {"generator": "streams.py:named", "args": {"num_train": 200, "num_classes": 4}}
    trials = trials_of(tmp_path, data=data)
    _, errors = load_pack_data(trials, tmp_path)
    assert "labels from 0 to 2 for 3 class_names, got 3" in str(errors[trials[0].trial_id])


def test_a_wrong_row_far_behind_is_refused_when_it_comes(tmp_path):
    trials = trials_of(tmp_path, data={"args": {"num_train": 200, "wrong": float("nan")}})
    with pytest.raises(
        InputError, match=r"as a stream raised InvalidArgumentError: the data holds NaN"
    ):
        train(make_task(tmp_path, trials))


def test_rows_are_cast_as_data_in_memory_is_and_checked():
    rows = tf.data.Dataset.range(5).map(lambda i: (tf.cast(i, tf.float64), i, i * 2))
    like = (np.zeros(1, np.float32), np.zeros(1, np.int32), np.zeros(1, np.float32))
    (x, y, w), _ = batches.batches_like(rows, like, 3, num_rows=5)
    assert (x.dtype, y.dtype, w.dtype) == (tf.float32, tf.int32, tf.float32)
    np.testing.assert_array_equal(y, [0, 1, 2])
    for wrong, message in ((-1, "label below 0"), (3, "label above 2"), (2**40, "do not fit in")):
        one = tf.data.Dataset.from_tensors((0.0, tf.constant(wrong, tf.int64)))
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            list(batches.batches_like(one, like[:2], 1, num_rows=1, num_classes=3))


# Afterwards ---------------------------------------------------------------------------------------


def test_a_saved_model_is_checked_on_the_stream(tmp_path):
    (trial,) = trials_of(tmp_path, data={"args": {**PARTIAL_BATCH, "num_test": 300}})
    splits, arrays = load_splits(trial.variant.data, tmp_path, 1), arrays_of(tmp_path, trial)
    model, _ = fit_plainly(tmp_path, trial, arrays)
    whole = load_splits(
        trial.variant.data.model_copy(update={"generator": str(tmp_path / "data.py:blobs")}),
        tmp_path,
        1,
    )
    assert len(splits.x_test) == 64
    assert evaluate(model, splits, 8) == pytest.approx(evaluate(model, whole, 8), rel=1e-6)


def test_a_user_error_while_streaming_is_named(tmp_path):
    (trial,) = trials_of(tmp_path)
    data, _ = load_pack_data([trial], tmp_path)
    (splits,) = data.splits

    def broken(x, y):
        tf.debugging.assert_less(tf.cast(x, tf.float32), 2.0, message="too large for me")
        return x, y

    stream = splits.streams["train"]
    splits.streams["train"] = replace(stream, rows=stream.rows.map(broken))
    task = make_task(tmp_path, [trial])
    with pytest.raises(InputError, match=r"as a stream raised InvalidArgumentError: .*too large"):
        list(train_keras(task, data, {}, Reports(lambda: False)))
