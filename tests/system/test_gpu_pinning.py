"""Which GPUs a pack's task sees, and which process trains it.

Ray is real and pretends to have GPUs, of which it gives CUDA_VISIBLE_DEVICES to tasks; there is no
GPU here, so what TensorFlow does with it is tested against stand-ins in `test_devices`.
"""

import itertools
import platform
from pathlib import Path
from unittest import mock

import pandas as pd
import pyarrow.parquet as pq
import pytest
from durable_runs import JOB, DurableRun
from ray.cluster_utils import Cluster
from ray_nodes import HEAD, started_fast

from trialrun.cluster import worker

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def gpu_node():
    """A node with two pretended GPUs; gives its address."""
    node = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 80 << 20}
    with started_fast():
        cluster = Cluster(initialize_head=True, head_node_args={**node, **HEAD})
    yield cluster.address
    cluster.shutdown()


def rows_of(run):
    return pd.concat(map(pd.read_parquet, (run.folder / "trials").iterdir()))


def test_a_pack_sees_one_gpu_and_a_process_never_another(tmp_path, gpu_node):
    run = DurableRun(tmp_path / "home")
    finished = run.begin(gpu_node, MADE_UP_SECONDS_PER_EPOCH="0.5").finish()
    assert finished.code == 0, finished
    rows = rows_of(run)
    assert set(rows["device"]) == {"0", "1"}
    assert (rows.groupby("node")["device"].nunique() == 1).all()


def test_processes_are_used_again_until_the_last_packs(tmp_path, gpu_node):
    job = JOB.replace("max_trials_per_pack: 2", "max_trials_per_pack: 1")
    run = DurableRun(tmp_path / "home", job)
    finished = run.begin(gpu_node).finish()
    assert finished.code == 0, finished
    rows = rows_of(run)
    assert rows["pack_id"].nunique() == 12
    assert rows["node"].nunique() <= 6


def test_a_process_leaves_when_no_pack_is_left_for_it(tmp_path, gpu_node):
    """While the last of three packs is trained, one of two processes has nothing to do."""
    run = DurableRun(tmp_path / "home", JOB.replace("pack: 2", "pack: 4"))
    command = run.begin(gpu_node, MADE_UP_SECONDS_PER_EPOCH="3")
    command.wait_for(lambda: len(list((run.home / "runs").glob("*/*/trials/part-*"))) == 2)
    ended = pq.read_table(run.folder / "trials" / "part-p001.parquet")
    idle = Path("/proc", ended["node"][0].as_py())
    command.wait_for(lambda: not idle.exists())
    assert not (run.folder / "trials" / "part-p002.parquet").exists()
    assert command.finish().code == 0


def test_a_task_that_asks_for_no_gpu_sees_none(tmp_path, gpu_node):
    run = DurableRun(tmp_path / "home", JOB.replace("grace_s: 10", "grace_s: 10, gpus: 0"))
    finished = run.begin(gpu_node).finish()
    assert finished.code == 0, finished
    assert set(rows_of(run)["device"]) == {""}


def test_a_part_of_a_gpu_is_shared_and_warned_about(tmp_path, gpu_node):
    run = DurableRun(tmp_path / "home", JOB.replace("grace_s: 10", "grace_s: 10, gpus: 0.5"))
    finished = run.begin(gpu_node).finish()
    assert finished.code == 0, finished
    assert "resources.gpus is 0.5: packs share a GPU and its memory" in finished.stderr
    assert set(rows_of(run)["device"]) <= {"0", "1"}


def test_a_kind_of_gpu_that_no_node_has_is_refused(tmp_path, gpu_node):
    job = JOB.replace("grace_s: 10", "grace_s: 10, accelerator_type: A100")
    finished = DurableRun(tmp_path / "home", job).begin(gpu_node).finish()
    assert finished.code == 1
    assert "no node of the cluster has what a pack asks for: 1 GPU of type A100" in finished.stderr


def test_a_process_that_is_given_another_gpu_says_so_before_it_trains():
    """Ray seldom does it, so its answers are made up here."""
    context = mock.Mock(get_node_id=lambda: "node", get_job_id=lambda: "job")
    given = iter([[0], [0], [1]])
    task = mock.Mock(variables={}, keeps_output=False)
    task.pack.pack_id = "p000"
    with (
        mock.patch("ray.get_runtime_context", return_value=context),
        mock.patch("ray.get_gpu_ids", side_effect=lambda: next(given)),
    ):
        worker._gpus_of_this_process.cache_clear()
        first = worker._train(task, 1.0, lambda *_: iter(["trained"]), "output")
        began, trained = first
        assert (began.node, began.device, trained) == (platform.node(), "GPU 0", "trained")
        second = worker._train(task, 1.0, lambda *_: iter(["trained"]), "output")
        started = worker.Started("node", platform.node(), "GPU 1")
        assert list(itertools.islice(second, 2)) == [started, worker.WrongProcess()]
        worker._gpus_of_this_process.cache_clear()
