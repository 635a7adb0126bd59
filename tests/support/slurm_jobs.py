"""Jobs that a user submits to the SLURM of `slurm_hosts` by scripts/slurm/submit.sh."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from commands import ROOT
from durable_runs import JOB, PROGRAM
from slurm_hosts import SlurmHosts, wait_for, why_not

needs_slurm = pytest.mark.skipif(bool(why_not()), reason=why_not())
BOTH_HOSTS = ("--nodes=2", "--cpus-per-task=2", "--gpus-per-node=2")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}


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

    @classmethod
    def with_home(cls, hosts: SlurmHosts, name: str) -> Self:
        """A new user on idle hosts."""
        hosts.wait_until_idle()
        home = hosts.home / name
        home.mkdir()
        (home / "job.yaml").write_text(JOB)
        program = home / "trialrun"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} {home}/driver.pid "$@"\n')
        program.chmod(0o755)
        return cls(hosts, home)

    def submit(
        self, *options: str, run_options: tuple[object, ...] = (), **environment: str
    ) -> Job:
        """Submits the user's job file, and returns the last of the jobs that this makes."""
        shards = options[:2] if options[0] == "--shards" else ()
        told = self.hosts.call(
            *(ROOT / "scripts" / "slurm" / "submit.sh", *shards, self.home / "job.yaml"),
            *(f"--output={self.home}/%x-%A.out", *options[len(shards) :], "--", *run_options),
            **{
                "RUNS_DIR": str(self.home / "runs"),
                "MADE_UP_EPOCHS_FILE": str(self.home / "epochs.txt"),
                "TRIALRUN": str(self.home / "trialrun"),
                **environment,
            },
        )
        return Job(self.hosts, self.home, told.split()[-1])


def sets(*options: str) -> tuple[str, ...]:
    return tuple(word for option in options for word in ("--set", option))
