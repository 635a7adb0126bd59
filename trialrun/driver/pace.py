"""How fast a run goes, and how long the rest takes, with its spread."""

import itertools
import math
from typing import NamedTuple

_MAX_MARKS = 48
_FIRST_SPACING_S = 0.5
_LEAST_STEPS = 4  # of fewer, the spread says nothing
_NUM_ERRORS = 2.0  # standard errors of the rate: about 95% of a normal distribution


class TimeLeft(NamedTuple):
    """How long the rest takes, in seconds.

    Attributes:
        expected_s: At the rate so far.
        low_s, high_s: At rates two standard errors above and below; None if they are not known.
    """

    expected_s: float
    low_s: float | None
    high_s: float | None


class Pace:
    """The rate at which something grows, from marks of how much there was when.

    The rate is that of the later half of the time, because programs are compiled in the beginning.
    Its standard error comes from the rates between marks. When there are many marks, every second
    one is dropped, so that they always lie evenly over the whole time.

    Args:
        now_s: When it begins, by a clock that never jumps.
    """

    def __init__(self, now_s: float) -> None:
        self._marks = [(now_s, 0.0)]
        self._spacing_s = _FIRST_SPACING_S

    def mark(self, now_s: float, done: float) -> None:
        """Notes how much is done; most notes soon after another are ignored."""
        if now_s - self._marks[-1][0] < self._spacing_s:
            return
        self._marks.append((now_s, done))
        if len(self._marks) > _MAX_MARKS:
            self._marks = self._marks[::2]
            self._spacing_s *= 2

    def rate(self, now_s: float, done: float) -> float:
        """How much is done per second; 0 if nothing is known."""
        (begin_s, before), *_ = self._later_half(now_s)
        return max(0.0, (done - before) / (now_s - begin_s)) if now_s > begin_s else 0.0

    def left(self, now_s: float, done: float, total: float) -> TimeLeft | None:
        """How long the rest takes; None if nothing is done yet."""
        rate, rest = self.rate(now_s, done), max(0.0, total - done)
        if rate <= 0:
            return None
        expected_s = rest / rate
        error = self._standard_error(now_s)
        if error is None:
            return TimeLeft(expected_s, None, None)
        slow, fast = rate - _NUM_ERRORS * error, rate + _NUM_ERRORS * error
        return TimeLeft(expected_s, rest / fast, rest / slow if slow > 0 else None)

    def _later_half(self, now_s: float) -> list[tuple[float, float]]:
        begin_s = self._marks[0][0]
        middle_s = begin_s + (now_s - begin_s) / 2
        first = max(index for index, mark in enumerate(self._marks) if mark[0] <= middle_s)
        return self._marks[first:]

    def _standard_error(self, now_s: float) -> float | None:
        """The standard error of the rate, from the rates between marks of about equal distance."""
        marks = self._later_half(now_s)
        rates = [
            (after - before) / (end_s - begin_s)
            for (begin_s, before), (end_s, after) in itertools.pairwise(marks)
        ]
        if (count := len(rates)) < _LEAST_STEPS:
            return None
        mean = sum(rates) / count
        return math.sqrt(sum((rate - mean) ** 2 for rate in rates) / (count - 1) / count)
