"""The system clock: whether it jumps, and how far the clocks of two nodes are apart.

trialrun does not measure or order anything by it. But names of run folders and times in logs come
from it, and SLURM's credentials are invalid if clocks differ by minutes.
"""

import time
from typing import NamedTuple

from trialrun.doctor.check import Check, ok, warning

_JUMP_S = 0.5
_APART_S = 2.0
_ADVICE = "let NTP (chrony) set it: names of runs and times in logs are wrong, SLURM may refuse"


class ClockSpan(NamedTuple):
    """When an examination or a question began and ended, by the system clock, in s since 1970."""

    began_s: float
    ended_s: float


class ClockWatch:
    """Compares the system clock with the monotonic clock from its creation on."""

    def __init__(self) -> None:
        self._began = time.time()
        self._monotonic = time.monotonic()

    def span(self) -> ClockSpan:
        """The time from the creation until now."""
        return ClockSpan(self._began, time.time())

    def check(self) -> Check:
        """Whether the system clock advanced as much as the monotonic one."""
        elapsed_s = time.monotonic() - self._monotonic
        return check_jump(elapsed_s, time.time() - self._began)


def check_jump(monotonic_s: float, wall_s: float) -> Check:
    """Whether two clocks measured the same time.

    Args:
        monotonic_s: Seconds by the monotonic clock, which cannot be set.
        wall_s: Seconds by the system clock, which can.
    """
    jump_s = wall_s - monotonic_s
    if abs(jump_s) > _JUMP_S:
        found = f"the system clock jumped by {jump_s:+.1f} s in {monotonic_s:.1f} s"
        return warning("clock", found, _ADVICE)
    return ok("clock", f"no jump within {monotonic_s:.1f} s")


def clock_offset(asked: ClockSpan, node: ClockSpan) -> float:
    """How many seconds a node's clock is at least ahead; negative if behind, 0 if they may agree.

    The node was examined at some time between question and answer, so only the smallest difference
    that fits is certain.

    Args:
        asked: Question and answer, by the clock of the machine that asked.
        node: The examination, by the node's clock.
    """
    lowest = node.ended_s - asked.ended_s
    highest = node.began_s - asked.began_s
    if lowest > 0:
        return lowest
    return min(highest, 0.0)


def check_offset(offset_s: float) -> Check:
    """Whether a node's clock agrees with that of the machine that asked.

    Args:
        offset_s: Seconds that the node's clock is ahead.
    """
    if abs(offset_s) > _APART_S:
        found = f"{offset_s:+.0f} s off the clock of the machine that asked"
        return warning("clock", found, _ADVICE)
    return ok("clock", "agrees with the clock of the machine that asked")
