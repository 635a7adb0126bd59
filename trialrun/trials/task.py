"""A pack and all that a worker needs to train it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trialrun.data.fingerprint import DataSample
from trialrun.job import SelectSpec
from trialrun.job.user_code.files import UserFiles
from trialrun.trials.results import Checkpoint, TrialResult
from trialrun.trials.trial import Pack, Trial


@dataclass(frozen=True, slots=True)
class PackTask:
    """A pack and everything that a worker needs to train it.

    Attributes:
        pack: The trials to train.
        job_folder: The folder that the paths of the user's files are relative to.
        select: Decides which of a variant's trials is kept as its best.
        num_threads: CPU threads that train slices of the pack side by side; 1 on a GPU.
        width: How many trials a compiled program trains at a time, whatever the size of the pack;
            None for the pack's own size.
        attempt: 0 for the first try.
        files: The user's files, for machines that lack them.
        samples: What generators gave where the run was started.
        variables: Environment variables that the user's code reads.
        is_continued: Whether trials of the run were trained before.
        checkpoint: The state of the pack's trials, in the pack's order; None to start from epoch 0.
        progress_interval_s: Least number of seconds between two heartbeats.
        pause_after: The epoch after which trials that have not ended are paused; None to train
            them to their end.
        keeps_output: Whether what its process writes is kept even if no trial fails.
        pauses: All epochs after which trials of the run may be paused, so that one program serves
            all of its packs.
    """

    pack: Pack
    job_folder: Path
    select: SelectSpec
    num_threads: int = 1
    width: int | None = None
    attempt: int = 0
    files: UserFiles = field(default_factory=UserFiles)
    samples: tuple[DataSample, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    is_continued: bool = False
    checkpoint: Checkpoint | None = None
    progress_interval_s: float = 0.2
    pause_after: int | None = None
    keeps_output: bool = False
    pauses: tuple[int, ...] = ()

    @property
    def last_epoch(self) -> int:
        """The epoch after which the pack's trials are paused or end."""
        in_all = self.pack.trials[0].variant.training.epochs
        return in_all if self.pause_after is None else min(self.pause_after, in_all)

    def failed(self, trial: Trial, error: str) -> TrialResult:
        """The result of a trial of the pack that was not trained, for the reason in `error`."""
        return TrialResult(
            trial=trial,
            status="failed",
            engine="",
            pack_id=self.pack.pack_id,
            attempt=self.attempt,
            error=error,
        )
