"""Trials that are controlled between epochs are trained as `model.fit` with Keras's callbacks."""

from concurrent.futures import wait
from dataclasses import replace

import keras
import numpy as np
import pytest
from test_fused_oracle import Oracle, builder_in
from training_jobs import (
    load_trials,
    make_task,
    train,
    train_with_fused,
    train_with_keras,
    write_files,
)

from trialrun.errors import ModelError
from trialrun.training import heartbeats
from trialrun.training.channel import Reports
from trialrun.training.compiled import controlled
from trialrun.training.pack import train_pack
from trialrun.training.program.program import Program
from trialrun.trials.results import Checkpoint, PackResult, Progress

pytestmark = pytest.mark.tensorflow

EPOCHS = 9
ENGINES = {"fused": train_with_fused, "keras": train_with_keras}
PATIENCES = (0, 1, 3, EPOCHS)
STOPPING = {"min_delta": 0.001, "monitor": "val_accuracy"}
# Trials of these settings share a program, whatever the values of the first three are.
CONTROLS = {
    "early_stopping": STOPPING,
    "reduce_lr_on_plateau": {"patience": EPOCHS},  # never
    "keep_best": "val_loss",
    "checkpoint_every": 2,
    "terminate_on_nan": True,
}


def trials_of(folder, *, seeds=2, patiences=PATIENCES, stopping=(), **training):
    search = {"training.early_stopping.patience": {"values": list(patiences)}}
    training = {"epochs": EPOCHS, "learning_rate": 0.05, **CONTROLS, **training}
    training["early_stopping"] = {**STOPPING, **dict(stopping)}
    return load_trials(
        folder, builder="everything", seeds=seeds, search={"parameters": search}, training=training
    )


def assert_same(plain, trained):
    """As `assert_same_training`, but for the roundings of more epochs."""
    assert trained.history.keys() == plain.history.keys()
    for name, values in plain.history.items():
        assert_close(trained.history[name], values, name)
    for name, value in plain.test_logs.items():
        assert_close(trained.test_logs[name], value, name)
    for group in ("trainable", "non_trainable", "optimizer"):
        pairs = zip(getattr(trained, group), getattr(plain, group), strict=True)
        for array, (path, expected) in pairs:
            assert_close(array, expected, path)


def assert_close(actual, expected, what=""):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5, err_msg=what)


@pytest.fixture(scope="module")
def stopping_folder(tmp_path_factory):
    """Of jobs whose packs are trained by one program."""
    return tmp_path_factory.mktemp("stopping")


@pytest.fixture(scope="module")
def oracle(stopping_folder):
    """Plain Keras, whose one model trains the trials of all tests."""
    write_files(stopping_folder)
    return Oracle(stopping_folder, builder_in(stopping_folder, "everything"))


class KeepBest(keras.callbacks.Callback):
    """The weights that `ModelCheckpoint(save_best_only=True)` would have in its file."""

    def on_train_begin(self, logs=None):
        self.losses, self.best = [], None

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["val_loss"])
        if logs["val_loss"] == min(self.losses):
            self.best = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.best)


def test_a_pack_is_controlled_as_keras_controls_it(stopping_folder, oracle, subtests):
    """Each trial stops where Keras stops it, its rate is reduced, and its best epoch kept.

    The weights that `EarlyStopping` restores, and the engine `mapped`, see `test_checkpoints`.
    """
    plateau = {"monitor": "val_accuracy", "patience": 1, "factor": 0.5, "min_lr": 0.01}
    trials = trials_of(stopping_folder, seeds=[1], reduce_lr_on_plateau=plateau, learning_rate=0.03)
    oracles = [
        oracle.train(
            trial,
            keras.callbacks.EarlyStopping(
                **STOPPING, mode="max", patience=trial.variant.training.early_stopping.patience
            ),
            keras.callbacks.ReduceLROnPlateau(**plateau, mode="max"),
            KeepBest(),
        )
        for trial in trials
    ]
    num_epochs = [len(plain.history["loss"]) for plain in oracles]
    assert len(set(num_epochs)) > 2
    assert max(num_epochs) == EPOCHS
    of_engines = {"fused": slice(None), "keras": slice(1, 3)}
    assert max(num_epochs[of_engines["keras"]]) < EPOCHS
    for engine, places in of_engines.items():
        with subtests.test(engine=engine):
            trained = ENGINES[engine](make_task(stopping_folder, trials[places], num_threads=2))
            for one, plain in zip(trained, oracles[places], strict=True):
                assert_same(plain, one)
                assert one.best_epoch == np.argmin(one.history["val_loss"]) + 1
            rates = {round(float(v), 4) for v in trained[-1].history["learning_rate"]}
            assert rates >= {0.03, 0.015}
    result = train(make_task(stopping_folder, trials, num_threads=2))
    for one, row in zip(oracles, result.trials, strict=True):
        losses = one.history["val_loss"]
        assert row.epochs == len(losses)
        assert row.best_epoch == np.argmin(losses) + 1
        assert row.metrics["val_loss"] == pytest.approx(min(losses), abs=2e-5)
        expected = one.history["loss"][np.argmin(losses)]
        assert row.metrics["train_loss"] == pytest.approx(expected, abs=2e-5)
    assert min(row.best_epoch for row in result.trials) < EPOCHS


def test_a_slice_that_becomes_narrower_trains_its_trials_as_before(stopping_folder, monkeypatch):
    trials = trials_of(
        stopping_folder,
        seeds=[1],
        patiences=(0, EPOCHS),
    )
    task = make_task(stopping_folder, trials)
    monkeypatch.setattr(controlled, "is_worth_compiling", lambda saved_s, compile_s: False)
    wide = train_with_fused(task)
    widths = []
    monkeypatch.setattr(controlled, "is_worth_compiling", lambda *args: widths.append(1) or True)
    narrow = train_with_fused(task)
    assert widths
    for one, other in zip(narrow, wide, strict=True):
        assert one.best_epoch == other.best_epoch
        for name, values in other.history.items():
            assert_close(one.history[name], values, name)
        for group in ("trainable", "non_trainable", "optimizer"):
            for array, expected in zip(getattr(one, group), getattr(other, group), strict=True):
                assert_close(array, expected)


def test_narrower_programs_are_compiled_only_where_they_save_more_than_they_cost():
    assert controlled.is_worth_compiling(2.0, 1.5)
    assert not controlled.is_worth_compiling(1.0, 1.5)
    assert controlled.narrower_width(7, 2) == 2


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_a_pack_with_trials_that_stopped_goes_on_from_its_checkpoints(
    stopping_folder, engine, monkeypatch
):
    """They are made after all epochs were trained, as where the thread that makes them is late."""

    def drain_late(reports, futures, drain=Reports.drain):
        wait(futures)
        yield from drain(reports, futures)

    monkeypatch.setattr(Reports, "drain", drain_late)
    trials = trials_of(
        stopping_folder,
        seeds=[1],
        patiences=(1, EPOCHS),
        reduce_lr_on_plateau={"patience": 1},
        engine=engine,
    )
    task = make_task(stopping_folder, trials)
    said = list(train_pack(task, "CPU"))
    expected = said[-1]
    checkpoints = [one for one in said if isinstance(one, Checkpoint)]
    assert any(one.ended.any() and not one.ended.all() for one in checkpoints)
    assert {row.epochs for row in expected.trials} > {EPOCHS}
    for checkpoint in checkpoints[1:2] if engine == "keras" else checkpoints[1:4:2]:
        *_, result = train_pack(replace(task, checkpoint=checkpoint), "CPU")
        assert isinstance(result, PackResult)
        for row, other in zip(result.trials, expected.trials, strict=True):
            assert (row.epochs, row.best_epoch) == (other.epochs, other.best_epoch)
            assert row.metrics == other.metrics
            for name, values in other.history.items():
                np.testing.assert_array_equal(row.history[name], values)


def test_epochs_that_were_left_out_count_as_done(stopping_folder, monkeypatch):
    monkeypatch.setattr(heartbeats, "_VARIANTS_INTERVAL_S", 0.0)
    trials = trials_of(stopping_folder, patiences=(0, 2))
    task = replace(make_task(stopping_folder, trials, num_threads=2), progress_interval_s=0.0)
    *said, result = train_pack(task, "CPU")
    signs = [one for one in said if isinstance(one, Progress)]
    assert signs[-1].epochs_done == len(trials) * EPOCHS
    assert sum(row.epochs for row in result.trials) < len(trials) * EPOCHS
    for name, so_far in signs[-1].variants.items():
        rows = [row for row in result.trials if row.trial.variant.variant_id == name]
        losses = [row.history["val_loss"][-1] for row in rows]
        epochs = sum(row.epochs for row in rows)
        assert so_far == (len(rows), epochs, len(rows), pytest.approx(sum(losses)))


def test_no_program_looks_after_each_batch_while_losses_are_finite(stopping_folder, monkeypatch):
    monkeypatch.setattr(Program, "train_until_not_finite", lambda *_: pytest.fail("trained again"))
    trials = trials_of(stopping_folder, seeds=[1], patiences=(0, EPOCHS))
    assert trials[0].variant.training.terminate_on_nan
    rows = train(make_task(stopping_folder, trials)).trials
    assert {(row.engine, row.status) for row in rows} == {("fused", "completed")}
    assert rows[-1].epochs == EPOCHS


COUNTING = """
import keras


class Stop(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.num_epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        self.num_epochs += 1
        logs["twice"] = 2 * logs["loss"]
        self.model.stop_training = self.num_epochs == 2


def stop():
    return Stop()


def nothing():
    return None
"""


def trials_with_callback(folder, function, **training):
    (folder / "calls.py").write_text(COUNTING)
    training = {"callbacks": [f"calls.py:{function}"], "epochs": 4, **training}
    return load_trials(folder, builder="dense", seeds=2, training=training)


def test_a_users_callback_is_made_for_each_trial_and_called_by_keras_which_is_said(tmp_path):
    task = make_task(tmp_path, trials_with_callback(tmp_path, "stop"))
    result = train(task)
    assert {row.engine for row in result.trials} == {"keras"}
    assert "only model.fit calls training.callbacks (calls.py:stop)" in result.reason
    for row in result.trials:
        assert row.epochs == 2
        assert_close(row.history["twice"], 2 * row.history["loss"])


def test_a_function_that_returns_no_callback_is_named(tmp_path):
    task = make_task(tmp_path, trials_with_callback(tmp_path, "nothing"))
    with pytest.raises(
        ModelError, match=r"calls.py:nothing: must return a keras.*, got a NoneType"
    ):
        train(task)


def test_a_loss_that_is_not_finite_ends_a_trial(tmp_path):
    training = {"terminate_on_nan": True, "epochs": 3, "engine": "keras"}
    trials = load_trials(tmp_path, builder="not_finite", seeds=1, training=training)
    [row] = train(make_task(tmp_path, trials)).trials
    assert (row.engine, row.status, row.epochs) == ("keras", "diverged", 1)
    assert (row.val_confusion_matrix, row.test_confusion_matrix) == (None, None)
