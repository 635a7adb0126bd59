"""Notices early that Ray is gone; Ray itself waits a minute for its head, then ends the process."""

import socket
import threading
from collections.abc import Callable, Mapping

from trialrun.errors import ClusterLost
from trialrun.messages import said_by

_POLL_S = 1.0
_TRIES = 3
_REACT_S = 5.0


class HeadWatch:
    """Checks every second whether Ray's head and its node on this machine answer.

    It is a context manager, which watches in a thread while it is entered.

    Args:
        addresses: Name for messages -> `host:port`.
        give_up: Called with the reason if `check` is not called within a few seconds after the
            loss, because the main thread then waits inside Ray, where nothing can interrupt it.
            Must end the process.
    """

    def __init__(self, addresses: Mapping[str, str], give_up: Callable[[str], None]) -> None:
        self._addresses = addresses
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
        """Raises ClusterLost once an address has not answered several times in a row."""
        if self._lost:
            self._ended.set()
            raise ClusterLost(self._lost)

    def _watch(self) -> None:
        num_failed = dict.fromkeys(self._addresses, 0)
        while not self._ended.wait(_POLL_S):
            for name, address in self._addresses.items():
                reason = _why_unreachable(address)
                num_failed[name] = num_failed[name] + 1 if reason else 0
                if num_failed[name] == _TRIES:
                    self._lost = f"{name} at {address} does not answer: {reason}"
                    if not self._ended.wait(_REACT_S):
                        self._give_up(self._lost)
                    return


def _why_unreachable(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_POLL_S).close()
    except OSError as error:
        return said_by(error)
    return ""
