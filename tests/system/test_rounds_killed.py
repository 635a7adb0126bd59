"""A run with rounds whose driver is killed (-9), with a real Ray and made-up training."""

import re

import pyarrow.parquet as pq
import pytest
from durable_runs import DurableRun
from ray_nodes import RayNodes

pytestmark = pytest.mark.cluster

JOB = """
name: durable
training: {epochs: 5, checkpoint_every: 1, metrics: []}
seeds: 6
search:
  rounds: [{seeds: 2, epochs: 2, keep: 3}, {seeds: 3, epochs: 3, keep: 2}, {seeds: 6}]
  confirm: {seeds: 4}
  parameters: {training.learning_rate: {values: [0.4, 0.2, 0.3, 0.1]}}
resources: {max_trials_per_pack: 4, grace_s: 10}
"""


@pytest.fixture(scope="module")
def nodes():
    """A node of one core."""
    with RayNodes(1, num_gpus=0) as nodes:
        yield nodes


def test_a_driver_killed_in_any_round_decides_the_same_again(tmp_path, nodes):
    """In the middle of a round, between a round's log and its first result, and confirming.

    Paused trials go on from where they are: nothing is trained twice but what a killed driver had
    not written, and no state is left. `tests/driver/test_rounds.py` varies the number of devices.
    """
    epochs_file = tmp_path / "epochs"
    whole = DurableRun(tmp_path / "whole", JOB)
    settings = {"MADE_UP_SECONDS_PER_EPOCH": "0", "MADE_UP_EPOCHS_FILE": str(epochs_file)}
    finished = whole.begin(nodes.address, **settings).finish()
    assert finished.code == 0, finished
    said = " ".join(finished.stdout.split())
    assert "round 1 4 variants x 2 seeds, to epoch 2 3 go on" in said
    assert "round 2 3 variants x 3 seeds, to epoch 3 2 go on" in said
    assert "25 trials: 20 completed, 5 paused" in said
    lines = epochs_file.read_text().splitlines()
    assert len(lines) == len(set(lines))  # each epoch of a pack's first trial is trained once
    expected = {file.name: file.read_bytes() for file in (whole.folder / "search").iterdir()}
    assert len(expected) == 4

    run = DurableRun(tmp_path / "killed", JOB)
    command = run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.3")
    moments = ("checkpoints/*.npz", "round-0002.json", "checkpoints/p*r*.npz", "round-0004.json")
    for moment in moments:
        command.wait_for(lambda name=moment: any((tmp_path / "killed").rglob(name)))
        command.kill()
        command.finish()
        command = run.resume(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.3")
    finished = command.finish()
    assert finished.code == 0, finished
    said = " ".join(finished.stdout.split())
    assert "confirm v03, v01 on 4 fresh seeds" in said
    assert "25 trials: 20 completed, 5 paused" in said
    found = {file.name: file.read_bytes() for file in (run.folder / "search").iterdir()}
    assert found == expected
    assert not (run.folder / "checkpoints").exists()


def test_paused_trials_whose_states_are_lost_are_trained_from_the_start(tmp_path, nodes):
    run = DurableRun(tmp_path, JOB)
    command = run.begin(nodes.address)
    command.wait_for(lambda: any(tmp_path.rglob("round-0002.json")))
    command.kill()
    command.finish()
    for file in (run.folder / "checkpoints").iterdir():
        file.unlink()
    finished = run.resume(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0").finish()
    assert finished.code == 0, finished
    log = (run.folder / "run.log").read_text()
    assert re.search(r"\d paused trials left no state to go on from, and will be trained from", log)
    assert "25 trials: 20 completed, 5 paused" in " ".join(finished.stdout.split())
    rows = [pq.read_table(file).to_pandas() for file in (run.folder / "trials").iterdir()]
    assert all((one["epochs"][one["status"] == "completed"] == 5).all() for one in rows)


def test_a_run_whose_time_is_over_after_a_pause_keeps_the_states(tmp_path, nodes):
    """It has no best model yet, and says so; each resume begins another round."""
    epochs_file = tmp_path / "epochs"
    run = DurableRun(tmp_path, JOB.replace("search:", "search:\n  budget: {time: 1s}"))
    settings = {"MADE_UP_SECONDS_PER_EPOCH": "0.6", "MADE_UP_EPOCHS_FILE": str(epochs_file)}
    finished = run.begin(nodes.address, **settings).finish()
    assert finished.code == 0, finished
    assert "1s is over, so that round 2 is not begun" in " ".join(finished.stderr.split())
    said = " ".join(finished.stdout.split())
    assert "8 trials: 8 paused" in said
    assert "compared at epoch 2, where their trials are paused. v03" in said
    assert "There is no best model yet: the trials are paused after epoch 2" in said
    for _ in range(3):
        finished = run.resume(nodes.address, **settings).finish()
        assert finished.code == 0, finished
    assert "25 trials: 20 completed, 5 paused" in " ".join(finished.stdout.split())
    lines = epochs_file.read_text().splitlines()
    assert len(lines) == len(set(lines))
    assert not (run.folder / "checkpoints").exists()
