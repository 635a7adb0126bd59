"""Where run folders go: what is chosen, and what a Ray job may not choose."""

import os
from pathlib import Path

import pytest

from trialrun.errors import InputError
from trialrun.store import RunFolder
from trialrun.store.runs_dir import default_runs_dir, location_text


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The current folder is one that Ray unpacked a job's files into."""
    folder = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


def test_runs_are_here_or_where_the_variable_says(monkeypatch):
    monkeypatch.delenv("TRIALRUN_RUNS_DIR", raising=False)
    assert default_runs_dir() == Path("runs")
    monkeypatch.setenv("TRIALRUN_RUNS_DIR", "/shared/runs")
    assert default_runs_dir() == Path("/shared/runs")
    monkeypatch.setenv("TRIALRUN_RUNS_DIR", "~/mine")
    assert default_runs_dir() == Path("~/mine").expanduser()


def test_a_ray_job_leaves_its_runs_outside_of_the_copy_of_its_files(copy, tmp_path, monkeypatch):
    monkeypatch.delenv("TRIALRUN_RUNS_DIR", raising=False)
    assert default_runs_dir() == tmp_path / "home" / "trialrun-runs"
    run = RunFolder.create(default_runs_dir(), "a")
    assert location_text(run.path) == f"{run.path} on {os.uname().nodename}"
    for make in (lambda: RunFolder.create("runs", "a"), lambda: RunFolder.at(copy / "mine")):
        with pytest.raises(InputError, match="lies in the copy of this Ray job's files"):
            make()
    assert list(copy.iterdir()) == []


def test_elsewhere_a_place_is_said_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert location_text(RunFolder.at("runs/x").path) == "runs/x"
