"""A worker's generator is compared with the driver's before anything is trained."""

import pytest

from trialrun.data.load import sample_data
from trialrun.errors import ModelError
from trialrun.job import load_job
from trialrun.training.same_data import require_same_data

GENERATOR = """
import os
from pathlib import Path
import numpy as np

def data(seed):
    shift = {shift}
    x = np.random.default_rng(seed).normal(size=(40, 2)) + shift
    return {{"train": (x, np.arange(40) % 2), "test": (x[:4], np.arange(4) % 2)}}
"""
VARIABLE = 'float(os.environ.get("TRIALRUN_TEST_SHIFT", 0))'
FILE = 'float((Path(__file__).parent / "shift.txt").read_text())'
UNSEEDED = "np.random.default_rng().normal()"


@pytest.mark.parametrize(
    ("shift", "cause"),
    [
        (VARIABLE, "the environment variable TRIALRUN_TEST_SHIFT, of which TRIALRUN_TEST_SHIFT is"),
        (FILE, r"it reads a file \(mine.py:7\): name that file in data.depends_on"),
        (UNSEEDED, "it gives other data each time that it is called"),
    ],
)
def test_other_data_is_refused_with_the_difference_and_the_cause(
    tmp_path, monkeypatch, shift, cause
):
    (tmp_path / "mine.py").write_text(GENERATOR.format(shift=shift))
    (tmp_path / "shift.txt").write_text("1")
    (tmp_path / "job.yaml").write_text("name: a\ndata: {generator: 'mine.py:data'}\n")
    data = load_job(tmp_path / "job.yaml").spec.data
    monkeypatch.setenv("TRIALRUN_TEST_SHIFT", "1")
    there = sample_data(data, tmp_path, 4)
    if shift != UNSEEDED:
        require_same_data([there], data, tmp_path)
    (tmp_path / "shift.txt").write_text("2")
    monkeypatch.delenv("TRIALRUN_TEST_SHIFT")
    expected = rf"mine.py:data: for seed 4 it gives other data .*: train x\[0, 0\] is .*{cause}"
    with pytest.raises(ModelError, match=expected):
        require_same_data([sample_data_as(there)], data, tmp_path)


def test_an_error_that_only_this_machine_raises_is_refused_with_the_cause(tmp_path, monkeypatch):
    shift = 'float(os.environ["TRIALRUN_TEST_SHIFT"])'
    (tmp_path / "mine.py").write_text(GENERATOR.format(shift=shift))
    (tmp_path / "job.yaml").write_text("name: a\ndata: {generator: 'mine.py:data'}\n")
    data = load_job(tmp_path / "job.yaml").spec.data
    monkeypatch.setenv("TRIALRUN_TEST_SHIFT", "1")
    there = sample_data(data, tmp_path, 4)
    monkeypatch.delenv("TRIALRUN_TEST_SHIFT")
    with pytest.raises(ModelError, match=r"KeyError: 'TRIALRUN_TEST_SHIFT'; .*is not set here"):
        require_same_data([there], data, tmp_path)


def sample_data_as(sample):
    """The same sample as one that this process has not compared yet."""
    from dataclasses import replace

    return replace(sample, fingerprint="of another driver")
