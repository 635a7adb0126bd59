"""Arrays that a run keeps: states of its best trials, and checkpoints of packs in training."""

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trialrun.errors import TrialrunError
from trialrun.files import reading, replace_atomically
from trialrun.plan import Pack
from trialrun.records import checkpoint_arrays, checkpoint_from, part_name, state_arrays, state_from
from trialrun.results import Checkpoint, PackResult, TrialState


@dataclass(frozen=True, slots=True)
class KeptArrays:
    """The .npz files of a run folder.

    Attributes:
        path: The run folder.
    """

    path: Path

    @property
    def states_dir(self) -> Path:
        """The folder for states of each pack's best trials, one of which is the best model."""
        return self.path / "states"

    @property
    def checkpoints_dir(self) -> Path:
        """The folder for checkpoints of packs in training, one file per pack."""
        return self.path / "checkpoints"

    def files(self) -> Iterator[Path]:
        """All files of states and checkpoints."""
        yield from self.states_dir.glob("*.npz")
        yield from self.checkpoints_dir.glob("*.npz")

    def write_states(self, result: PackResult) -> None:
        """Keeps the states of a pack's best trials.

        Args:
            result: The result of the pack; nothing is written if it has no `best_states`.
        """
        if not result.best_states:
            return
        name = part_name(result.pack_id, result.trials[0].attempt) + ".npz"
        arrays = state_arrays(result.best_states.values())
        with replace_atomically(self.states_dir / name) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    def read_state(self, trial_id: str) -> TrialState:
        """The state of a trial that was the best of its variant in its pack.

        Raises:
            TrialrunError: No state of this trial was kept.
        """
        for path in sorted(self.states_dir.glob("part-*.npz"), reverse=True):
            with reading(path), np.load(path, allow_pickle=False) as arrays:
                if f"{trial_id}/seed" in arrays:
                    return state_from(arrays, trial_id)
        raise TrialrunError(f"{self.states_dir}: holds no state of trial {trial_id}")

    def has_state(self, trial_id: str) -> bool:
        """Whether the state of a trial is kept."""
        try:
            self.read_state(trial_id)
        except TrialrunError:
            return False
        return True

    def limit_states(self, max_bytes: int) -> None:
        """Removes all kept states if together they take more than `max_bytes`."""
        if sum(path.stat().st_size for path in self.states_dir.glob("*")) > max_bytes:
            shutil.rmtree(self.states_dir, ignore_errors=True)

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keeps a pack's checkpoint, replacing the one before."""
        path = self.checkpoints_dir / f"{checkpoint.pack_id}.npz"
        with replace_atomically(path) as temporary:
            np.savez(temporary, allow_pickle=False, **checkpoint_arrays(checkpoint))

    def read_checkpoint(self, pack: Pack) -> Checkpoint | None:
        """The checkpoint of a pack, with trials in the pack's order; None if there is none.

        Half of a pack (`p003a`) may continue from the checkpoint of the whole (`p003`), and so may
        the pack that a resumed run makes of its trials (`p003r`).
        """
        pack_id = pack.pack_id
        while pack_id:
            path = self.checkpoints_dir / f"{pack_id}.npz"
            if path.exists():
                return _read_checkpoint(path).of_trials([trial.trial_id for trial in pack.trials])
            if pack_id[-1].isdecimal():  # only letters are dropped: p1000 does not come from p100
                break
            pack_id = pack_id[:-1]
        return None

    def read_checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, sorted by the id of their pack."""
        return [_read_checkpoint(path) for path in sorted(self.checkpoints_dir.glob("*.npz"))]

    def remove_checkpoint(self, pack_id: str) -> None:
        """Removes the checkpoint of a pack, if there is one."""
        (self.checkpoints_dir / f"{pack_id}.npz").unlink(missing_ok=True)

    def remove_checkpoints(self) -> None:
        """Removes all checkpoints."""
        shutil.rmtree(self.checkpoints_dir, ignore_errors=True)


def verify_arrays(path: Path) -> None:
    """Reads an .npz file to its end and compares the checksums of the zip format.

    Raises:
        TrialrunError: The file is incomplete or damaged.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("a checksum is wrong")


def _read_checkpoint(path: Path) -> Checkpoint:
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        return checkpoint_from(arrays, path.stem)
