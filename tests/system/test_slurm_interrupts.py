"""scripts/slurm on a real SLURM of two hosts: jobs that lose their place, their Ray or a host.

Training is made up (`made_up_driver`), so that what was done once, twice or not at all can be told
exactly. A file of its own, with hosts of its own, because it waits for SLURM most of the time.
"""

import os
import signal

import pytest
from durable_runs import assert_run_is_whole
from slurm_hosts import wait_for
from slurm_jobs import BOTH_HOSTS, needs_slurm

pytestmark = [pytest.mark.slurm, needs_slurm]


def test_a_run_survives_preemption_the_loss_of_its_ray_and_that_of_a_host(slurm_user):
    """One run by two jobs: each loses what was done since the last checkpoint, and no more."""
    hosts = slurm_user.hosts
    job = slurm_user.submit(
        *("--nodelist=n1", "--cpus-per-task=2", "--gpus-per-node=2"),
        **{"MAX_RESTARTS": "1", "MADE_UP_SECONDS_PER_EPOCH": "1.5"},
    )
    job.wait_for_files("trials/part-*.parquet")
    finished = {path.name for path in (job.folder / "trials").glob("part-*")}
    urgent = hosts.call(
        *("sbatch", "--parsable", "--partition=high", "--nodelist=n1", "--cpus-per-task=2"),
        *("--output=/dev/null", "--wrap", "sleep 3"),
    ).strip()
    wait_for(lambda: hosts.job(urgent)["JobState"] == "COMPLETED", job.say)
    before = job.epochs().total()
    wait_for(lambda: job.epochs().total() > before, job.say)
    assert hosts.job(job.id)["Restarts"] == "1"

    [head] = [pid for pid, line in hosts.processes("n1").items() if "gcs_server" in line[:200]]
    known = job.epochs()
    os.kill(head, signal.SIGKILL)
    assert job.wait_until("FAILED")["ExitCode"] == "75:0"
    assert "not requeued: it was restarted 1 times" in job.output()
    job.assert_left_nothing()
    trained = job.epochs()
    assert trained.total() - len(trained) <= 2  # two packs were in training
    unheard = (trained - known).total()  # workers go on until the job ends, and nobody hears of it

    again = slurm_user.submit(
        *BOTH_HOSTS, run_options=("--run-folder", job.folder), MADE_UP_SECONDS_PER_EPOCH="2"
    )
    wait_for(lambda: (again.epochs() - trained).total() > 4, again.say)  # two packs on each host
    for name in ("n1", "n2"):
        assert any("ray::_train" in line for line in hosts.processes(name).values())
    hosts.switch_off("n2")
    try:
        ended = again.wait_until("COMPLETED")
    finally:
        hosts.switch_on("n2")
    assert ended["Restarts"] == "0"
    assert_run_is_whole(job.folder)
    assert finished <= {path.name for path in (job.folder / "trials").iterdir()}
    epochs = again.epochs()
    assert len(epochs) == 6 * 5
    assert epochs.total() - len(epochs) <= 2 + 2 + unheard + 2
