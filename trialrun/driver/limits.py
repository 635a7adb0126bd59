"""Ends a run in good order that was told to stop through its folder, or whose time is over."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from trialrun.driver.interrupts import Interrupts
from trialrun.job import Duration
from trialrun.store.lease import Lease

_POLL_S = 2.0


class Deadline(NamedTuple):
    """When a command must begin to end.

    Attributes:
        text: Its longest time as the user wrote it.
        at_s: By the monotonic clock.
    """

    text: str
    at_s: float

    @classmethod
    def after(cls, max_time: Duration | None) -> Self | None:
        """The deadline of a command that begins now; None if it has all the time in the world."""
        if max_time is None:
            return None
        return cls(max_time.text, time.monotonic() + max_time.seconds)


@contextmanager
def limited(lease: Lease, interrupts: Interrupts, deadline: Deadline | None) -> Iterator[None]:
    """Interrupts the run, while the context lasts, when its driver is told to stop or out of time.

    Args:
        lease: The driver's, beside which requests to stop lie.
        interrupts: Is asked to end the run.
        deadline: When the time is over.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_poll_s(deadline)):
            if reason := _why_stop(lease, deadline):
                interrupts.ask(reason)
                return

    thread = threading.Thread(target=watch, name="limits", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # afterwards nothing handles the signal that it may send


def _poll_s(deadline: Deadline | None) -> float:
    left_s = _POLL_S if deadline is None else deadline.at_s - time.monotonic()
    return min(_POLL_S, max(0.0, left_s))


def _why_stop(lease: Lease, deadline: Deadline | None) -> str:
    """Why the run must end; empty if it may go on."""
    if deadline is not None and time.monotonic() >= deadline.at_s:
        return f"Interrupted after {deadline.text}, as --max-time says"
    if (host := lease.stop_request()) is not None:
        return f"Interrupted by `trialrun stop` on {host}"
    return ""
