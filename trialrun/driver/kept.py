"""What an interrupted run has kept of the trials in training, and what it has not."""

from collections.abc import Iterator, Mapping, Sequence

from trialrun.messages import counted, listed
from trialrun.store.kept_arrays import KeptTrials
from trialrun.trials.results import PackResult, Progress
from trialrun.trials.trial import Pack, Trial, is_part

_MAX_PACKS_NAMED = 20


class InTraining:
    """The trials of a batch that have no result yet, and the packs that workers have begun."""

    def __init__(self) -> None:
        self.start(())

    def start(self, trials: Sequence[Trial]) -> None:
        """Notes that the training of some trials begins."""
        self._left = {trial.trial_id: trial for trial in trials}
        self._begun: dict[str, Pack] = {}
        self._heard: set[str] = set()
        self._answered: set[str] = set()

    def submit(self, pack: Pack) -> None:
        """Notes that a pack waits for a worker, again perhaps, or instead of one that it is of."""
        own = pack.pack_id
        self._begun = {
            name: one for name, one in self._begun.items() if own != name and not is_part(own, name)
        }

    def begin(self, pack: Pack) -> None:
        """Notes that a worker has begun a pack."""
        self._begun[pack.pack_id] = pack

    def hear(self, progress: Progress) -> None:
        """Notes that a pack has trained something."""
        self._heard.add(progress.pack_id)

    def keep(self, pack_id: str, *, is_stopping: bool) -> None:
        """Notes that a pack has left a checkpoint, perhaps because it was asked to stop."""
        self._heard.discard(pack_id)
        if is_stopping:
            self._answered.add(pack_id)

    def finish(self, result: PackResult) -> None:
        """Notes that the results of a pack are on disk."""
        for one in result.trials:
            self._left.pop(one.trial.trial_id, None)

    def account(self, checkpoints: Sequence[KeptTrials], grace_s: float | None) -> list[str]:
        """What is kept of the trials in training and what is not; empty if there are none.

        Args:
            checkpoints: All that are on disk.
            grace_s: How long packs were waited for; None if they were not.
        """
        left = dict(self._left)
        kept = dict(_kept(checkpoints, left))
        without = {name for name, pack in self._begun.items() if _take(left, pack)}
        in_training = without | (kept.keys() & self._begun.keys())
        late = in_training & self._heard if grace_s is None else in_training - self._answered
        lines = []
        if kept:
            texts = [f"{name}: {epochs}" for name, epochs in sorted(kept.items())]
            lines.append(f"Kept of trials in training: {listed(texts, max_names=_MAX_PACKS_NAMED)}")
        if lost := self._losses(kept, sorted(without | late)):
            why = ""
            if late and grace_s is not None:
                why = f". No checkpoint came within resources.grace_s ({grace_s:g} s)"
            lines.append(f"Not kept: {'; '.join(lost)}{why}")
        if left:
            lines.append(f"Not begun: {counted(len(left), 'trial')}")
        return lines

    def _losses(self, kept: Mapping[str, str], lost: Sequence[str]) -> list[str]:
        partly = [name for name in lost if name in kept]
        wholly = [name for name in lost if name not in kept and name in self._heard]
        barely = [name for name in lost if name not in kept and name not in self._heard]
        texts = (
            ("what {} trained after that", partly),
            ("all of {}", wholly),
            ("{}, where no epoch had ended", barely),
        )
        return [
            text.format(listed(names, max_names=_MAX_PACKS_NAMED)) for text, names in texts if names
        ]


def _kept(checkpoints: Sequence[KeptTrials], left: dict[str, Trial]) -> Iterator[tuple[str, str]]:
    """The packs with a checkpoint and their epochs; their trials are taken out of `left`.

    If there are checkpoints of a pack and of its half, the half's is the later one.
    """
    for one in sorted(checkpoints, key=lambda one: -len(one.pack_id)):
        epochs = {
            trial_id: epoch
            for trial_id, epoch in zip(one.trial_ids, one.epochs, strict=True)
            if trial_id in left
        }
        if any(epochs.values()):
            in_all = left[next(iter(epochs))].variant.training.epochs
            for trial_id in epochs:
                del left[trial_id]
            yield one.pack_id, _epochs_text(epochs, in_all)


def _epochs_text(epochs: Mapping[str, int], in_all: int) -> str:
    least, most = min(epochs.values()), max(epochs.values())
    done = f"epoch {most}" if least == most else f"epochs {least} to {most}"
    return f"{done} of {in_all}"


def _take(left: dict[str, Trial], pack: Pack) -> bool:
    """Takes the trials of a pack out of those that are left; whether there were any."""
    taken = [left.pop(trial.trial_id, None) for trial in pack.trials]
    return any(trial is not None for trial in taken)
