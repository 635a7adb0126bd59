"""The clock of the wall: whether it jumps, and how far those of two nodes lie apart.

Nothing in trialrun measures or orders by it; names of run folders and times in logs come from it,
and SLURM's credentials are void when clocks differ by minutes.
"""

import time
from typing import NamedTuple

from trialrun.doctor.check import Check, ok, warning

_JUMP_S = 0.5
_APART_S = 2.0
_ADVICE = "let NTP (chrony) set it: names of runs and times in logs are wrong, SLURM may refuse"


class ClockSpan(NamedTuple):
    """When somebody began to look or to ask, and when it ended, by the clock of the wall, in s."""

    began_s: float
    ended_s: float


class ClockWatch:
    """Compares the clock of the wall with the monotonic one from now on."""

    def __init__(self) -> None:
        self._began = time.time()
        self._monotonic = time.monotonic()

    def span(self) -> ClockSpan:
        """From the beginning until now."""
        return ClockSpan(self._began, time.time())

    def check(self) -> Check:
        """Whether the clock of the wall went as the other did."""
        elapsed_s = time.monotonic() - self._monotonic
        return check_jump(elapsed_s, time.time() - self._began)


def check_jump(monotonic_s: float, wall_s: float) -> Check:
    """Whether two clocks measured the same time.

    Args:
        monotonic_s: By the clock that cannot be set.
        wall_s: By the clock that can.
    """
    jump_s = wall_s - monotonic_s
    if abs(jump_s) > _JUMP_S:
        found = f"the clock of the wall jumped by {jump_s:+.1f} s in {monotonic_s:.1f} s"
        return warning("clock", found, _ADVICE)
    return ok("clock", f"no jump within {monotonic_s:.1f} s")


def clock_offset(asked: ClockSpan, node: ClockSpan) -> float:
    """How many seconds a node's clock is ahead for certain; 0 if the clocks may agree.

    The node looked at some time between question and answer. The least distance that fits is given.

    Args:
        asked: Question and answer, by the clock of who asked.
        node: By the node's clock.
    """
    lowest = node.ended_s - asked.ended_s
    highest = node.began_s - asked.began_s
    if lowest > 0:
        return lowest
    return min(highest, 0.0)


def check_offset(offset_s: float) -> Check:
    """Whether a node's clock is that of who asked.

    Args:
        offset_s: Seconds that it is ahead.
    """
    if abs(offset_s) > _APART_S:
        return warning("clock", f"{offset_s:+.0f} s from the clock of who asked", _ADVICE)
    return ok("clock", "agrees with the clock of who asked")
