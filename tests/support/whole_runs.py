"""Whole runs by a command of its own, and what they leave."""

from pathlib import Path
from typing import NamedTuple

from commands import Command, Finished

import trialrun


class FinishedRun(NamedTuple):
    """A run that ended, and what there is to know about it."""

    finished: Finished
    folder: Path
    home: Path
    survivors: dict[int, str]

    @property
    def api(self) -> trialrun.Run:
        return trialrun.open_run(self.folder)


def run_to_its_end(command: Command) -> FinishedRun:
    """Waits for a run, which is the only one beneath its home."""
    finished = command.finish()
    survivors = command.survivors()
    folders = list((command.home / "runs").glob("*/*"))
    assert len(folders) == 1, finished
    return FinishedRun(finished, folders[0], command.home, survivors)
