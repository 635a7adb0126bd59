"""A pack that is stopped, or whose worker dies, goes on bit for bit as if nothing had happened."""

from dataclasses import replace

import numpy as np
import pytest
from training_jobs import load_trials, make_task

from trialrun.training.channel import Reports
from trialrun.training.pack import train_pack
from trialrun.trials.results import STATE_GROUPS, Checkpoint, PackResult

pytestmark = pytest.mark.compiled

EPOCHS = 8


def task_of(tmp_path, engine, *, num_threads=1, every=2, builder="dropout", seeds=4):
    trials = load_trials(
        tmp_path,
        builder=builder,
        seeds=seeds,
        training={"engine": engine, "epochs": EPOCHS, "checkpoint_every": every},
    )
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
    """A pack in two slices, all that it says, and its result; its program serves all tests."""
    task = task_of(tmp_path_factory.mktemp("fused"), "fused", num_threads=2, builder="everything")
    return task, *messages(task)


def check_every_checkpoint(task, checkpoints, expected):
    assert len(checkpoints) >= 3
    assert all((one.epochs <= EPOCHS).all() and one.epochs.any() for one in checkpoints)
    middle = checkpoints[len(checkpoints) // 2]
    for checkpoint in (checkpoints[0], middle):
        _, result = messages(replace(task, checkpoint=checkpoint))
        assert_same_result(result, expected)


def check_a_stop(task, expected, monkeypatch):
    """No checkpoints were asked for, and there is one all the same."""

    def put_and_stop(reports, report, put=Reports.put):
        put(reports, report)
        reports._stopping.set()

    with monkeypatch.context() as patch:
        patch.setattr(Reports, "put", put_and_stop)
        [checkpoint], result = messages(task)
    assert result is None
    assert checkpoint.trial_ids == tuple(trial.trial_id for trial in task.pack.trials)
    assert checkpoint.epochs.min() < EPOCHS
    _, result = messages(replace(task, checkpoint=checkpoint))
    assert_same_result(result, expected)


def test_every_checkpoint_of_a_fused_pack_leads_to_the_same_end(fused):
    check_every_checkpoint(*fused)


def test_every_checkpoint_of_a_plain_pack_leads_to_the_same_end_and_so_does_a_stop(
    tmp_path, monkeypatch
):
    task = task_of(tmp_path, "keras", seeds=2)
    checkpoints, expected = messages(task)
    check_every_checkpoint(task, checkpoints, expected)
    variant = task.pack.trials[0].variant
    training = variant.training.model_copy(update={"checkpoint_every": None})
    check_a_stop(of_training(task, training), expected, monkeypatch)


def of_training(task, training):
    """The pack with other settings of its training."""
    trials = tuple(
        replace(trial, variant=replace(trial.variant, training=training))
        for trial in task.pack.trials
    )
    return replace(task, pack=replace(task.pack, trials=trials))


def test_a_fused_pack_that_is_asked_to_stop_leaves_a_checkpoint_and_no_result(
    tmp_path, monkeypatch
):
    task = task_of(tmp_path, "fused", every=None)
    _, expected = messages(task)
    check_a_stop(task, expected, monkeypatch)


def test_a_pack_that_is_stopped_before_it_begins_says_nothing(tmp_path):
    assert messages(task_of(tmp_path, "keras"), lambda: True) == ([], None)


def test_a_part_of_a_pack_goes_on_from_the_checkpoint_of_the_whole(fused):
    task, checkpoints, expected = fused
    trials = task.pack.trials[1:4]
    part = replace(
        task,
        pack=replace(task.pack, trials=trials),
        checkpoint=checkpoints[0].of_trials([trial.trial_id for trial in trials]),
    )
    _, result = messages(part)
    by_id = {row.trial.trial_id: row for row in expected.trials}
    for row in result.trials:
        for name, values in by_id[row.trial.trial_id].history.items():
            np.testing.assert_allclose(row.history[name], values, atol=1e-5)


def test_trials_that_stand_at_different_epochs_are_trained_in_slices_of_their_own(fused):
    task, _, expected = fused
    pack = replace(task.pack, trials=task.pack.trials[:2])
    task = replace(task, pack=pack, num_threads=1)  # one slice, so that checkpoints are in order
    (early, late, *_), _ = messages(task)
    epochs = np.array([early.epochs[0], late.epochs[1]])
    assert epochs.tolist() == [2, 4]
    mixed = replace(
        early,
        epochs=epochs,
        history=late.history,
        **{
            name: tuple(
                np.stack([a[0], b[1]])
                for a, b in zip(getattr(early, name), getattr(late, name), strict=True)
            )
            for name in STATE_GROUPS
        },
    )
    _, result = messages(replace(task, checkpoint=mixed))
    for row, other in zip(result.trials, expected.trials[:2], strict=True):
        for name, values in other.history.items():
            np.testing.assert_allclose(row.history[name], values, atol=1e-5)


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
        seeds=4,
        data={"generator": "trouble.py:blobs"},
        training={"engine": "keras"},
    )
    _, result = messages(make_task(tmp_path, trials))
    statuses = {row.trial.seed: row.status for row in result.trials}
    assert statuses == {0: "completed", 1: "completed", 2: "failed", 3: "completed"}
    [failed] = [row for row in result.trials if row.status == "failed"]
    assert "the file of patient 2 is broken" in failed.error
    assert not result.is_input_error


def test_a_trial_that_had_no_data_does_not_stop_its_pack_from_going_on(fused):
    """It was left out of the pack's checkpoint; the pack that is tried again has it."""
    task, checkpoints, expected = fused
    first, *others = task.pack.trials
    of_others = checkpoints[0].of_trials([trial.trial_id for trial in others])
    kept = of_others.of_trials([trial.trial_id for trial in task.pack.trials])
    assert kept.epochs[0] == 0
    assert (kept.epochs[1:] == of_others.epochs).all()
    _, result = messages(replace(task, checkpoint=kept))
    assert [row.trial for row in result.trials] == [first, *others]
    for row, other in zip(result.trials, expected.trials, strict=True):
        assert row.metrics == pytest.approx(other.metrics, abs=1e-5)
