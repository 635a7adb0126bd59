"""Ids of trials are on users' disks: what they are made of may grow, but not change.

Each expected id was printed by the version that first wrote such runs. A run whose ids change is
lost: `resume` would train all of it again, without a word.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT

from trialrun.job import load_job
from trialrun.trials.plan import plan_trials

_MINE = """\
def data(seed, rows=10):
    return None


def model(width=4, rate=0.1):
    return None


def callback():
    return None
"""
_TABLE = "age,clinic,outcome\n20,north,0\n30,south,1\n"
_MINE_DATA = "data: {generator: mine.py:data, args: {rows: 20}}\nmodel: {builder: mine.py:model}\n"

# name of the job -> its text below `name:`, the id of its first trial and that of its last
JOBS = {
    "all_defaults": ("", "adaf5c484531e8be", "83293efafe36de4a"),
    "reference": (
        "seeds: 20\nsearch: {parameters: {training.learning_rate: {values: [1e-4, 1e-3]}}}",
        "adaf5c484531e8be",
        "b8015395e6b233b4",
    ),
    "own_functions": (_MINE_DATA, "0514da50d0aad4e5", "2bc68d47d9b47d58"),
    "searched_builder": (
        _MINE_DATA
        + "search: {parameters: {model.args.width: {values: [4, 8]},"
        + " model.args.rate: {values: [0.0, 0.5]}}}",
        "1337b046eae1c7c3",
        "9c646e0083208941",
    ),
    "random_search": (
        "seeds: [7, 9]\nsearch: {method: random, num_variants: 3, parameters: {"
        "training.learning_rate: {min: 1e-4, max: 1e-1, distribution: log_uniform},"
        "training.batch_size: {min: 8, max: 64, distribution: int_uniform}}}",
        "8d368fc07ff18e3b",
        "87ab03173bc7d610",
    ),
    "training_section": (
        "training: {optimizer: {name: adamw, weight_decay: 0.01}, loss: {name:"
        " sparse_categorical_crossentropy, ignore_class: 3}, metrics: [accuracy,"
        " {name: sparse_top_k_categorical_accuracy, k: 2, as: top2}], learning_rate_schedule:"
        " {name: cosine_decay, decay_epochs: 5}, class_weight: balanced, early_stopping:"
        " {patience: 3}, keep_best: val_loss}",
        "afe5cecebe3fb563",
        "4c3469ec09f133cc",
    ),
    "regression": (_MINE_DATA + "training: {loss: mse}", "f94d6024067a799f", "b89bb1b76d7b4693"),
    "callbacks": (
        _MINE_DATA + "training: {callbacks: [mine.py:callback]}",
        "bbc768c1b69b6379",
        "c25cff1e8fe91377",
    ),
    "two_outputs": (
        _MINE_DATA
        + "training: {loss: {a: mse, b: binary_crossentropy}, loss_weights: {a: 1, b: 2}}",
        "800c640bc584ab43",
        "f742c8a4c00b20c4",
    ),
    "csv": (
        "data: {csv: table.csv, target: outcome, columns: [age, clinic], categorical:"
        " {clinic: ordinal}, missing: drop, test_split: 0.3, scaling: standard}",
        "9a93a98166320bf2",
        "4bbee32f716ebed1",
    ),
    "csv_with_test_file": (
        "data: {csv: table.csv, target: outcome, test: test.csv}",
        "ee9004b5c2b07b0b",
        "f60ec8e1e61a774d",
    ),
    "npz": (
        "data: {npz: arrays.npz, stratify: false, seed: 3}",
        "cdab1c5e9fa50ab8",
        "6c17687fc52a6607",
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_the_ids_of_trials_stay_what_they_are(name, tmp_path):
    text, first, last = JOBS[name]
    job = _write_job(tmp_path, text)
    trials = plan_trials(load_job(job).spec)
    assert (trials[0].trial_id, trials[-1].trial_id) == (first, last)


def _write_job(folder: Path, text: str) -> Path:
    (folder / "mine.py").write_text(_MINE)
    (folder / "table.csv").write_text(_TABLE)
    (folder / "test.csv").write_text(_TABLE.replace("20", "21"))
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        for name in ("x", "y"):
            array = io.BytesIO()
            np.save(array, np.array([0, 1, 0, 1], np.int64))
            # np.savez would write the time of day into the file, which is a part of the ids.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
    job = folder / "job.yaml"
    job.write_text(f"name: held\n{text}\n")
    return job


def test_the_ids_of_the_reference_job_stay_what_they_are():
    trials = plan_trials(load_job(ROOT / "jobs" / "medical_trial.yaml").spec)
    assert (trials[0].trial_id, len(trials)) == ("daeb1f14f597ff10", 60)
