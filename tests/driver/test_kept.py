"""What is said of the trials that were in training when a run ended early."""

import pytest
from made_up_runs import learning_rates, trial_of

from trialrun.driver.kept import InTraining
from trialrun.store.kept_arrays import KeptTrials
from trialrun.trials.results import PackResult, Progress, TrialResult
from trialrun.trials.trial import Pack

TRIALS = [trial_of(learning_rates(1e-3)[0], seed) for seed in range(6)]
IDS = tuple(trial.trial_id for trial in TRIALS)


def pack(name, first, last):
    return Pack(name, "signature", tuple(TRIALS[first:last]))


def ended(name, trial):
    return PackResult(name, (TrialResult(trial, "completed", "fused", name, 0),))


@pytest.fixture
def training():
    """Three packs of two trials: two have begun, and have trained something."""
    training = InTraining()
    training.start(TRIALS)
    for number in (0, 1):
        training.begin(pack(f"p00{number}", 2 * number, 2 * number + 2))
        training.hear(Progress(f"p00{number}", 6))
    return training


def test_each_pack_has_its_epoch_and_the_rest_is_counted(training):
    training.keep("p000", is_stopping=True)
    training.keep("p001", is_stopping=True)
    kept = [KeptTrials("p000", IDS[:2], (4, 4)), KeptTrials("p001", IDS[2:4], (3, 5))]
    assert training.account(kept, grace_s=20) == [
        "Kept of trials in training: p000: epoch 4 of 30 and p001: epochs 3 to 5 of 30",
        "Not begun: 2 trials",
    ]


def test_what_did_not_answer_in_time_is_named_with_the_setting(training):
    training.keep("p000", is_stopping=False)
    training.begin(pack("p002", 4, 6))
    assert training.account([KeptTrials("p000", IDS[:2], (4, 4))], grace_s=20) == [
        "Kept of trials in training: p000: epoch 4 of 30",
        "Not kept: what p000 trained after that; all of p001; p002, where no epoch had ended. No"
        " checkpoint came within resources.grace_s (20 s)",
    ]


def test_when_ray_is_lost_what_followed_the_checkpoints_is_lost(training):
    training.keep("p000", is_stopping=False)
    training.keep("p001", is_stopping=False)
    training.hear(Progress("p001", 8))
    kept = [KeptTrials("p000", IDS[:2], (4, 4)), KeptTrials("p001", IDS[2:4], (3, 3))]
    assert training.account(kept, grace_s=None)[1:] == [
        "Not kept: what p001 trained after that",
        "Not begun: 2 trials",
    ]


def test_the_checkpoint_of_a_half_is_the_later_one_and_the_whole_is_in_training_no_more(training):
    half = pack("p000a", 0, 1)
    training.submit(half)
    training.begin(half)
    training.keep("p000a", is_stopping=True)
    training.keep("p001", is_stopping=True)
    kept = [KeptTrials("p000", IDS[:2], (4, 4)), KeptTrials("p000a", IDS[:1], (7,))]
    kept.append(KeptTrials("p001", IDS[2:4], (3, 3)))
    assert training.account(kept, grace_s=20)[0] == (
        "Kept of trials in training: p000: epoch 4 of 30, p000a: epoch 7 of 30 and"
        " p001: epoch 3 of 30"
    )


def test_trials_with_a_result_are_in_training_no_more(training):
    for trial in TRIALS:
        training.finish(ended("p000", trial))
    assert training.account([KeptTrials("p000", IDS[:2], (4, 4))], grace_s=20) == []
