"""scripts/slurm on a real SLURM of two hosts: jobs that end by their time limit or a failure.

A file of its own, with hosts of its own, because it waits for SLURM most of the time.
"""

import re

import pytest
from durable_runs import assert_run_is_whole
from slurm_hosts import wait_for
from slurm_jobs import BOTH_HOSTS, needs_slurm, sets

pytestmark = [pytest.mark.slurm, needs_slurm]


def test_a_job_out_of_time_is_requeued_and_goes_on(slurm_user):
    job = slurm_user.submit(
        # SLURM looks every 30 s, and so sends the signal 20 to 50 s after the start.
        *("--cpus-per-task=2", "--gpus-per-node=2", "--time=2", "--signal=B:USR1@70"),
        MADE_UP_SECONDS_PER_EPOCH="4",
    )
    wait_for(lambda: slurm_user.hosts.job(job.id)["Restarts"] != "0", job.say)
    slurm_user.hosts.call("scontrol", "update", f"JobId={job.id}", "TimeLimit=10")
    ended = job.wait_until("COMPLETED")
    assert ended["Restarts"] == "1"
    assert_run_is_whole(job.folder)
    epochs = job.epochs()
    assert len(epochs) == 6 * 5
    assert set(epochs.values()) == {1}  # nothing was trained twice


def test_a_driver_that_fails_fails_the_job_with_its_code(slurm_user):
    # The task of a job array begins no Ray.
    job = slurm_user.submit("--array=1-1", run_options=sets("training.epochs=0"))
    ended = job.wait_until("FAILED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("2:0", "0")
    assert "training.epochs must be" in job.output()


def test_a_node_that_does_not_join_is_named_with_the_reason(slurm_user):
    job = slurm_user.submit("--hold", *BOTH_HOSTS)
    with slurm_user.hosts.read_only_tmp("n2"):
        slurm_user.hosts.call("scontrol", "release", job.id)
        assert job.wait_until("FAILED")["ExitCode"] == "1:0"
    assert "n2: has not joined Ray, and a step that starts Ray has ended" in job.output()
    assert re.search(f"/tmp/trialrun-{job.id}-ray-.*Read-only file system", job.output())
    job.assert_left_nothing()
