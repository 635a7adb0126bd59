"""Builders that give no model: nothing can be trained, and the job is told to be wrong."""

import pytest
from commands import call
from run_here import all_in_this_process

pytestmark = pytest.mark.compiled

BUILDERS = """
def build(how):
    if how == "raises":
        raise RuntimeError("no such backbone")
    return "a text"
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
    packs = [lines.pop(0) for line in tuple(lines) if " ended: 1 failed. " in line]
    assert packs
    assert lines[0].startswith("Error: ")
    place = f"{tmp_path / 'job.yaml'}:4: model.builder nets.py:build: "
    assert sorted(line.removeprefix("Error: ") for line in lines) == [
        f"{place}it raised RuntimeError: no such backbone",
        f"{place}must return a keras.Model, got a str",
    ]
