"""scripts/slurm on a real SLURM of two hosts: shared, out of time, preempted, cancelled, cut off.

The reference job is trained for real. Where the test is about signals and processes, training is
made up (`made_up_driver`), so that runs are short and their numbers can be compared exactly. GPUs
are stand-ins: SLURM and Ray count them and give them out, but the CPU computes.
"""

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ROOT, Command
from durable_runs import JOB, PROGRAM, assert_run_is_whole
from slurm_hosts import SlurmHosts, wait_for, why_not

import trialrun

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

BOTH = ("--nodes=2", "--cpus-per-task=2", "--gpus-per-node=2")
# Fewer seeds and epochs than the reference job has, and packs enough for two hosts.
SMALL = ("seeds=4", "training.epochs=5", "resources.max_trials_per_pack=3")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[SlurmHosts]:
    shared = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
    with SlurmHosts(tmp_path_factory.mktemp("slurm") / "hosts", shared) as hosts:
        yield hosts


@dataclass(frozen=True)
class Job:
    """A job that was submitted with scripts/slurm/submit.sh."""

    hosts: SlurmHosts
    home: Path
    id: str

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.home / "runs" / "job" / f"slurm-{self.id}"

    def state(self) -> str:
        return self.hosts.job(self.id)["JobState"]

    def output(self) -> str:
        return (self.home / f"trialrun-{self.id}.out").read_text()

    def wait_until(self, *states: str) -> dict[str, str]:
        """Waits until it is in one of these states; it may end in no other."""
        wait_for(lambda: self.state() in {*states, *ENDED}, self.say)
        assert self.state() in states, self.say()
        return self.hosts.job(self.id)

    def wait_for_files(self, pattern: str, least: int = 1) -> None:
        """Waits until its run folder holds so many files of a kind."""

        def enough() -> bool:
            assert self.state() not in ENDED, self.say()
            return len(list(self.folder.glob(pattern))) >= least

        wait_for(enough, self.say)

    def epochs(self) -> Counter[tuple[str, str]]:
        """How often each epoch of each pack was trained, by its first trial."""
        lines = (self.home / "epochs.txt").read_text().splitlines()
        return Counter(tuple(line.split()) for line in lines)

    def assert_left_nothing(self) -> None:
        """No process and no temporary folder of it is on any host."""

        def left() -> dict[str, object]:
            return {
                name: (self.hosts.processes(name), self.hosts.temporary_files(name))
                for name in ("n1", "n2")
            }

        wait_for(lambda: left() == {"n1": ({}, set()), "n2": ({}, set())}, left, deadline_s=20)

    def say(self) -> str:
        """All that is known of it."""
        logs = [path.read_text()[-2000:] for path in self.home.glob("runs/*/.ray-*/*.log")]
        return "\n".join([str(self.hosts.job(self.id)), self.output(), *logs])


@dataclass(frozen=True)
class User:
    """Somebody with a job whose training is made up."""

    hosts: SlurmHosts
    home: Path

    def submit(
        self, *options: str, run_options: tuple[object, ...] = (), **environment: str
    ) -> Job:
        """Submits the user's job file, and returns the last of the jobs that this makes."""
        shards = options[:2] if options[0] == "--shards" else ()
        told = self.hosts.call(
            *(ROOT / "scripts" / "slurm" / "submit.sh", *shards, self.home / "job.yaml"),
            *(f"--output={self.home}/%x-%A.out", *options[len(shards) :], "--", *run_options),
            RUNS_DIR=str(self.home / "runs"),
            MADE_UP_EPOCHS_FILE=str(self.home / "epochs.txt"),
            **{"TRIALRUN": str(self.home / "trialrun"), **environment},
        )
        return Job(self.hosts, self.home, told.split()[-1])


@pytest.fixture
def user(hosts, tmp_path) -> User:
    hosts.wait_until_idle()
    home = hosts.home / tmp_path.name
    home.mkdir()
    (home / "job.yaml").write_text(JOB)
    program = home / "trialrun"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} {home}/driver.pid "$@"\n')
    program.chmod(0o755)
    return User(hosts, home)


def sets(*options: str) -> tuple[str, ...]:
    return tuple(word for option in options for word in ("--set", option))


def test_the_reference_job_on_two_hosts_is_that_of_a_laptop(user, tmp_path):
    job_file = ROOT / "jobs" / "medical_trial.yaml"
    (user.home / "job.yaml").write_bytes(job_file.read_bytes())
    job = user.submit(
        *("--nodes=2", "--gpus-per-node=1"),
        run_options=sets(*SMALL),
        TRIALRUN=str(Path(sys.executable).with_name("trialrun")),
    )
    ended = job.wait_until("COMPLETED")
    assert ended["ExitCode"] == "0:0"
    assert "Run folder: " in job.output()
    job.assert_left_nothing()
    run = trialrun.open_run(job.folder)
    assert set(run.trials["node"]) == {"n1", "n2"}
    assert 'gpus_per_pack": 1' in (job.folder / "environment.json").read_text()

    laptop = Command(
        tmp_path / "home", "run", job_file, *sets(*SMALL), "--run-folder", tmp_path / "laptop"
    )
    assert laptop.finish().code == 0
    other = trialrun.open_run(tmp_path / "laptop")
    assert run.best.trial_id == other.best.trial_id
    assert run.best.parameters == other.best.parameters
    here, there = (run.trials.set_index("trial_id"), other.trials.set_index("trial_id"))
    assert set(here.index) == set(there.index)
    metrics = here.filter(regex="^(train|val|test)_(loss|accuracy)$").columns
    assert len(metrics) == 6
    np.testing.assert_allclose(here[metrics], there.loc[here.index, metrics], rtol=0, atol=1e-4)


def test_two_jobs_share_the_hosts_in_peace(user):
    options = ("--nodes=2", "--gpus-per-node=1")
    slow = {"MADE_UP_SECONDS_PER_EPOCH": "0.5"}
    jobs = [
        user.submit(*options, run_options=("--set", f"name=job{number}"), **slow)
        for number in range(2)
    ]
    for job in jobs:
        job.wait_for_files("checkpoints/*.npz")
    assert {job.state() for job in jobs} == {"RUNNING"}
    assert_token_is_secret(user.hosts)
    for name in ("n1", "n2"):
        assert {f"trialrun-{job.id}-ray" for job in jobs} <= user.hosts.temporary_files(name)
    trials = []
    for job in jobs:
        job.wait_until("COMPLETED")
        assert_run_is_whole(job.folder)
        trials.append(trialrun.open_run(job.folder).trials.assign(job=job.id))
    jobs[0].assert_left_nothing()
    table = pd.concat(trials)
    # Each job had one GPU on each host, and not that of the other.
    for name in ("n1", "n2"):
        there = table[table["node"].str.startswith(f"{name}:")]
        assert set(there["job"]) == {job.id for job in jobs}
        assert (there.groupby("job")["device"].nunique() == 1).all()
        assert set(there["device"]) == {"0", "1"}


def assert_token_is_secret(hosts: SlurmHosts) -> None:
    """Whoever lists processes or temporary files learns nothing."""
    tokens, lines = set(), []
    for name in ("n1", "n2"):
        for pid, line in hosts.processes(name).items():
            lines.append(line)
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
            tokens |= set(re.findall(r"RAY_AUTH_TOKEN=(\w+)", environment))
            folders = set(Path(f"/proc/{pid}/root/tmp").glob("trialrun-*"))
            assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    assert len(tokens) == 2  # one per job
    assert not [line for line in lines for token in tokens if token in line]


def test_a_driver_that_fails_fails_the_job_with_its_code(user):
    wrong = user.submit("--gpus-per-node=1", run_options=sets("training.epochs=0"))
    failing = user.submit("--gpus-per-node=1", run_options=sets("data.args.num_test_older_with=9"))
    assert wrong.wait_until("FAILED")["ExitCode"] == "2:0"
    assert "training.epochs must be" in wrong.output()
    assert failing.wait_until("FAILED")["ExitCode"] == "1:0"
    assert "2 trials failed" in failing.output()
    for job in (wrong, failing):
        assert user.hosts.job(job.id)["Restarts"] == "0"


def test_a_node_that_does_not_join_is_named_with_the_reason(user):
    job = user.submit("--hold", *BOTH)
    taken = user.hosts.root("n2") / "tmp" / f"trialrun-{job.id}-ray"
    taken.mkdir()
    os.chown(taken, 65534, 65534)  # somebody else's
    user.hosts.call("scontrol", "release", job.id)
    assert job.wait_until("FAILED")["ExitCode"] == "1:0"
    taken.rmdir()
    assert "n2: not joined Ray, and a step that starts it has ended" in job.output()
    assert re.search(f"/tmp/trialrun-{job.id}-ray.*File exists", job.output())
    job.assert_left_nothing()


def test_a_job_that_loses_its_ray_too_often_is_not_requeued(user):
    job = user.submit(*BOTH, MAX_RESTARTS="0", MADE_UP_SECONDS_PER_EPOCH="2")
    job.wait_for_files("checkpoints/*.npz")
    [head] = [pid for pid, line in user.hosts.processes("n1").items() if "gcs_server" in line[:200]]
    os.kill(head, signal.SIGKILL)
    assert job.wait_until("FAILED")["ExitCode"] == "75:0"
    assert "not requeued: it was restarted 0 times" in job.output()
    job.assert_left_nothing()


def test_a_job_out_of_time_is_requeued_until_it_is_done(user):
    job = user.submit(
        *("--nodes=2", "--gpus-per-node=1", "--time=1", "--signal=B:USR1@15"),
        MADE_UP_SECONDS_PER_EPOCH="2.5",
    )
    ended = job.wait_until("COMPLETED")
    assert int(ended["Restarts"]) >= 1
    assert_run_is_whole(job.folder)
    epochs = job.epochs()
    assert len(epochs) == 6 * 5
    assert set(epochs.values()) == {1}  # nothing was trained twice


def test_a_preempted_job_goes_on_when_it_may(user):
    job = user.submit(*BOTH, MADE_UP_SECONDS_PER_EPOCH="2")
    job.wait_for_files("trials/*.parquet")
    finished = {path.name for path in (job.folder / "trials").iterdir()}
    urgent = user.hosts.call(
        *("sbatch", "--parsable", "--partition=high", "--nodes=2", "--cpus-per-task=2"),
        *("--output=/dev/null", "--wrap", "sleep 3"),
    ).strip()
    wait_for(lambda: user.hosts.job(urgent)["JobState"] == "COMPLETED", job.say)
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


def test_a_cancelled_job_leaves_nothing_but_a_run_to_go_on_with(user):
    job = user.submit(*BOTH, MADE_UP_SECONDS_PER_EPOCH="1")
    job.wait_for_files("trials/*.parquet")
    user.hosts.call("scancel", job.id)
    job.wait_until("CANCELLED")
    job.assert_left_nothing()
    assert job.state() == "CANCELLED"
    assert job.hosts.job(job.id)["Restarts"] == "0"
    trained = job.epochs()
    again = user.submit(*BOTH, run_options=("--run-folder", job.folder))
    again.wait_until("COMPLETED")
    assert_run_is_whole(job.folder)
    assert sum((again.epochs() - trained).values()) < 6 * 5


def test_a_host_that_is_switched_off_does_not_end_the_job(user):
    job = user.submit(*BOTH, MADE_UP_SECONDS_PER_EPOCH="2")
    job.wait_for_files("checkpoints/*.npz", least=4)  # two packs on each host
    user.hosts.switch_off("n2")
    try:
        ended = job.wait_until("COMPLETED")
    finally:
        user.hosts.switch_on("n2")
    assert ended["Restarts"] == "0"
    assert_run_is_whole(job.folder)


def test_shards_in_a_job_array_become_one_run(user):
    merging = user.submit("--shards", "2", "--cpus-per-task=2", MADE_UP_SECONDS_PER_EPOCH="0.5")
    merging.wait_until("COMPLETED")
    [folder] = (user.home / "runs" / "job").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["merged", "shard-1", "shard-2"]
    assert_run_is_whole(folder / "merged")
    nodes = trialrun.open_run(folder / "merged").trials["node"]
    assert set(nodes.str.partition(":")[0]) == {"n1", "n2"}
    merging.assert_left_nothing()
