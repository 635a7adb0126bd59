"""Ctrl-C and signals of schedulers: the first asks a run to stop, the second ends it at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from trialrun.errors import EXIT_CTRL_C, EXIT_INTERRUPTED

_BY_SIGNAL = {
    signal.SIGINT: "Interrupted by Ctrl-C",
    signal.SIGTERM: "Interrupted by SIGTERM",
    signal.SIGHUP: "Interrupted by SIGHUP, because its terminal was closed",
    signal.SIGUSR1: "Interrupted by SIGUSR1",
}
_ENDED_AT_ONCE = b"Ended at once, by a second signal; what is in the run folder is kept\n"


class Interrupted(KeyboardInterrupt):
    """The run ended early; finished trials are in its folder.

    Attributes:
        exit_code: 130 after Ctrl-C, else 75.
        reason: Why it ended, for the user.
    """

    def __init__(self, exit_code: int, reason: str = "Interrupted") -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason

    @classmethod
    def by_signal(cls, number: int) -> "Interrupted":
        """What a signal means."""
        is_ctrl_c = number == signal.SIGINT
        reason = _BY_SIGNAL[signal.Signals(number)]
        return cls(EXIT_CTRL_C if is_ctrl_c else EXIT_INTERRUPTED, reason)


def kill_descendants() -> None:
    """Kills all processes that this one started, and those that they started in turn."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            after_name = (folder / "stat").read_text().rpartition(")")[2]
            parents[int(folder.name)] = int(after_name.split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    for pid in found - {os.getpid()}:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


class Interrupts:
    """Handles the signals of this process during a run; a context manager.

    A terminal that closes sends SIGHUP, often twice, which counts once; what was written to it goes
    nowhere from then on. With nohup, it is ignored.

    The first signal raises `Interrupted`, but inside `gracefully` it only sets `requested`. The
    second ends the process and all that it started at once. A thread does this, because the main
    thread may be inside a call that handles signals only when it returns. Outside the main thread,
    where Python allows no signal handlers, only `ask` has an effect.

    Args:
        on_request: Called at the first request.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self._on_request = on_request
        self._request: Interrupted | None = None
        self._asked: Interrupted | None = None
        self._is_own_signal_due = False
        self._is_graceful = False
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether the run must end."""
        return self._request is not None

    def error(self) -> Interrupted:
        """The error to raise or report after a request."""
        return self._request or Interrupted.by_signal(signal.SIGINT)

    def ask(self, reason: str) -> None:
        """Asks the run to end, as a first signal does; called once, by another thread.

        It is no signal of the user, so that the next one of those does not end the process at once.
        """
        self._asked = Interrupted(EXIT_INTERRUPTED, reason)
        if self._previous:  # a signal interrupts whatever the main thread waits for
            self._is_own_signal_due = True
            signal.pthread_kill(self._main_thread, signal.SIGUSR1)
        elif not self.requested:
            self._request = self._asked
            self._on_request()

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.getsignal(number) for number in _BY_SIGNAL}
            if self._previous[signal.SIGHUP] == signal.SIG_IGN:
                del self._previous[signal.SIGHUP]
            self._terminals = [fd for fd in (0, 1, 2) if _is_terminal(fd)]
            self._inlet, outlet = os.pipe()
            os.set_blocking(outlet, False)  # as set_wakeup_fd requires
            self._outlet = outlet
            self._wakeup_before = signal.set_wakeup_fd(outlet, warn_on_full_buffer=False)
            threading.Thread(target=self._listen, name="signals", daemon=True).start()
            self._main_thread = threading.get_ident()
            self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._previous:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._outlet)  # the thread then reads the end of the pipe and ends

    def install(self) -> None:
        """Sets the signal handlers again, because Ray replaces that of SIGTERM when it starts."""
        if self._previous:
            for number in self._previous:
                signal.signal(number, self._handle)

    @contextlib.contextmanager
    def gracefully(self) -> Iterator[None]:
        """Inside this context the first signal only sets `requested`, so that work can be ended.

        Raises:
            Interrupted: A signal has arrived; raised at the end of the context.
        """
        self._is_graceful = True
        try:
            yield
        finally:
            self._is_graceful = False
        if self.requested:
            raise self.error()

    def _listen(self) -> None:
        """Counts signals, of which each arrives as a byte, and ends the process at the second."""
        num_signals = 0
        has_hung_up = False
        while byte := os.read(self._inlet, 1):
            if byte[0] == signal.SIGUSR1 and self._is_own_signal_due:
                self._is_own_signal_due = False
                continue
            num_signals += byte[0] in self._previous and not (
                has_hung_up and byte[0] == signal.SIGHUP
            )
            has_hung_up |= byte[0] == signal.SIGHUP
            if num_signals > 1:
                kill_descendants()
                with contextlib.suppress(OSError):  # its terminal may be gone
                    os.write(2, _ENDED_AT_ONCE)
                os._exit(EXIT_CTRL_C if byte[0] == signal.SIGINT else EXIT_INTERRUPTED)
        os.close(self._inlet)

    def _leave_terminal(self) -> None:
        """Lets what is written to the terminal go nowhere; it would be an error."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in self._terminals:
            os.dup2(nowhere, fd)
        os.close(nowhere)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._leave_terminal()
        if self.requested:
            return
        self._request = self._asked or Interrupted.by_signal(number)
        self._on_request()
        if not self._is_graceful:
            raise self.error()
