"""Brings what an engine's training threads report to the thread that waits for it."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any

_POLL_INTERVAL_S = 0.5


class Reports:
    """A queue of reports from training threads, and a request to stop in the other direction.

    Args:
        should_stop: Asked regularly; once it returns True, `stopping` stays true.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._stopping = threading.Event()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def stopping(self) -> bool:
        """Whether threads must end after their current epoch, leaving a checkpoint."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Asks threads to end after their current epoch."""
        self._stopping.set()

    def again(self) -> "Reports":
        """A new queue for another engine, with the same `should_stop`."""
        return Reports(self._should_stop)

    def put(self, report: Any) -> None:
        """Adds a report to the queue; called by threads."""
        self._queue.put(report)

    def drain(self, futures: Sequence[Future[Any]]) -> Generator[Any, None, None]:
        """Yields the threads' reports until all threads have ended; raises what one of them raised.

        Args:
            futures: One per thread.
        """
        for future in futures:
            future.add_done_callback(self._queue.put)
        num_running = len(futures)
        try:
            while num_running:
                if not self._stopping.is_set() and self._should_stop():
                    self._stopping.set()
                try:
                    report = self._queue.get(timeout=_POLL_INTERVAL_S)
                except queue.Empty:
                    continue
                if isinstance(report, Future):
                    num_running -= 1
                    report.result()
                else:
                    yield report
        finally:
            self._stopping.set()  # after an error, or if nobody reads on, the others need not go on
            for future in futures:
                future.cancel()
