"""A worker killed for its memory, and an object store that is full: a real Ray, made-up training.

Ray writes what its object store cannot hold to the disk, so that a full store is an error only
where the disk is full too. Here Ray is told so: that a disk of which any part is used is full.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from durable_runs import JOB, DurableRun
from made_up_driver import FILLS_MEMORY, FILLS_STORE, LARGE_CHECKPOINTS, MAX_BYTES_TO_FILL
from ray_nodes import RayNodes

pytestmark = pytest.mark.cluster

MEMORY_TO_LEAVE = 3 << 30  # what other processes may take meanwhile
FULL_DISK = {"local_fs_capacity_threshold": 0.0}


def test_a_pack_whose_worker_is_killed_for_its_memory_is_halved_and_the_size_is_kept(tmp_path):
    """Ray's memory monitor looks at the whole machine: one node, and only large packs take much."""
    total, free = memory_bytes()
    if free < MAX_BYTES_TO_FILL + MEMORY_TO_LEAVE:
        pytest.skip(f"{free >> 30} GiB of memory are free, which is too little to be filled")
    settings = {
        "memory_usage_threshold": (total - free + MEMORY_TO_LEAVE) / total,
        "memory_monitor_refresh_ms": 50,
    }
    run = DurableRun(tmp_path / "home", job_of(FILLS_MEMORY, max_trials_per_pack=4))
    with RayNodes(1, settings) as nodes:
        finished = run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish()
    assert finished.code == 0, finished
    run.assert_whole()
    assert sizes_and_attempts(run) == [(2, 0)] * 2 + [(2, 1)] * 4
    assert "running low on memory" in (run.folder / "run.log").read_text()


@pytest.fixture(scope="module")
def node_with_a_full_disk():
    """A node with a small object store that has nowhere to overflow to."""
    with RayNodes(1, FULL_DISK) as nodes:
        yield nodes


def test_a_pack_whose_results_do_not_fit_into_the_object_store_is_halved(
    tmp_path, node_with_a_full_disk
):
    run = DurableRun(tmp_path / "home", job_of(FILLS_STORE, max_trials_per_pack=12))
    address = node_with_a_full_disk.address
    finished = run.begin(address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish()
    assert finished.code == 0, finished
    run.assert_whole()
    assert all(size < 12 and attempt > 0 for size, attempt in sizes_and_attempts(run))
    assert "object store is full" in (run.folder / "run.log").read_text()


def test_a_pack_whose_checkpoint_does_not_fit_into_the_object_store_goes_on_in_halves(
    tmp_path, node_with_a_full_disk
):
    """The driver puts a checkpoint there for the task that goes on from it."""
    run = DurableRun(tmp_path / "home", job_of(LARGE_CHECKPOINTS, max_trials_per_pack=12))
    command = run.begin(MADE_UP_SECONDS_PER_EPOCH="0.3")
    command.wait_for(lambda: run.has_reached("while packs run"))
    command.terminate()
    assert command.finish().code == 75
    finished = run.resume(node_with_a_full_disk.address).finish()
    assert finished.code == 0, finished
    run.assert_whole()
    assert all(size < 12 for size, _ in sizes_and_attempts(run))
    log = (run.folder / "run.log").read_text()
    assert "p000: no room for its checkpoint: Ray's object store is full" in log
    assert "starting from epoch 0" not in log


def job_of(trouble: int, *, max_trials_per_pack: int) -> str:
    job = JOB.replace("max_trials_per_pack: 2", f"max_trials_per_pack: {max_trials_per_pack}")
    return job + f"data: {{args: {{num_test_older_with: {trouble}}}}}\n"


def sizes_and_attempts(run: DurableRun) -> list[tuple[int, int]]:
    """Of each pack in a run folder, sorted."""
    parts = [pq.read_table(part).to_pandas() for part in (run.folder / "trials").iterdir()]
    return sorted((len(part), int(part["attempt"].iloc[0])) for part in parts)


def memory_bytes() -> tuple[int, int]:
    """All and free memory of this machine."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kilobytes["MemTotal"] << 10, kilobytes["MemAvailable"] << 10
