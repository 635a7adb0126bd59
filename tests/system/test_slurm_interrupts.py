"""scripts/slurm on a real SLURM of two hosts: out of time, preempted, cancelled, cut off.

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


def test_a_job_that_loses_its_ray_too_often_is_not_requeued(slurm_user):
    job = slurm_user.submit(*BOTH_HOSTS, MAX_RESTARTS="0", MADE_UP_SECONDS_PER_EPOCH="2")
    job.wait_for_files("checkpoints/*.npz")
    [head] = [
        pid for pid, line in slurm_user.hosts.processes("n1").items() if "gcs_server" in line[:200]
    ]
    os.kill(head, signal.SIGKILL)
    assert job.wait_until("FAILED")["ExitCode"] == "75:0"
    assert "not requeued: it was restarted 0 times" in job.output()
    job.assert_left_nothing()


def test_a_job_out_of_time_is_requeued_until_it_is_done(slurm_user):
    job = slurm_user.submit(
        *("--nodes=2", "--gpus-per-node=1", "--time=2", "--signal=B:USR1@15"),
        MADE_UP_SECONDS_PER_EPOCH="7",
    )
    ended = job.wait_until("COMPLETED")
    assert int(ended["Restarts"]) >= 1
    assert_run_is_whole(job.folder)
    epochs = job.epochs()
    assert len(epochs) == 6 * 5
    assert set(epochs.values()) == {1}  # nothing was trained twice


def test_a_preempted_job_goes_on_when_it_may(slurm_user):
    job = slurm_user.submit(*BOTH_HOSTS, MADE_UP_SECONDS_PER_EPOCH="2")
    job.wait_for_files("trials/part-*.parquet")
    finished = {path.name for path in (job.folder / "trials").glob("part-*")}
    urgent = slurm_user.hosts.call(
        *("sbatch", "--parsable", "--partition=high", "--nodes=2", "--cpus-per-task=2"),
        *("--output=/dev/null", "--wrap", "sleep 3"),
    ).strip()
    wait_for(lambda: slurm_user.hosts.job(urgent)["JobState"] == "COMPLETED", job.say)
    ended = job.wait_until("COMPLETED")
    assert ended["Restarts"] == "1"
    assert_run_is_whole(job.folder)
    assert finished <= {path.name for path in (job.folder / "trials").iterdir()}
    # Four packs were in training; each lost what it had done since its last checkpoint.
    epochs = job.epochs()
    assert len(epochs) == 6 * 5
    assert max(epochs.values()) == 2
    assert sum(epochs.values()) - len(epochs) <= 4
    job.assert_left_nothing()


def test_a_cancelled_jobs_run_is_gone_on_with_and_a_host_may_be_switched_off(slurm_user):
    job = slurm_user.submit(*BOTH_HOSTS, MADE_UP_SECONDS_PER_EPOCH="1")
    job.wait_for_files("checkpoints/*.npz", least=4)  # two packs on each host
    slurm_user.hosts.call("scancel", job.id)
    job.wait_until("CANCELLED")
    job.assert_left_nothing()
    assert job.state() == "CANCELLED"
    assert job.hosts.job(job.id)["Restarts"] == "0"
    trained = job.epochs()
    again = slurm_user.submit(
        *BOTH_HOSTS, run_options=("--run-folder", job.folder), MADE_UP_SECONDS_PER_EPOCH="2"
    )
    wait_for(lambda: (again.epochs() - trained).total() > 4, again.say)  # again, two on each host
    slurm_user.hosts.switch_off("n2")
    try:
        ended = again.wait_until("COMPLETED")
    finally:
        slurm_user.hosts.switch_on("n2")
    assert ended["Restarts"] == "0"
    assert_run_is_whole(job.folder)
    assert (again.epochs() - trained).total() < 6 * 5
