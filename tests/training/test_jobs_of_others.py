"""The example jobs, small: each is trained, and learns what it is an example of."""

import pytest
from commands import ROOT

from trialrun.job import load_job
from trialrun.training.pack import train_pack
from trialrun.trials.plan import plan_trials
from trialrun.trials.results import PackResult
from trialrun.trials.signature import signature_of
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

pytestmark = pytest.mark.tensorflow

# `fit` trains those that take longer to compile than to be trained once.
JOBS = ROOT / "jobs"
SMALL = {
    "digits_cnn": (
        ["training.epochs=4", "training.learning_rate=0.01", "training.engine=keras"],
        "test_accuracy",
        0.85,
    ),
    "diabetes_regression": (
        ["training.epochs=6", "training.learning_rate=0.05", "training.engine=keras"],
        "test_mean_absolute_error",
        60,
    ),
    "text_gru": (
        [
            "data.args={num_train: 800, num_test: 200, num_steps: 6}",
            "training.epochs=8",
            "training.engine=keras",
        ],
        "test_accuracy",
        0.7,
    ),
    "two_inputs": (
        [
            "data.args.num_train=600",
            "training.epochs=6",
            "training.learning_rate=0.01",
            "training.engine=keras",
        ],
        "test_accuracy",
        0.8,
    ),
}


def train_last_variant(name, overrides):
    """The result of a trial of a job's last variant."""
    loaded = load_job(JOBS / f"{name}.yaml", [*overrides, "seeds=1"])
    trials = plan_trials(loaded.spec)[-1:]
    pack = Pack("p000", signature_of(trials[0].variant), trials)
    task = PackTask(pack, loaded.folder, loaded.spec.select)
    *_, result = train_pack(task, "CPU")
    assert isinstance(result, PackResult)
    return result


@pytest.mark.parametrize("name", SMALL)
def test_an_example_job_learns_its_task(name):
    overrides, metric, expected = SMALL[name]
    result = train_last_variant(name, overrides)
    for trial in result.trials:
        assert trial.status == "completed", trial.error
        value = trial.metrics[metric]
        assert (value > expected) if metric == "test_accuracy" else (value < expected)


@pytest.mark.parametrize("name", SMALL)
def test_an_example_job_is_short(name):
    for path in JOBS.glob(f"{name}.*"):
        assert len(path.read_text().splitlines()) < 100
