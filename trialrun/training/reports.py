"""What the threads of an engine say while they train, brought to the one that listens."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any

_POLL_INTERVAL_S = 0.5


class Reports:
    """A queue from training threads to the engine, and a request to stop the other way.

    Args:
        should_stop: Asked now and then; once it says yes, `stopping` stays true.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._stopping = threading.Event()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def stopping(self) -> bool:
        """Whether threads are to end at their next epoch, leaving a checkpoint."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Asks threads to end at their next epoch."""
        self._stopping.set()

    def again(self) -> "Reports":
        """A new queue, for another engine, that is asked to stop by the same."""
        return Reports(self._should_stop)

    def put(self, report: Any) -> None:
        """Says something; called by threads."""
        self._queue.put(report)

    def drain(self, futures: Sequence[Future[Any]]) -> Generator[Any, None, None]:
        """Yields what threads say until all have ended; raises what one of them raised."""
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
            self._stopping.set()  # an error, or nobody listens: the others need not go on
            for future in futures:
                future.cancel()
