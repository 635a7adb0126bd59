"""Builders that give no model: the job is told to be wrong, and where it is; one trial alone."""

import pytest
from commands import call
from run_here import all_in_this_process

pytestmark = pytest.mark.tensorflow

BUILDERS = """
import keras


class Doubling(keras.layers.Layer):
    def call(self, x):
        print("doubling", x.shape)
        return 2 * x


def build(how):
    if how == "raises":
        return backbone()
    if how == "doubles":
        return keras.Sequential([Doubling(), keras.layers.Dense(2, activation="softmax")])
    return "a text"


def backbone():
    raise RuntimeError("no such backbone")
"""
JOB = """
name: wrong
seeds: 2
model: {builder: "nets.py:build"}
search: {parameters: {model.args.how: {values: [raises, returns]}}}
"""


def test_builders_that_give_no_model_are_wrong_input(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "nets.py").write_text(BUILDERS)
    with all_in_this_process():
        finished = call("run", tmp_path / "job.yaml", "--runs-dir", tmp_path / "runs")
    assert finished.code == 2, finished
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    first, *lines = finished.stderr.splitlines()
    assert first.startswith("Run folder: ")
    lines = [line for line in lines if " ended: " not in line]
    assert lines[0].startswith("Error: ")
    place = f"{tmp_path / 'job.yaml'}:4: model.builder nets.py:build: "
    text = "\n".join(lines)
    calls = (
        f'  at {tmp_path}/nets.py:20 in backbone: raise RuntimeError("no such backbone")\n'
        f"  called at {tmp_path}/nets.py:13 in build: return backbone()"
    )
    assert f"{place}it raised RuntimeError: no such backbone\n{calls}" in text
    assert f"{place}must return a keras.Model, got a str" in text
    assert text.count("nets.py:") == 4


def test_one_trial_is_trained_here_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = JOB.replace("[raises, returns]", "[doubles, raises]")
    job += """
training: {epochs: 1}
data:
  args:
    {num_train_younger_without: 20, num_train_older_with: 20,
     num_test_younger_without: 5, num_test_older_with: 5}
"""
    (tmp_path / "job.yaml").write_text(job)
    (tmp_path / "nets.py").write_text(BUILDERS)
    before = sorted(tmp_path.iterdir())
    trained = call("run", "job.yaml", "--one-trial")
    assert trained.code == 0, trained
    assert "doubling (10, 1)" in trained.stdout  # a step of a batch with numbers
    assert "val_loss" in trained.stdout
    assert "Epoch 1 of 1: " in trained.stderr
    failed = call("run", "job.yaml", "--trial", "v01:1")
    assert failed.code == 2
    assert "Traceback (most recent call last)" in failed.stderr
    assert 'raise RuntimeError("no such backbone")' in failed.stderr
    assert failed.stderr.splitlines()[-2].startswith(f"  at {tmp_path}/nets.py:20 in backbone")
    assert "v01:1" in call("run", "job.yaml", "--trial", "v01:7").stderr
    for option in ("--address=auto", "--max-time=1s", "--shard=1/2", "--keep-logs", "--runs-dir=x"):
        refused = call("run", "job.yaml", "--one-trial", option)
        assert refused.code == 2
        assert f"leave out {option.partition('=')[0]}" in refused.stderr
    assert call("run", "job.yaml", "--trial", "").code == 2
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before
