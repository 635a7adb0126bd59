"""A run with rounds whose driver is killed (-9), with a real Ray and made-up training."""

import pytest
from durable_runs import DurableRun
from ray_nodes import RayNodes

pytestmark = pytest.mark.cluster

JOB = """
name: durable
training: {epochs: 5, checkpoint_every: 1, metrics: []}
seeds: 6
search:
  rounds: [{seeds: 2, keep: 2}, {seeds: 6}]
  confirm: {seeds: 4}
  parameters: {training.learning_rate: {values: [0.4, 0.2, 0.3, 0.1]}}
resources: {max_trials_per_pack: 4, grace_s: 10}
"""


@pytest.fixture(scope="module")
def nodes():
    with RayNodes(num_gpus=0) as nodes:
        yield nodes


def test_a_driver_killed_in_any_round_decides_the_same_again(tmp_path, nodes):
    """Between a round's log and its first result, in the middle of a round, and confirming."""
    whole = DurableRun(tmp_path / "whole", JOB)
    assert whole.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0").finish().code == 0
    expected = {file.name: file.read_bytes() for file in (whole.folder / "search").iterdir()}
    assert len(expected) == 3

    run = DurableRun(tmp_path / "killed", JOB)
    command = run.begin(nodes.address)
    for moment in ("round-0002.json", "round-0003.json"):
        command.wait_for(lambda name=moment: any((tmp_path / "killed").rglob(name)))
        command.kill()
        command.finish()
        command = run.resume(nodes.address)
    finished = command.finish()
    assert finished.code == 0, finished
    found = {file.name: file.read_bytes() for file in (run.folder / "search").iterdir()}
    assert found == expected
    said = " ".join(finished.stdout.split())
    assert "round 1 4 variants x 2 seeds 2 go on" in said
    assert "confirm v03, v01 on 4 fresh seeds" in said
    assert "24 trials: 24 completed" in said
