"""The live progress line of a run: trials done, trials per second, time left, best so far."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from trialrun.job import SelectSpec
from trialrun.trials.results import PackResult, Progress
from trialrun.trials.trial import Trial, is_part


class ProgressLine:
    """Shows the progress line, but only on a terminal; a context manager.

    Args:
        console: Where it is shown; standard error, so that standard output can be piped.
    """

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._line = self._bar.add_task("starting", total=None, rate="")
        self._epochs_of_pack: dict[str, int] = {}
        self._epochs_done = 0
        self._pause_after: int | None = None
        self._num_trials = self._epochs_per_trial = 0
        self._started = 0.0
        self._best: float | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, stage: str) -> None:
        """Shows what the run is doing."""
        self._bar.update(self._line, description=stage)

    def tell(self, text: str) -> None:
        """Prints a permanent line, whether on a terminal or not."""
        self._bar.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """Prints a permanent line that begins with `Warning:`."""
        self.tell(f"Warning: {text}")

    def start(
        self, trials: Sequence[Trial], select: SelectSpec, pause_after: int | None = None
    ) -> None:
        """Shows that the training of some trials begins."""
        self._select = select
        self._epochs_done = 0
        self._num_trials = len(trials)
        self._pause_after = pause_after
        self._num_epochs = sum(map(self._epochs_of, trials))
        self._started = time.monotonic()
        self._bar.update(self._line, description="training", total=len(trials), completed=0)

    def advance(self, progress: Progress) -> None:
        """Shows the progress that a pack has reported."""
        for whole in [
            pack_id for pack_id in self._epochs_of_pack if is_part(progress.pack_id, pack_id)
        ]:
            del self._epochs_of_pack[whole]  # the pack was halved; its halves report now
        self._epochs_of_pack[progress.pack_id] = progress.epochs_done
        if progress.best is not None:
            pick = max if self._select.goal == "maximize" else min
            self._best = progress.best if self._best is None else pick(self._best, progress.best)
        self._show()

    def finish(self, result: PackResult) -> None:
        """Shows that a pack has ended and its results are on disk."""
        self._epochs_of_pack.pop(result.pack_id, None)
        self._epochs_done += sum(self._epochs_of(r.trial) for r in result.trials)
        self._show()

    def _epochs_of(self, trial: Trial) -> int:
        in_all = trial.variant.training.epochs
        return in_all if self._pause_after is None else min(self._pause_after, in_all)

    def _show(self) -> None:
        share = (self._epochs_done + sum(self._epochs_of_pack.values())) / self._num_epochs
        elapsed_s = time.monotonic() - self._started
        rate = share * self._num_trials / elapsed_s
        left_s = elapsed_s * (1 - share) / share if share else 0.0
        best = "" if self._best is None else f"  best {self._select.metric} {self._best:.4f}"
        self._bar.update(
            self._line,
            completed=int(share * self._num_trials),
            rate=f"{rate:.1f} trials/s  {_minutes(left_s)} left{best}",
        )


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
