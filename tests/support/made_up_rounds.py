"""Runs with rounds, in which all is real but training and Ray: for tests of decisions and words."""

import random
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from trialrun.driver.proposals import check_proposals, planned_trials
from trialrun.driver.resume import missing_trials
from trialrun.driver.rounds import Rounds, recorded_fresh_trials
from trialrun.driver.train import column_kinds
from trialrun.driver.work import Work
from trialrun.job import dump_job, load_job
from trialrun.store import RunFolder
from trialrun.trials.packing import pack_trials
from trialrun.trials.results import PackResult, TrialResult

JOB = """
name: rounds
seeds: 12
search:
  rounds: auto
  confirm: {seeds: 4}
  parameters: {training.learning_rate: {values: [0.9, 0.2, 0.3, 0.8, 0.1, 0.5, 0.7, 0.4, 0.6]}}
"""
RACE = JOB.replace("rounds: auto", "rounds: {method: race}")
GRID = JOB.replace("  rounds: auto\n", "")
TPE = """
name: rounds
seeds: 12
search:
  method: tpe
  num_variants: 26
  batch: 10
  rounds: auto
  confirm: {seeds: 4}
  parameters:
    training.learning_rate: {min: 1e-3, max: 1, distribution: log_uniform}
    training.batch_size: {values: [10, 20]}
"""
RUNGS = JOB.replace(
    "rounds: auto",
    "rounds: [{seeds: 2, epochs: 9, keep: 1/3}, {seeds: 4, epochs: 20, keep: 2}, {seeds: 12}]",
)
# The only trials that stop early: a learning rate and a seed, and their last epoch.
STOPS = {(0.2, 1): 5, (0.1, 0): 20}
TPE_RUNGS = TPE.replace(
    "rounds: auto",
    "rounds: [{seeds: 2, epochs: 9, keep: 1/3}, {seeds: 4, epochs: 20, keep: 2}, {seeds: 12}]",
)
# What JOB leads to.
LOG = ["choose 9 x 2", "choose 3 x 4", "choose 3 x 12", "confirm 2 x 4"]


class KilledError(Exception):
    pass


def result_of(trial, status="completed", pause_after=None):
    training = trial.variant.training
    rng = np.random.default_rng([trial.seed, round(10 * training.learning_rate)])
    luck = np.random.default_rng(trial.seed).normal()
    value = training.learning_rate + luck + rng.normal(scale=0.05)
    metrics = {} if status == "failed" else {"val_loss": value, "test_loss": value}
    last = STOPS.get((training.learning_rate, trial.seed), training.epochs)
    if status == "failed":
        last = 0
    if status == "completed" and pause_after is not None and pause_after < last:
        status, last = "paused", pause_after
        metrics = {"val_loss": value + rng.normal(scale=0.5) / pause_after}
    return TrialResult(trial, status, "fused", "p000", 0, epochs=last, metrics=metrics)


def _is_among(fails, trial, pause_after):
    """Whether a trial is named: by its seed, by variant and seed, or also by where it pauses."""
    name = (trial.variant.variant_id, trial.seed)
    return trial.seed in fails or name in fails or (*name, pause_after) in fails


class Driver:
    """A driver of a run that does all but train: what it trains is made up."""

    def __init__(self, folder: Path, job: str = JOB, **overrides):
        (folder / "job.yaml").write_text(job)
        self.folder = folder
        self.loaded = load_job(folder / "job.yaml", overrides)
        self.run = RunFolder(folder / "run")
        self.run.path.mkdir(exist_ok=True)
        if not self.run.job_file.exists():
            self.run.write_job(dump_job(self.loaded.spec))
        check_proposals(self.run, self.loaded)
        trials = planned_trials(self.loaded.spec, self.run.rounds.read())
        known = (*trials, *recorded_fresh_trials(self.run, trials))
        missing_trials(self.run, self.loaded, known)
        lease = SimpleNamespace(check=lambda: None)
        self.warnings = []
        progress = SimpleNamespace(tell=lambda text: None, warn=self.warnings.append)
        self.work = Work(
            self.loaded, trials, self.run, lease, progress, None, time.perf_counter(), {}, ()
        )

    def live(self, *, width=25, rng=None, chance=0.0, fails=(), is_killed_by_failures=False):
        """Trains until the rounds are over, or until it is killed; returns what was trained."""
        rng = rng or random.Random(0)
        kinds = column_kinds(self.work)
        trained = []
        for batch in Rounds(self.work).batches():
            first = self.run.next_pack_number()
            packs = list(
                pack_trials(
                    batch.trials, num_devices=1, max_trials_per_pack=width, first_number=first
                )
            )
            rng.shuffle(packs)
            for pack in packs:
                if rng.random() < chance:
                    raise KilledError
                results = [
                    result_of(
                        trial,
                        "failed" if _is_among(fails, trial, batch.pause_after) else "completed",
                        batch.pause_after,
                    )
                    for trial in pack.trials
                ]
                self.run.write_pack(PackResult(pack.pack_id, tuple(results)), kinds)
                trained += [trial.trial_id for trial in pack.trials]
                if is_killed_by_failures and any(one.status == "failed" for one in results):
                    raise KilledError
            if rng.random() < chance:  # after the round, before the next one is in the log
                raise KilledError
        return trained

    @property
    def log(self):
        return [
            f"{one.stage} {len(one.variants)} x {len(one.seeds)}" for one in self.run.rounds.read()
        ]

    @property
    def files(self):
        return {file.name: file.read_bytes() for file in sorted(self.run.rounds.path.iterdir())}
