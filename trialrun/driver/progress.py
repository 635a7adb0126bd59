"""What a run shows while it goes on: a live line on a terminal, else a line now and then."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from trialrun.driver.course import Course
from trialrun.job import SelectSpec
from trialrun.messages import counted, visible
from trialrun.report.format import clock_text, left_text, rate_text
from trialrun.trials.results import PackResult, Progress
from trialrun.trials.trial import Trial

# Without a terminal: how often a line tells how far the run is, and how often one tells of packs.
_LINE_EVERY_S = 60.0
_PACKS_EVERY_S = 1.0


class ProgressLine:
    """Shows the course of a run; a context manager.

    On a terminal that is one live line. Elsewhere it is a line per pack that has ended (one for
    several, if they end within a second), and one a minute.

    Args:
        console: Where it is shown; standard error, so that standard output can be piped.

    Attributes:
        course: What the run has come to.
    """

    def __init__(self, console: Console) -> None:
        self.course = Course()
        self._is_live = console.is_terminal
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=console,
            transient=True,
            disable=not self._is_live,
        )
        self._line = self._bar.add_task("starting", total=None, rate="")
        self._lock = threading.Lock()  # `tick` is called by another thread
        self._told_s = time.monotonic()
        self._untold: list[str] = []  # packs that have ended since the last line
        self._untold_statuses: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.tell_of_packs()
        self._bar.stop()

    def say(self, stage: str) -> None:
        """Shows what the run is doing; it prints no line, because a handler of signals calls it."""
        self.course.enter(stage)
        self._bar.update(self._line, description=stage)

    def tell(self, text: str) -> None:
        """Prints a permanent line, whether on a terminal or not."""
        self.tell_of_packs()
        self._print(text)

    def _print(self, text: str) -> None:
        self._bar.console.print(visible(text), soft_wrap=True, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """Prints a permanent line that begins with `Warning:`."""
        self.tell(f"Warning: {text}")

    def start(
        self,
        trials: Sequence[Trial],
        select: SelectSpec,
        pause_after: int | None = None,
        *,
        num_packs: int = 0,
        round_number: int | None = None,
    ) -> None:
        """Shows that the training of some trials begins."""
        self.course.begin(
            trials, select, pause_after=pause_after, num_packs=num_packs, round_number=round_number
        )
        self._bar.update(self._line, description=self.course.stage)
        self._show()

    def advance(self, progress: Progress) -> None:
        """Shows the progress that a pack has reported."""
        self.course.advance(progress)
        self._show()

    def finish(self, result: PackResult) -> None:
        """Shows that a pack has ended and its results are on disk."""
        self.course.finish(result)
        self._show()
        if self._is_live:
            return
        with self._lock:
            self._untold.append(result.pack_id)
            self._untold_statuses.update(one.status for one in result.trials)
        self.tell_of_packs(_PACKS_EVERY_S)

    def tick(self) -> None:
        """Prints what is due where there is no terminal; called every few seconds."""
        if self._is_live:
            return
        self.tell_of_packs(_PACKS_EVERY_S)
        if time.monotonic() - self._told_s >= _LINE_EVERY_S:
            self._told_s = time.monotonic()
            stage, lasted = self.course.stage, clock_text(self.course.stage_s)
            self._print(f"{stage} ({lasted}): {self._far()}")

    def tell_of_packs(self, after_s: float = 0.0) -> None:
        """Prints which packs have ended since the last line, if that was so many seconds ago."""
        with self._lock:
            now_s = time.monotonic()
            if not self._untold or now_s - self._told_s < after_s:
                return
            packs, self._untold = self._untold, []
            statuses, self._untold_statuses = self._untold_statuses, Counter()
            self._told_s = now_s
        who = f"{packs[0]} has"
        if num_more := len(packs) - 1:
            who = f"{packs[0]} and {counted(num_more, 'more pack')} have"
        ended = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
        self._print(f"{who} ended: {ended}. {self._far()}")

    def _far(self) -> str:
        """How far the run is, in one line."""
        course = self.course
        parts = [f"{course.num_trials_done:,} of {counted(course.num_trials, 'trial')}"]
        if course.num_running:
            parts.append(f"{counted(course.num_running, 'pack')} in training")
        return ", ".join(filter(None, [*parts, self._rate()]))

    def _rate(self) -> str:
        rate, left = self.course.rate()
        best = self.course.best
        parts = [] if left is None else [rate_text(rate), left_text(left)]
        parts += [] if best is None else [f"best {self.course.metric} {best:.4f}"]
        return ", ".join(parts)

    def _show(self) -> None:
        if self._is_live:
            self._bar.update(
                self._line,
                total=self.course.num_trials,
                completed=self.course.num_trials_done,
                rate=self._rate(),
            )
