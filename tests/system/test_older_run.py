"""A run folder that version 0.1.0 wrote: opened, shown, used and continued by this version.

`support/run_of_0_1_0` is the reference job with two seeds, two learning rates and two epochs, as
that version left it, without its figures and its page. The machine's paths and names are left out.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from commands import ROOT, Command, call
from durable_runs import PROGRAM

import trialrun

pytestmark = pytest.mark.cluster
IDS = ["3012e878dfa47021", "b21010a8f25dd533"]  # of seed 0


@pytest.fixture
def older(tmp_path):
    return shutil.copytree(ROOT / "tests" / "support" / "run_of_0_1_0", tmp_path / "older")


def test_it_is_opened_and_shown(older):
    run = trialrun.open_run(older)
    first = run.trials[run.trials["seed"] == 0]
    assert sorted(first["trial_id"]) == IDS
    shown = json.loads(call("show", older, "--json").stdout)
    written = json.loads((older / "summary.json").read_text())["selection"]
    assert shown["selection"].items() >= {n: written[n] for n in ("variant_id", "mean")}.items()
    assert call("compare", older, "v00", "v01").code == 0


def test_its_page_is_written_again_and_its_model_predicts(older):
    assert call("report", older).code == 0
    assert "v01" in (older / "report.html").read_text()
    predictions = trialrun.open_run(older).best.predict(np.array([[15.0], [95.0]]))
    assert predictions.argmax(axis=1).tolist() == [0, 1]


def test_it_is_extended_and_what_it_held_stays(older, tmp_path):
    before = trialrun.open_run(older).trials
    job = shutil.copy(older / "job.yaml", tmp_path / "medical_trial.yaml")
    arguments = ["run", job, "--set", "seeds=3", "--resume", older]
    program = (PROGRAM, str(tmp_path / "driver.pid"))  # training is made up: ids decide here
    finished = Command(tmp_path, *arguments, program=program, is_warm=True).finish()
    assert finished.code == 0, finished
    trials = trialrun.open_run(older).trials
    assert len(trials) == 6
    kept = trials[trials["trial_id"].isin(before["trial_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[before.columns], before)
    assert len(list((older / "trials").iterdir())) == 2  # its own file, and one of the third seed
