"""What a pack tells of itself while it is trained."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_runs import learning_rates, trial_of

from trialrun.job import SelectSpec
from trialrun.training.engine_outputs import Advance
from trialrun.training.heartbeats import reporting
from trialrun.trials.results import Checkpoint, SoFar
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

TRIALS = tuple(trial_of(variant, seed) for variant in learning_rates(0.1, 0.2) for seed in (0, 1))


def advance(indices, epoch, *values):
    logs = {"val_loss": np.array(values, np.float32)}
    return Advance(len(set(indices)), logs, indices, epoch)


def heartbeats(*advances, **changes):
    def training():
        yield from advances

    pack = Pack("p000", "same", TRIALS)
    task = replace(PackTask(pack, None, SelectSpec(), progress_interval_s=0.0), **changes)
    return list(reporting(task, "fused", training()))


def test_each_variant_is_told_with_the_newest_epochs_of_its_trials(monkeypatch):
    monkeypatch.setattr("trialrun.training.heartbeats._VARIANTS_INTERVAL_S", 0.0)
    *_, last = heartbeats(
        advance([0, 1], 1, 0.5, 0.7),
        advance([2, 3, 3], 1, 0.9, np.nan, np.nan),
        advance([0], 2, 0.4),
    )
    assert (last.epochs_done, last.best, last.engine) == (5, pytest.approx(0.4), "fused")
    assert last.variants["v00"] == SoFar(2, 3, 2, pytest.approx(1.1))
    assert last.variants["v01"] == SoFar(2, 2, 1, pytest.approx(0.9))


def test_what_a_checkpoint_has_trained_is_counted():
    checkpoint = Checkpoint(
        "p000",
        tuple(trial.trial_id for trial in TRIALS),
        np.array([3, 3, 0, 2]),
        {},
        *((), (), ()),
        ended=np.array([False, False, False, True]),
    )
    [told] = heartbeats(advance([2], 1, 0.5), checkpoint=checkpoint)
    last_epoch = TRIALS[0].variant.training.epochs
    assert told.epochs_done == 3 + 3 + last_epoch + 1
    assert told.variants["v01"].num_epochs == 1 + last_epoch


def test_variants_are_told_less_often_than_the_rest():
    told = heartbeats(*(advance([0], epoch, 0.5) for epoch in (1, 2, 3)))
    assert [one.variants is not None for one in told] == [True, False, False]
