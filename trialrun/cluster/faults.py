"""Rules for a pack that could not be trained: try again, try in halves, or give up.

A fault may come from the cluster, from the pack's size, or from one bad trial among good ones. The
rules find out by trying: a pack that is not to blame completes elsewhere, a pack that is too large
fits in halves, and a trial that always fails ends up alone in a pack, where it is reported.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from trialrun.trials.packing import split_by, take_apart
from trialrun.trials.signature import NumberPath
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack, Trial

Fault = Literal["worker", "node", "memory", "share", "error", "model"]
"""What happened to a pack.

- `worker`: its process died or sent no heartbeat. A trial may be the cause.
- `node`: the machine is gone. No trial is the cause.
- `memory`: it does not fit into memory.
- `share`: its trials differ in a number that no program can take as an input.
- `error`: user code or a library raised. One of its trials may be the cause.
- `model`: something that all its trials share is wrong.
"""

# After its worker died, a pack is tried this often as a whole before it is halved.
_TRIES_AS_A_WHOLE = 1


class FaultRules:
    """Decides what happens to a failed pack, and learns from the failure for later packs.

    It remembers for the rest of the run how many trials fit into memory, and which cannot share a
    program.

    Args:
        max_retries: How often a pack is tried again, if it has one trial or the fault is the
            cluster's. Halving is not limited, because it ends by itself; each half is a new pack
            with as many retries.
    """

    def __init__(self, max_retries: int) -> None:
        self._max_retries = max_retries
        self._max_trials: dict[str, int] = {}  # by signature
        # Signature whose trials cannot share a program -> the numbers that prevent it.
        self._not_shared: dict[str, frozenset[NumberPath]] = {}
        self._num_faults: Counter[str] = Counter()  # by pack_id

    def answer(
        self,
        task: PackTask,
        fault: Fault,
        max_trials: int | None = None,
        paths: Collection[NumberPath] = (),
    ) -> tuple[PackTask, ...]:
        """The tasks that replace one that failed; none if it is given up.

        Args:
            task: The pack.
            fault: What happened to it.
            max_trials: How many trials would have fitted into memory, if that is known.
            paths: The numbers that no program can take as inputs, if they are known.
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
        """The task, split into smaller ones if earlier faults have shown that it must be."""
        if (paths := self._not_shared.get(task.pack.signature)) is not None:
            sharing = _with_packs(task, split_by(task.pack, paths))
            return tuple(fitting for smaller in sharing for fitting in self.fit(smaller))
        limit = self._max_trials.get(task.pack.signature)
        if limit is None or len(task.pack.trials) <= limit:
            return (task,)
        return tuple(fitting for half in halves(task, tried=False) for fitting in self.fit(half))


def _with_packs(task: PackTask, packs: Sequence[Pack]) -> tuple[PackTask, ...]:
    """One task for each of the packs that a task's pack was split into."""
    return tuple(replace(task, pack=pack, checkpoint=None) for pack in packs)


def halves(task: PackTask, *, tried: bool = True) -> tuple[PackTask, PackTask]:
    """Two packs of half the trials: `p003` becomes `p003a` and `p003b`.

    Args:
        task: A pack of at least two trials.
        tried: Whether the pack has been tried, so that its halves count as another attempt.
    """
    trials = task.pack.trials
    middle = (len(trials) + 1) // 2

    def half(letter: str, trials: tuple[Trial, ...]) -> PackTask:
        pack = replace(task.pack, pack_id=task.pack.pack_id + letter, trials=trials)
        # A width that did not fit must not stay.
        return replace(task, pack=pack, width=None, attempt=task.attempt + tried, checkpoint=None)

    return half("a", trials[:middle]), half("b", trials[middle:])
