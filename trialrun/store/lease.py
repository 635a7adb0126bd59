"""A lease that allows only one driver per run folder; after a crash another driver can take it.

It is not a file lock, because these do not work on some network file systems. A lease is a file
with a number; a driver that wants the run makes the file with the next number, which only one can.
The holder writes a new heartbeat into its file every few seconds, and stops when it finds a higher
number than its own. Times of different machines are never compared, so that clocks may be wrong.
"""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialrun.errors import InputError, RunLost, TrialrunError
from trialrun.host import machine_id, process_started
from trialrun.messages import command_for, visible
from trialrun.store.files import read_small_json, write_json

_HEARTBEAT_S = 5.0
_SILENCE_S = 4 * _HEARTBEAT_S
_POLL_S = 0.5
_REQUEST_SUFFIX = ".stop"


class Lease:
    """The right to write into a run folder; see `hold`.

    Args:
        path: The file of the lease.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended = threading.Event()
        self._beat = 0
        self._thread = threading.Thread(target=self._keep_alive, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises RunLost if this driver has lost the run; called before results are written.

        Raises:
            RunLost: Another driver has taken over the run.
        """
        if (newest := _newest(self._path.parent)) != self._path:
            raise RunLost(
                f"{self._path.parent.parent}: another driver has taken over this run"
                f" ({_describe(_read(newest))}); this driver stops"
            )

    def stop_request(self) -> str | None:
        """Where this driver was asked to stop from, if it was; see `request_stop`.

        The folder is listed, because of a single file another machine may believe for a while that
        it does not exist.
        """
        request = _request_to(self._path)
        if request not in self._path.parent.glob(f"*{_REQUEST_SUFFIX}"):
            return None
        return str(_read(request).get("host", "an unknown machine"))

    def release(self) -> None:
        """Ends the lease, so that the next driver can begin without waiting."""
        self._ended.set()
        self._thread.join()
        if _newest(self._path.parent) == self._path:
            # An error because of a full disk must not hide why the run ended. Without this file the
            # next driver still finds that this process has ended.
            with suppress(TrialrunError):
                self._write(released=True)

    def _keep_alive(self) -> None:
        while not self._ended.wait(_HEARTBEAT_S):
            with suppress(TrialrunError):  # a full disk must not end the run
                self._write(released=False)

    def _write(self, *, released: bool) -> None:
        self._beat += 1
        write_json(self._path, _who() | {"beat": self._beat, "released": released})


@dataclass(frozen=True, slots=True)
class Holder:
    """The driver that holds a lease, or held it last, as its file tells.

    Attributes:
        host: Name of its machine.
        pid: Its process; None if it is not known.
        number: The number of the lease, which grows with each driver.
        beat: The number of its heartbeat.
        is_released: Whether it has given the lease back.
        lives_here: Whether its process lives; None if it is on another machine.
        written_s: When the heartbeat came, by the clock of the file system.
    """

    host: str
    pid: int | None
    number: int
    beat: int
    is_released: bool
    lives_here: bool | None
    written_s: float


def holder_of(folder: Path) -> Holder | None:
    """The holder of the newest lease in a folder; None if there is no lease."""
    if (path := _newest(folder)) is None:
        return None
    seen, lives_here, written_s = _read(path), None, 0.0
    with suppress(OSError):
        written_s = path.stat().st_mtime
    pid, beat, host = seen.get("pid"), seen.get("beat"), seen.get("host")
    if seen.get("machine") == machine_id() and isinstance(pid, int):
        lives_here = _lives(seen)
    return Holder(
        host=visible(host) if isinstance(host, str) else "an unknown machine",
        pid=pid if isinstance(pid, int) else None,
        number=int(path.stem),
        beat=beat if isinstance(beat, int) else 0,
        is_released=bool(seen.get("released")),
        lives_here=lives_here,
        written_s=written_s,
    )


@contextmanager
def hold(folder: Path, say: Any = lambda text: None) -> Iterator[Lease]:
    """Holds the lease in a folder as long as the context lasts.

    Args:
        folder: The folder of leases; it is made if it does not exist.
        say: Called with a message if taking the lease takes a while.

    Raises:
        InputError: Another driver that still runs holds it.
        TrialrunError: The folder cannot be written to.
    """
    lease = Lease(_take(folder, say))
    try:
        yield lease
    finally:
        lease.release()


def require_no_driver_here(folder: Path) -> None:
    """Refuses at once what `hold` would refuse, where no waiting is needed to know it.

    Raises:
        InputError: A driver that runs on this machine holds the lease in the folder.
    """
    holder = _newest(folder)
    if holder is not None and _read(holder).get("machine") == machine_id():
        _await_end_of(holder, lambda text: None)


def _take(folder: Path, say: Any) -> Path:
    holder = _newest(folder)
    if holder is not None:
        _await_end_of(holder, say)
    number = 1 if holder is None else int(holder.stem) + 1
    path = folder / f"{number:06d}.json"
    # The file is complete before it gets its name. `link` fails if the name exists, even on NFS.
    draft = folder / f".{secrets.token_hex(4)}"
    try:
        write_json(draft, _who() | {"beat": 0, "released": False})
        os.link(draft, path)
    except FileExistsError as error:
        raise InputError(
            f"{folder.parent}: another driver has just begun to work on this run"
            f" ({_describe(_read(path))}); wait until it ends, or stop it"
        ) from error
    except OSError as error:
        raise TrialrunError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            draft.unlink()
    for old in folder.glob("[0-9]*"):  # with what they were asked
        if old.stem < path.stem:
            old.unlink(missing_ok=True)
    return path


def _await_end_of(holder: Path, say: Any) -> None:
    """Returns when the holder has certainly ended; raises InputError if it still runs."""
    if (driver := _driver_of(holder, say)) is not None:
        raise InputError(
            f"{holder.parent.parent}: a driver is at work on this run ({_describe(driver)});"
            f" wait until it ends, or stop it: {command_for('stop', holder.parent.parent)}"
        )


def _driver_of(holder: Path, say: Any) -> dict[str, Any] | None:
    """What a lease says of the driver that holds it; None if that has certainly ended."""
    seen = _read(holder)
    if seen.get("released"):
        return None
    if seen.get("machine") == machine_id():
        return seen if _lives(seen) else None
    say(f"waiting up to {_SILENCE_S:g} s to see whether its driver still runs ({_describe(seen)})")
    deadline = time.monotonic() + _SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        newest = _newest(holder.parent)
        now = _read(holder)
        if now.get("released"):
            return None
        if newest != holder or now.get("beat") != seen.get("beat"):
            return now
    return None


def request_stop(folder: Path, say: Any = lambda text: None) -> str:
    """Asks the driver that holds the lease in a folder to end its run in good order.

    The request is a file beside its lease with the same number, so that no later driver minds it.
    To ask again changes nothing.

    Args:
        folder: The folder of leases.
        say: Called with a message if it takes a while to see whether that driver lives.

    Returns:
        Which process it is, in words.

    Raises:
        InputError: No driver is at work on the run.
        TrialrunError: The request cannot be written.
    """
    holder = _newest(folder)
    driver = None if holder is None else _driver_of(holder, say)
    if holder is None or driver is None:
        last = "" if holder is None else f"; the last was {_describe(_read(holder))}"
        raise InputError(f"{folder.parent}: no driver is at work on this run{last}")
    request = _request_to(holder)
    if not request.exists():
        write_json(request, _who())
    return _describe(driver)


def _request_to(lease: Path) -> Path:
    return lease.with_suffix(_REQUEST_SUFFIX)


def _newest(folder: Path) -> Path | None:
    leases = (path for path in folder.glob("[0-9]*.json") if path.stem.isdecimal())
    return max(leases, key=lambda path: int(path.stem), default=None)


def _read(path: Path | None) -> dict[str, Any]:
    """The content of a lease; empty if the file is missing or is not a lease."""
    return {} if path is None else read_small_json(path)


def _lives(content: dict[str, Any]) -> bool:
    """Whether the process that a lease of this machine names still runs."""
    pid = content.get("pid")
    started = process_started(pid) if isinstance(pid, int) else None
    return started is not None and started == content.get("started")


def _describe(content: dict[str, Any]) -> str:
    pid, host = content.get("pid", "?"), content.get("host", "an unknown machine")
    return visible(f"process {pid} on {host}")


def _who() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": os.uname().nodename,
        "machine": machine_id(),
        "pid": pid,
        "started": process_started(pid),
    }
