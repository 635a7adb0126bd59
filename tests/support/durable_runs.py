"""Runs that are broken on purpose, and what must be true of them in the end."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import Command

JOB = """
name: durable
training: {epochs: 5, checkpoint_every: 1, metrics: []}
seeds: 6
search: {parameters: {training.learning_rate: {values: [0.1, 0.2]}}}
resources: {max_trials_per_pack: 2, grace_s: 10}
"""
PROGRAM = str(Path(__file__).parent / "made_up_driver.py")


class DurableRun:
    """One job in a folder of its own, run and resumed by commands."""

    def __init__(self, home: Path, job: str = JOB) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        (home / "job.yaml").write_text(job)

    @property
    def folder(self) -> Path:
        [folder] = (self.home / "runs").glob("*/*/")
        return folder

    def begin(
        self,
        address: str = "local",
        options: Sequence[object] = (),
        wrapper: Sequence[str] = (),
        terminal: int | None = None,
        **environment: str,
    ) -> Command:
        arguments = ["run", self.home / "job.yaml", "--runs-dir", self.home / "runs", *options]
        arguments += ["--address", address]
        return self._command(*arguments, wrapper=wrapper, terminal=terminal, **environment)

    def merge(self, *runs: Path, folder: Path) -> Command:
        return self._command("merge", *runs, "--run-folder", folder)

    def resume(self, address: str = "local", **environment: str) -> Command:
        return self._command("resume", self.folder, "--address", address, **environment)

    def _command(
        self,
        *arguments: object,
        wrapper: Sequence[str] = (),
        terminal: int | None = None,
        **environment: str,
    ) -> Command:
        if arguments[0] != "merge" and "RAY_AUTH_TOKEN" not in environment:
            arguments += ("--allow-open-head",)  # the Ray of `ray_nodes` asks for no token
        program = (PROGRAM, str(self.home / "driver.pid"))
        return Command(
            self.home,
            *arguments,
            program=program,
            environment=environment,
            wrapper=wrapper,
            terminal=terminal,
            is_warm=not wrapper
            and terminal is None
            and not any(name.startswith("RAY_") for name in environment),
        )

    def has_reached(self, moment: str) -> bool:
        pattern = {
            "before the first pack": "environment.json",
            "while packs run": "checkpoints/*.npz",
            "while results are written": "trials/part-*.parquet",
            "while the model is saved": "best/begun",
        }[moment]
        return any((self.home / "runs").glob(f"*/*/{pattern}"))

    def assert_whole(self) -> None:
        """See `assert_run_is_whole`."""
        assert_run_is_whole(self.folder)


def assert_run_is_whole(folder: Path) -> None:
    """Every trial once, no part torn, and the numbers of an undisturbed run."""
    parts = [pq.read_table(part).to_pandas() for part in (folder / "trials").iterdir()]
    trials = pd.concat(parts)
    assert len(trials) == 12
    assert trials["trial_id"].is_unique
    assert set(trials["status"]) == {"completed"}
    history = pd.concat(pq.read_table(part).to_pandas() for part in (folder / "history").iterdir())
    assert len(history[history["trial_id"].isin(trials["trial_id"])]) >= 12 * 5
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["selection"]["seed"] == 5
    assert summary["selection"]["parameters"] == {"training.learning_rate": 0.1}
    losses = [1 / (1 + seed) + 0.1 + 5 / 1000 for seed in range(6)]
    assert summary["selection"]["mean"] == pytest.approx(sum(losses) / 6, rel=1e-12)
    assert summary["counts"]["completed"] == 12
    assert json.loads((folder / "best" / "model.txt").read_text())[1]["test_loss"] == min(losses)
    assert (folder / "report.html").exists()
    assert not (folder / "checkpoints").exists()
    assert not (folder / "set_aside").exists()
