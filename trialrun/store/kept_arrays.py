"""Arrays that a run keeps: states of its best trials, and checkpoints of packs in training."""

import shutil
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.errors import TrialrunError
from trialrun.store.columns import pack_file_name
from trialrun.store.files import reading, replace_atomically
from trialrun.trials.results import STATE_GROUPS, Checkpoint, PackResult, TrialState
from trialrun.trials.trial import Pack


class KeptTrials(NamedTuple):
    """The trials of a checkpoint.

    Attributes:
        pack_id: The pack.
        trial_ids: Ids of its trials.
        epochs: How many epochs each of them was trained.
    """

    pack_id: str
    trial_ids: tuple[str, ...]
    epochs: tuple[int, ...]


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
        name = pack_file_name(result.pack_id, result.trials[0].attempt) + ".npz"
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
        trial_ids = [trial.trial_id for trial in pack.trials]
        for path in self._checkpoints_of(pack.pack_id):
            if not set(trial_ids).isdisjoint(_kept_trials(path).trial_ids):
                return _read_checkpoint(path).of_trials(trial_ids)
        return None

    def _checkpoints_of(self, pack_id: str) -> Iterator[Path]:
        """The checkpoints of a pack and of those that it was made from, the latest first."""
        while pack_id:
            path = self.checkpoints_dir / f"{pack_id}.npz"
            if path.exists():
                yield path
            if pack_id[-1].isdecimal():  # only letters are dropped: p1000 does not come from p100
                return
            pack_id = pack_id[:-1]

    def trials_of_checkpoints(self) -> list[KeptTrials]:
        """The trials of all checkpoints, sorted by the id of their pack."""
        return [_kept_trials(path) for path in sorted(self.checkpoints_dir.glob("*.npz"))]

    def forget_trials(self, trial_ids: Collection[str]) -> None:
        """Removes trials from all checkpoints: they will not go on."""
        for path in sorted(self.checkpoints_dir.glob("*.npz")):
            _forget(path, trial_ids)

    def forget_older(self, result: PackResult) -> None:
        """Removes the states that the trials of a pack have left behind.

        The state of a paused trial stays in the pack's own checkpoint, and that of a failed one
        where it is: it may be tried again.
        """
        own = self.checkpoints_dir / f"{result.pack_id}.npz"
        ended = {t.trial.trial_id for t in result.trials if t.status in ("completed", "diverged")}
        paused = {t.trial.trial_id for t in result.trials if t.status == "paused"}
        for path in list(self._checkpoints_of(result.pack_id)):
            _forget(path, ended if path == own else ended | paused)

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


def _kept_trials(path: Path) -> KeptTrials:
    with reading(path), np.load(path, allow_pickle=False) as arrays:  # reads no other array
        ids, epochs = arrays["trial_ids"].tolist(), arrays["epochs"].tolist()
    return KeptTrials(path.stem, tuple(ids), tuple(epochs))


def _forget(path: Path, trial_ids: Collection[str]) -> None:
    before = _kept_trials(path).trial_ids
    left = [trial_id for trial_id in before if trial_id not in trial_ids]
    if not left:
        path.unlink()
    elif len(left) < len(before):
        fewer = _read_checkpoint(path).of_trials(left)
        with replace_atomically(path) as temporary:
            np.savez(temporary, allow_pickle=False, **checkpoint_arrays(fewer))


def state_arrays(states: Iterable[TrialState]) -> dict[str, npt.NDArray[Any]]:
    """The states of trials as arrays named `<trial_id>/<group>/<number>`, for one .npz file."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for state in states:
        arrays[f"{state.trial_id}/seed"] = np.array(state.seed)
        groups = {name: getattr(state, name) for name in STATE_GROUPS}
        for name, values in {**groups, "test_predictions": (state.test_predictions,)}.items():
            prefix = f"{state.trial_id}/{name}"
            arrays |= _group_arrays(prefix, values)
    return arrays


def _group_arrays(prefix: str, values: Sequence[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    # NumPy's format loses extension types such as bfloat16, so that their names are stored too.
    dtypes = np.array([value.dtype.name for value in values], np.str_)
    numbered = {f"{prefix}/{number}": value for number, value in enumerate(values)}
    return {f"{prefix}/dtypes": dtypes, **numbered}


def _group_from(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> tuple[Any, ...]:
    return tuple(
        _with_dtype(arrays[f"{prefix}/{number}"], str(dtype))
        for number, dtype in enumerate(arrays[f"{prefix}/dtypes"])
    )


def state_from(arrays: Mapping[str, npt.NDArray[Any]], trial_id: str) -> TrialState:
    """The state of one trial from the arrays that `state_arrays` made."""
    (test_predictions,) = _group_from(arrays, f"{trial_id}/test_predictions")
    return TrialState(
        trial_id=trial_id,
        seed=int(arrays[f"{trial_id}/seed"]),
        test_predictions=test_predictions,
        **{name: _group_from(arrays, f"{trial_id}/{name}") for name in STATE_GROUPS},
    )


def checkpoint_arrays(checkpoint: Checkpoint) -> dict[str, npt.NDArray[Any]]:
    """A checkpoint as named arrays, for one .npz file."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "trial_ids": np.array(checkpoint.trial_ids, np.str_),
        "epochs": checkpoint.epochs,
        "engine": np.array(checkpoint.engine),
    }
    arrays |= {f"history/{name}": values for name, values in checkpoint.history.items()}
    for name in (*STATE_GROUPS, "best"):
        arrays |= _group_arrays(name, getattr(checkpoint, name))
    return arrays if checkpoint.ended is None else arrays | {"ended": checkpoint.ended}


def checkpoint_from(arrays: Mapping[str, npt.NDArray[Any]], pack_id: str) -> Checkpoint:
    """The checkpoint from the arrays that `checkpoint_arrays` made."""
    logs = [name for name in arrays if name.startswith("history/")]
    return Checkpoint(
        pack_id=pack_id,
        trial_ids=tuple(arrays["trial_ids"].tolist()),
        epochs=arrays["epochs"],
        history={name.removeprefix("history/"): arrays[name] for name in logs},
        **{name: _group_from(arrays, name) for name in STATE_GROUPS},
        best=_group_from(arrays, "best") if "best/dtypes" in arrays else (),
        ended=arrays.get("ended"),
        engine=str(arrays.get("engine", "")),
    )


def _with_dtype(array: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    if array.dtype.kind != "V":
        return array
    import ml_dtypes  # a dependency of Keras with bfloat16 and similar types

    return array.view(getattr(ml_dtypes, dtype))
