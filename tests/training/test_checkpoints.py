"""A pack that is stopped, or whose worker dies, goes on bit for bit as if nothing had happened."""

import itertools
import math
from dataclasses import replace

import numpy as np
import oracle_cases_metrics
import pytest
from oracle_cases_metrics import Largest
from test_fused_oracle import Oracle, assert_close, assert_same_logs, builder_in
from training_jobs import PARTIAL_BATCH, load_trials, make_task

from trialrun.training.channel import Reports
from trialrun.training.engine_outputs import Advance
from trialrun.training.pack import train_pack
from trialrun.trials.results import STATE_GROUPS, Checkpoint, PackResult

pytestmark = pytest.mark.tensorflow

# A compiled program trains three epochs per call, with and without checkpoints.
EPOCHS, EVERY = 9, 3


def task_of(tmp_path, engine, *, num_threads=1, builder="dropout", seeds=4, data=(), **training):
    settings = {"engine": engine, "epochs": EPOCHS, "checkpoint_every": EVERY, **training}
    trials = load_trials(tmp_path, builder=builder, seeds=seeds, data=dict(data), training=settings)
    return make_task(tmp_path, trials, num_threads=num_threads)


def messages(task, should_stop=lambda: False):
    """All that a pack says: checkpoints, and the result if there is one."""
    said = list(train_pack(task, "CPU", should_stop))
    checkpoints = [one for one in said if isinstance(one, Checkpoint)]
    results = [one for one in said if isinstance(one, PackResult)]
    assert len(results) <= 1
    return checkpoints, (results[0] if results else None)


def assert_same_result(result, expected):
    for row, other in zip(result.trials, expected.trials, strict=True):
        assert row.trial.trial_id == other.trial.trial_id
        assert row.metrics == other.metrics
        for name, values in other.history.items():
            np.testing.assert_array_equal(row.history[name], values)
        np.testing.assert_array_equal(row.test_confusion_matrix, other.test_confusion_matrix)
    for variant_id, state in expected.best_states.items():
        own = result.best_states[variant_id]
        for name in STATE_GROUPS:
            for array, wanted in zip(getattr(own, name), getattr(state, name), strict=True):
                np.testing.assert_array_equal(array, wanted)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """A pack in two slices, all that it says, and its result; its program serves all tests.

    Its trials share their data, whose last batch is smaller than the others. A metric of one's own
    is no sum and goes on from epoch to epoch.
    """
    folder = tmp_path_factory.mktemp("fused")
    largest = f"{oracle_cases_metrics.__file__}:Largest"
    given = {"num_threads": 2, "builder": "everything", "metrics": ["accuracy", largest]}
    given["data"] = {"seed": 7, "args": {**PARTIAL_BATCH, "num_test": PARTIAL_BATCH["num_val"]}}
    task = task_of(folder, "fused", **given)
    return task, *messages(task)


def test_a_fused_pack_is_trained_as_keras_trains_it(fused):
    """A trial of each slice, in three calls of the program."""
    task, _, result = fused
    folder = task.job_folder
    metrics = ["accuracy", Largest("Largest")]
    oracle = Oracle(folder, builder_in(folder, "everything"), metrics=metrics)
    of_best = result.best_states["v00"]
    places = {row.trial.trial_id: place for place, row in enumerate(result.trials)}
    of_other_slice = (places[of_best.trial_id] + 2) % 4
    for place in (of_other_slice, places[of_best.trial_id]):
        row = result.trials[place]
        plain = oracle.train(row.trial)
        assert_same_logs(row.history, plain.history)
        tests = {name: row.metrics[f"test_{name}"] for name in plain.test_logs}
        assert_same_logs(tests, plain.test_logs)
    assert_close(of_best.test_predictions, plain.test_predictions)
    for group in STATE_GROUPS:
        pairs = zip(getattr(of_best, group), getattr(plain, group), strict=True)
        for array, (path, expected) in pairs:
            assert_close(array, expected, path)


def check_checkpoint(task, checkpoint, expected):
    _, result = messages(replace(task, checkpoint=checkpoint))
    assert_same_result(result, expected)


def check_a_stop(task, expected, monkeypatch, *, is_time=lambda report: True):
    """No checkpoints are asked for, and there is one all the same."""
    trials = tuple(map(without_checkpoints, task.pack.trials))
    task = replace(task, pack=replace(task.pack, trials=trials))

    def put_and_stop(reports, report, put=Reports.put):
        put(reports, report)
        if is_time(report):
            reports._stopping.set()

    with monkeypatch.context() as patch:
        patch.setattr(Reports, "put", put_and_stop)
        [checkpoint], result = messages(task)
    assert result is None
    assert checkpoint.trial_ids == tuple(trial.trial_id for trial in task.pack.trials)
    assert checkpoint.epochs.min() < task.last_epoch
    check_checkpoint(task, checkpoint, expected)
    return checkpoint


def without_checkpoints(trial):
    training = trial.variant.training.model_copy(update={"checkpoint_every": None})
    return replace(trial, variant=replace(trial.variant, training=training))


def test_checkpoints_of_a_fused_pack_lead_to_the_same_end(fused):
    task, checkpoints, expected = fused
    assert len(checkpoints) >= 3
    assert all((one.epochs <= EPOCHS).all() and one.epochs.any() for one in checkpoints)
    for checkpoint in checkpoints[:2]:
        check_checkpoint(task, checkpoint, expected)


def test_a_checkpoint_of_a_plain_pack_leads_to_the_same_end_and_so_does_a_stop(
    tmp_path, monkeypatch
):
    task = task_of(tmp_path, "keras", seeds=2, epochs=3, checkpoint_every=1)
    checkpoints, expected = messages(task)
    assert len(checkpoints) == 6
    epochs = itertools.count(1)
    checkpoint = check_a_stop(
        *(task, expected, monkeypatch),
        is_time=lambda report: isinstance(report, Advance) and next(epochs) == 4,
    )
    # The first trial has ended, and the second has begun.
    assert sorted(checkpoint.epochs) == [1, 3]


def test_a_fused_pack_that_is_asked_to_stop_leaves_a_checkpoint_and_no_result(fused, monkeypatch):
    task = two_of(fused[0], (0, 1))
    _, expected = messages(task)
    check_a_stop(task, expected, monkeypatch)


def two_of(task, places):
    """Two trials of a pack, in one slice as wide as those of the pack."""
    pack = replace(task.pack, trials=tuple(task.pack.trials[place] for place in places))
    return replace(task, pack=pack, num_threads=1)


def test_a_pack_that_is_stopped_before_it_begins_says_nothing(tmp_path):
    assert messages(task_of(tmp_path, "keras"), lambda: True) == ([], None)


def test_a_part_of_a_pack_goes_on_from_the_checkpoint_of_the_whole(fused):
    task, checkpoints, expected = fused
    trials = task.pack.trials[2:]
    part = replace(
        task,
        num_threads=1,
        pack=replace(task.pack, trials=trials),
        checkpoint=all_begun(checkpoints).of_trials([trial.trial_id for trial in trials]),
    )
    _, result = messages(part)
    by_id = {row.trial.trial_id: row for row in expected.trials}
    for row in result.trials:
        for name, values in by_id[row.trial.trial_id].history.items():
            np.testing.assert_allclose(row.history[name], values, atol=1e-5)


def all_begun(checkpoints):
    """The first in which both slices have begun."""
    return next(one for one in checkpoints if one.epochs.all())


def test_trials_that_stand_at_different_epochs_are_trained_in_slices_of_their_own(fused):
    task, _, expected = fused
    (early, *_), _ = messages(two_of(task, (0, 2)))  # one slice, so that checkpoints are in order
    (_, late, *_), _ = messages(two_of(task, (1, 3)))
    joined = replace(
        early,
        trial_ids=early.trial_ids + late.trial_ids,
        epochs=stacked(early.epochs, late.epochs),
        ended=stacked(early.ended, late.ended),
        history={name: stacked(early.history[name], late.history[name]) for name in late.history},
        **{
            name: tuple(map(stacked, getattr(early, name), getattr(late, name)))
            for name in STATE_GROUPS
        },
    )
    mixed = joined.of_trials([trial.trial_id for trial in task.pack.trials])
    assert mixed.epochs.tolist() == [3, 6, 3, 6]
    _, result = messages(replace(task, checkpoint=mixed, num_threads=1))
    for row, other in zip(result.trials, expected.trials, strict=True):
        for name, values in other.history.items():
            np.testing.assert_allclose(row.history[name], values, atol=1e-5)


def stacked(first, second):
    return np.concatenate([first, second])


GROWING_TROUBLE = """
import data


def blobs(seed):
    if seed == 2:
        raise ValueError("the file of patient 2 is broken")
    return data.blobs(seed)
"""


def test_a_trial_without_data_fails_alone(tmp_path):
    (tmp_path / "trouble.py").write_text(GROWING_TROUBLE)
    trials = load_trials(
        tmp_path,
        builder="dense",
        seeds=[1, 2, 3],
        data={"generator": "trouble.py:blobs"},
        training={"engine": "keras", "epochs": 1},
    )
    _, result = messages(make_task(tmp_path, trials))
    statuses = {row.trial.seed: row.status for row in result.trials}
    assert statuses == {1: "completed", 2: "failed", 3: "completed"}
    [failed] = [row for row in result.trials if row.status == "failed"]
    assert "the file of patient 2 is broken" in failed.error
    assert not result.is_input_error


def test_trials_that_had_no_data_do_not_stop_their_pack_from_going_on(fused):
    """They were left out of the pack's checkpoint; the pack that is tried again has them."""
    task, checkpoints, expected = fused
    others = task.pack.trials[2:]
    of_others = all_begun(checkpoints).of_trials([trial.trial_id for trial in others])
    kept = of_others.of_trials([trial.trial_id for trial in task.pack.trials])
    assert (kept.epochs[:2] == 0).all()
    assert (kept.epochs[2:] == of_others.epochs).all()
    _, result = messages(replace(task, checkpoint=kept, num_threads=1))
    assert tuple(row.trial for row in result.trials) == task.pack.trials
    for row, other in zip(result.trials, expected.trials, strict=True):
        assert row.metrics == pytest.approx(other.metrics, abs=1e-5)


# Trials that are paused, and go on later ----------------------------------------------------------


def paused_at(task, epoch):
    """The task, and what it says, if its trials are paused after an epoch."""
    paused = replace(task, pause_after=epoch, pauses=(epoch,))
    checkpoints, result = messages(paused)
    return replace(task, pauses=(epoch,), checkpoint=checkpoints[-1]), result


def assert_paused(row, whole, epoch, *, atol=0.0):
    """A paused trial has the numbers of an unpaused one at that epoch, and was not tested."""
    assert (row.status, row.epochs) == ("paused", epoch)
    for name, values in whole.history.items():
        np.testing.assert_allclose(row.history[name], values[:epoch], rtol=0, atol=atol)
    given = (row.best_epoch or epoch) - 1
    expected = whole.history["val_loss"][given]
    assert row.metrics["val_loss"] == pytest.approx(expected, rel=0, abs=atol)
    assert not any(name.startswith("test_") for name in row.metrics)
    assert row.test_confusion_matrix is None


def test_a_fused_pack_that_was_paused_goes_on_to_the_same_end(fused):
    task, _, expected = fused
    going_on, result = paused_at(task, 6)
    assert not result.best_states
    for row, whole in zip(result.trials, expected.trials, strict=True):
        assert_paused(row, whole, 6)
    _, result = messages(going_on)
    assert_same_result(result, expected)
    # Some of them alone: in a slice of the same width, with another neighbor.
    some = two_of(going_on, (1, 2))
    ids = [trial.trial_id for trial in some.pack.trials]
    _, result = messages(replace(some, checkpoint=going_on.checkpoint.of_trials(ids)))
    for row, whole in zip(result.trials, expected.trials[1:3], strict=True):
        assert row.metrics == whole.metrics


def test_trials_that_stop_early_are_not_paused(tmp_path):
    """And both engines stop them at the same epochs with the same numbers.

    One learns so fast that the weights that it is given back are far from its last ones.
    """
    controls = {"early_stopping": {**STOPPING, "restore_best_weights": True}}
    expected = None
    for engine in ("mapped", "keras"):
        trials = load_trials(
            tmp_path,
            builder="dropout",
            seeds=1,
            learning_rates=(0.01, 0.5),
            training={"engine": engine, "epochs": 6, **controls},
        )
        expected = check_pauses(make_task(tmp_path, trials), len(trials), expected)


STOPPING = {"monitor": "val_loss", "min_delta": 0.01, "patience": 1}


def check_pauses(task, width, expected):
    """Pauses trials of which one stops before; returns the result without the pause.

    All end their calls at the pause, so that they share one program. What is expected of another
    engine is what the first one gave, but for roundings.
    """
    epoch, atol = 3, 2e-5 if expected else 0
    if expected is None:
        _, expected = messages(replace(task, pauses=(epoch,)))
    going_on, result = paused_at(task, epoch)
    by_status = {"paused": [], "completed": []}
    for place, (row, whole) in enumerate(zip(result.trials, expected.trials, strict=True)):
        by_status[row.status].append(place)
        if row.status == "paused":
            assert_paused(row, whole, epoch, atol=atol)
        else:
            assert row.epochs <= epoch
            assert_same_end(row, whole, atol)
    assert all(by_status.values())
    places = by_status["paused"]
    part = replace(going_on.pack, trials=tuple(task.pack.trials[place] for place in places))
    kept = going_on.checkpoint.of_trials([trial.trial_id for trial in part.trials])
    _, result = messages(replace(going_on, pack=part, checkpoint=kept, width=width))
    for row, place in zip(result.trials, places, strict=True):
        assert_same_end(row, expected.trials[place], atol)
    return expected


def assert_same_end(row, whole, atol):
    assert (row.epochs, row.best_epoch) == (whole.epochs, whole.best_epoch)
    assert row.metrics == pytest.approx(whole.metrics, rel=0, abs=atol)


CALLBACKS = """
import keras


def counts():
    return keras.callbacks.Callback()
"""


def test_a_trial_with_callbacks_of_the_user_leaves_no_state_when_it_is_paused(tmp_path):
    """What such a callback remembers is in no checkpoint, so that the trial must start again."""
    (tmp_path / "mine.py").write_text(CALLBACKS)
    trials = load_trials(
        tmp_path, builder="dense", seeds=1, training={"callbacks": ["mine.py:counts"]}
    )
    checkpoints, result = messages(replace(make_task(tmp_path, trials), pause_after=2))
    assert checkpoints == []
    [row] = result.trials
    assert (row.status, row.epochs) == ("paused", 2)


def test_a_loss_that_is_not_finite_counts_as_lost_at_a_pause(tmp_path):
    trials = load_trials(
        tmp_path, builder="not_finite", seeds=1, training={"engine": "keras", "epochs": 3}
    )
    _, result = messages(replace(make_task(tmp_path, trials), pause_after=2))
    [row] = result.trials
    assert row.status == "paused"
    assert row.metrics
    assert all(math.isnan(value) for value in row.metrics.values())
