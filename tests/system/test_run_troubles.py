"""A run to which much happens: it is interrupted, and a variant diverges.

All is real but the saved model and the figures, which test_run.py has; the GPU is pretended: Ray is
told to count one that TensorFlow does not see.
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import Command, Finished, call
from durable_runs import PROGRAM
from whole_runs import FinishedRun, run_to_its_end

import trialrun

pytestmark = pytest.mark.cluster

# Each worker notes the GPU that Ray gave it. The layer takes its time over each batch, so that the
# run can be interrupted in the middle of a trial.
TROUBLES = """
import os
import time
from pathlib import Path

import keras
import tensorflow as tf

HERE = Path(__file__).parent


def slowly(array):
    time.sleep(0.03)
    return array


@keras.saving.register_keras_serializable("troubles")
class PythonInside(keras.layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.numpy_function(slowly, [x], tf.float32), x.shape)


def build(name):
    with (HERE / "gpus.txt").open("a") as seen:
        seen.write(os.environ.get("CUDA_VISIBLE_DEVICES", "all") + "\\n")
    # Nothing bounds a linear layer: at a learning rate of a million its weights overflow.
    dense = [keras.layers.Dense(4), keras.layers.Dense(2, activation="softmax")]
    return keras.Sequential([PythonInside(), *dense])
"""

# An epoch has 6 batches to train on.
JOB = """
name: troubled
data:
  args:
    {num_train_younger_without: 80, num_train_older_with: 80,
     num_test_younger_without: 10, num_test_older_with: 10}
model: {builder: "troubles.py:build"}
training: {engine: keras, optimizer: sgd, epochs: 10, checkpoint_every: 2, batch_size: 40}
seeds: 1
search: {method: from, from: variants.csv}
"""
# The model does not mind its name: the first two are the same training.
VARIANTS = """model.args.name,training.learning_rate
one,0.1
two,0.1
three,1e6
"""
METRICS = ("train_loss", "val_loss", "test_loss", "test_accuracy")


class TroubledRun(NamedTuple):
    """What there was when it was interrupted, and at its end."""

    finished: Finished
    survivors: dict[int, str]
    shown: Finished
    shown_as_json: Finished
    refused: Finished
    trials: pd.DataFrame
    parts: list[int]
    had_summary: bool
    num_checkpoints: int
    gpus: str
    ended: FinishedRun


def begin(home: Path, *arguments: object) -> Command:
    return Command(
        home,
        *arguments,
        program=(PROGRAM, str(home / "driver.pid")),
        environment={
            "MADE_UP_BUT_FOR_TRAINING": "yes",
            "RAY_OVERRIDE_RESOURCES": '{"GPU": 1}',
        },
        is_warm=True,
    )


def _first_finished(home: Path) -> str:
    """Return the variant of the only trial that is finished."""
    [part] = home.glob("runs/*/*/trials/part-*.parquet")
    [variant_id] = pq.read_table(part)["variant_id"].to_pylist()
    return variant_id


@pytest.fixture(scope="module")
def troubled_run(tmp_path_factory: pytest.TempPathFactory) -> TroubledRun:
    """It is interrupted in the middle of the second of the trials that are the same."""
    home = tmp_path_factory.mktemp("troubled")
    (home / "troubles.py").write_text(TROUBLES)
    (home / "job.yaml").write_text(JOB)
    (home / "variants.csv").write_text(VARIANTS)
    command = begin(home, "run", home / "job.yaml", "--runs-dir", home / "runs")
    command.wait_for(lambda: any(home.glob("runs/*/*/trials/part-*.parquet")))
    other = {"v00": "p001", "v01": "p000"}[_first_finished(home)]
    # The checkpoint of the trial that is finished may still be there.
    command.wait_for(lambda: any(home.glob(f"runs/*/*/checkpoints/{other}*")))
    command.interrupt()
    finished, survivors = command.finish(), command.survivors()
    [folder] = home.glob("runs/*/*")
    shown, shown_as_json = call("show", folder), call("show", folder, "--json")
    refused = call("predict", folder, "--input", os.devnull)
    trials = trialrun.open_run(folder).trials
    parts = [pq.read_table(part).num_rows for part in (folder / "trials").iterdir()]
    had_summary = (folder / "summary.json").exists()
    num_checkpoints = len(list((folder / "checkpoints").iterdir()))
    ended = run_to_its_end(begin(home, "resume", folder))
    gpus = (home / "gpus.txt").read_text()
    return TroubledRun(
        *(finished, survivors, shown, shown_as_json, refused),
        *(trials, parts, had_summary, num_checkpoints, gpus, ended),
    )


# Interrupted ------------------------------------------------------------------------------------


def test_an_interrupted_run_says_how_it_goes_on_and_leaves_no_process(troubled_run):
    finished = troubled_run.finished
    assert finished.code == 130, finished
    assert "Traceback" not in finished.stderr
    assert "Interrupted by Ctrl-C. Kept: 1 trial with a result\n" in finished.stderr
    assert re.search(r"Kept of trials in training: p00[01]: epoch \d+ of 10\n", finished.stderr)
    assert "Not begun: 1 trial\n" in finished.stderr
    assert f"To continue: trialrun resume {troubled_run.ended.folder}\n" in finished.stderr
    assert troubled_run.survivors == {}


def test_an_interrupted_run_leaves_a_readable_folder(troubled_run):
    [finished] = troubled_run.trials["variant_id"]
    assert finished in ("v00", "v01")
    assert set(troubled_run.trials["status"]) == {"completed"}
    assert not troubled_run.had_summary
    assert troubled_run.parts == [1]
    assert troubled_run.num_checkpoints
    assert troubled_run.shown.code == 0, troubled_run.shown
    assert finished in troubled_run.shown.stdout
    assert json.loads(troubled_run.shown_as_json.stdout)["counts"]["completed"] == 1
    assert troubled_run.refused.code == 2
    assert "has no best model" in troubled_run.refused.stderr


def test_it_ends_as_if_nothing_had_happened(troubled_run):
    ended = troubled_run.ended
    assert ended.finished.code == 0, ended.finished
    assert "raylet" not in ended.finished.stdout  # Ray's words about the lost worker
    assert ended.survivors == {}
    assert not (ended.folder / "checkpoints").exists()
    trials = ended.api.trials
    assert sorted(trials["variant_id"]) == ["v00", "v01", "v02"]
    assert sum(pq.read_table(part).num_rows for part in (ended.folder / "trials").iterdir()) == 3
    before = troubled_run.trials
    kept = trials[trials["trial_id"].isin(before["trial_id"])].reset_index(drop=True)
    # What was finished stays as it was; the order of the metrics is that of the first part read.
    pd.testing.assert_frame_equal(kept[before.columns], before)


def test_the_interrupted_trial_has_the_numbers_of_the_one_that_was_not(troubled_run):
    trials = troubled_run.ended.api.trials.set_index("variant_id")
    for name in METRICS:
        assert trials.loc["v00", name] == pytest.approx(trials.loc["v01", name], abs=1e-5)
    losses = troubled_run.ended.api.history.pivot(
        index="epoch", columns="variant_id", values="val_loss"
    )
    np.testing.assert_allclose(losses["v00"], losses["v01"], rtol=0, atol=1e-5)
    assert losses["v00"].is_unique


# Other troubles ---------------------------------------------------------------------------------


def test_a_diverging_variant_is_reported_and_the_rest_completes(troubled_run):
    run = troubled_run.ended.api
    statuses = run.trials.groupby("param.training.learning_rate")["status"].unique()
    assert statuses[0.1].tolist() == ["completed"]
    assert statuses[1e6].tolist() == ["diverged"]
    assert run.best.parameters["training.learning_rate"] == 0.1
    assert set(run.trials["engine"]) == {"keras"}


def test_each_pack_is_pinned_to_the_pretended_gpu(troubled_run):
    """A logical GPU: Ray sets CUDA_VISIBLE_DEVICES; TensorFlow sees none, so the CPU computes."""
    assert set(troubled_run.gpus.splitlines()) == {"0"}
    environment = json.loads((troubled_run.ended.folder / "environment.json").read_text())
    assert (environment["ray"]["num_devices"], environment["ray"]["gpus_per_pack"]) == (1, 1)
    assert set(troubled_run.ended.api.trials["device"]) == {"CPU"}
