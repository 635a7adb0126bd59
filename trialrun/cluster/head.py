"""Noticing that a cluster's head is gone: Ray waits a minute for it, and then ends the process."""

import socket
import threading
from collections.abc import Callable

from trialrun.errors import ClusterLost

_POLL_S = 1.0
_TRIES = 3
_REACT_S = 5.0


class HeadWatch:
    """Looks every second whether the head takes connections; a context manager.

    Args:
        address: `host:port` of the head's control store.
        give_up: Called with the reason when `check` was not called in the seconds after the loss:
            the main thread waits inside Ray, which nothing can interrupt. Must end the process.
    """

    def __init__(self, address: str, give_up: Callable[[str], None]) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._give_up = give_up
        self._ended = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._watch, name="head", daemon=True)

    def __enter__(self) -> "HeadWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raises ClusterLost once the head has not answered a few times in a row."""
        if self._lost:
            self._ended.set()
            raise ClusterLost(self._lost)

    def _watch(self) -> None:
        num_failed = 0
        while num_failed < _TRIES:
            if self._ended.wait(_POLL_S):
                return
            try:
                socket.create_connection(self._address, timeout=_POLL_S).close()
                num_failed = 0
            except OSError as error:
                num_failed += 1
                host, port = self._address
                reason = f"Ray's head at {host}:{port} does not answer: {error}"
        self._lost = reason
        if not self._ended.wait(_REACT_S):
            self._give_up(reason)
