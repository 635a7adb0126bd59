"""What follows when a pack could not be trained: once more, in halves, or not at all. Pure rules.

A fault may be the cluster's, the pack's size, or one poisonous trial among good ones. The rules
find out by trying: what fails for no reason of its own completes elsewhere, what is too large fits
in halves, and a trial that always fails ends up alone in a pack, where it is reported.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from trialrun.identity import NumberPath
from trialrun.plan import Pack, Trial, split_by, take_apart
from trialrun.training import PackTask

Fault = Literal["worker", "node", "memory", "share", "error", "model"]
"""What happened to a pack.

- `worker`: its process died or gave no sign of life. Perhaps a trial's doing.
- `node`: the machine is gone. No trial's doing.
- `memory`: it does not fit into memory.
- `share`: its trials differ in a number that no program can be given.
- `error`: user code or a library raised. Perhaps one trial's doing.
- `model`: what all its trials share is wrong.
"""

# A worker that dies is given one chance as a whole, before its pack is suspected.
_TRIES_AS_A_WHOLE = 1


class FaultRules:
    """Decides, and remembers for the rest of the run how many trials fit, and which cannot share.

    Args:
        max_retries: How often a pack is tried again at most, when it is one trial or the fault is
            the cluster's. Halving a pack is never limited, it ends by itself; the halves are packs
            of their own, with as many retries.
    """

    def __init__(self, max_retries: int) -> None:
        self._max_retries = max_retries
        self._max_trials: dict[str, int] = {}  # by signature
        # Of signatures whose trials share no program: the numbers that stand in the way.
        self._not_shared: dict[str, frozenset[NumberPath]] = {}
        self._num_faults: Counter[str] = Counter()  # by pack_id

    def answer(
        self,
        task: PackTask,
        fault: Fault,
        max_trials: int | None = None,
        paths: Collection[NumberPath] = (),
    ) -> tuple[PackTask, ...]:
        """The tasks that take the place of one that failed; none to give it up.

        Args:
            task: The pack.
            fault: What happened to it.
            max_trials: How many trials would have fitted into memory, if that is known.
            paths: The numbers that no program can be given, if they are known.
        """
        num_trials = len(task.pack.trials)
        can_retry = self._num_faults[task.pack.pack_id] < self._max_retries
        self._num_faults[task.pack.pack_id] += 1
        again = (replace(task, attempt=task.attempt + 1, checkpoint=None),)
        if fault == "memory" and num_trials > 1:
            fits = self._max_trials.get(task.pack.signature, num_trials)
            self._max_trials[task.pack.signature] = min(fits, max_trials or -(-num_trials // 2))
            return halves(task)
        if fault == "share":
            packs, by = take_apart(task.pack, paths)
            if len(packs) == 1:
                return ()
            self._not_shared[task.pack.signature] = by
            return _with_packs(task, packs)
        if fault == "error":
            return halves(task) if num_trials > 1 else ()
        if fault == "worker" and num_trials > 1:
            is_suspect = task.attempt >= min(_TRIES_AS_A_WHOLE, self._max_retries)
            return halves(task) if is_suspect else again
        return again if can_retry and fault != "model" else ()

    def fit(self, task: PackTask) -> tuple[PackTask, ...]:
        """The task in pieces that are known to do; itself if it may do."""
        if (paths := self._not_shared.get(task.pack.signature)) is not None:
            parts = _with_packs(task, split_by(task.pack, paths))
            return tuple(piece for part in parts for piece in self.fit(part))
        limit = self._max_trials.get(task.pack.signature)
        if limit is None or len(task.pack.trials) <= limit:
            return (task,)
        return tuple(piece for half in halves(task, tried=False) for piece in self.fit(half))


def _with_packs(task: PackTask, packs: Sequence[Pack]) -> tuple[PackTask, ...]:
    """A task for each part of a task's pack."""
    return tuple(replace(task, pack=pack, checkpoint=None) for pack in packs)


def halves(task: PackTask, *, tried: bool = True) -> tuple[PackTask, PackTask]:
    """Two packs of half the trials: `p003` becomes `p003a` and `p003b`.

    Args:
        task: A pack of at least two trials.
        tried: Whether it has been tried, and its halves are another attempt.
    """
    trials = task.pack.trials
    middle = (len(trials) + 1) // 2

    def part(letter: str, trials: tuple[Trial, ...]) -> PackTask:
        pack = replace(task.pack, pack_id=task.pack.pack_id + letter, trials=trials)
        return replace(task, pack=pack, attempt=task.attempt + tried, checkpoint=None)

    return part("a", trials[:middle]), part("b", trials[middle:])
