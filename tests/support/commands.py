"""The command line as a user runs it: in this process, or in one of its own with its own home."""

import contextlib
import fcntl
import io
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from unittest import mock

from warm_python import WarmProcess

from trialrun.cli import main

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 400  # only a hanging test comes near it
# What the shell of whoever runs the tests may bring along, and what conftest set for this process.
_NOT_INHERITED = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_NOT_INHERITED += ("RAY_API_SERVER_ADDRESS", "TRIALRUN_RUNS_DIR")
_NOT_INHERITED += ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "COLUMNS")
_NOT_INHERITED += ("TF_XLA_FLAGS",)
_MARK = "TRIALRUN_TEST_MARK"
# Ray gives its workers a niceness of 15: beside tests that train in their own process they starve.
LIKE_OTHERS = MappingProxyType({"RAY_worker_niceness": "0"})


class Finished(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def call(*arguments: object) -> Finished:
    """Runs a command in this process, at 80 columns."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["trialrun", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"COLUMNS": "80"}),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Finished(code, out.getvalue(), err.getvalue())


def beneath(ancestor: int, what: bytes) -> list[int]:
    """The processes beneath a process in whose command line something stands."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(stat[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue
    found = []
    for pid, line in lines.items():
        above = pid
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor and what in line:
            found.append(pid)
    return found


def _take_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup scripts/test would have it ignored
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Command:
    """A command that runs in a process group of its own, whose descendants can all be found.

    Args:
        home: Its HOME; the mark of its processes too.
        arguments: Of `trialrun`.
        program: What Python runs.
        environment: Variables beside those of the tests.
        wrapper: What runs Python.
        terminal: The end of a pseudo-terminal that becomes its terminal.
        is_warm: Whether it is forked from a Python that has imported what drivers need: see
            `warm_python`. Its program is a file or a module then.
    """

    def __init__(
        self,
        home: Path,
        *arguments: object,
        program: tuple[str, ...] = ("-m", "trialrun"),
        environment: Mapping[str, str] = MappingProxyType({}),
        wrapper: Sequence[str] = (),
        terminal: int | None = None,
        is_warm: bool = False,
    ) -> None:
        self.home = home
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        own = inherited | {"HOME": str(home), "COLUMNS": "80", _MARK: str(home)}
        own |= {"TMPDIR": str(home / "tmp"), **LIKE_OTHERS, **environment}
        self.process: subprocess.Popen[str] | WarmProcess
        if is_warm:
            words = [*program, *map(str, arguments)]
            self.process = WarmProcess(
                words, ROOT, environment=own, inherited=inherited, output=home
            )
            return
        with _interruptible():
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, *program, *map(str, arguments)],
                cwd=ROOT,
                env=own,
                stdin=terminal or subprocess.DEVNULL,
                stdout=terminal or subprocess.PIPE,
                stderr=terminal or subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=_take_terminal if terminal else None,
            )

    def finish(self) -> Finished:
        """Waits for its end."""
        try:
            out, err = self.process.communicate(timeout=_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Finished(self.process.returncode, out, err)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until something is true while it runs."""
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"it never came; the command said {self.finish()}")
            time.sleep(0.02)

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to all processes of the terminal's group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """What a scheduler does: SIGTERM."""
        self.process.terminate()

    def kill(self) -> None:
        """Ends it and all that it started."""
        for pid in self.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def descendants(self) -> dict[int, str]:
        """Its processes and theirs that live, in whatever group: pid -> command line.

        Ray's agents overwrite their environment, but they have their logs open.
        """
        mark, logs = f"{_MARK}={self.home}".encode(), f"/tmp/trialrun-{self.process.pid}-"
        found = {} if self.process.poll() is not None else {self.process.pid: "the command"}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                marks = (folder / "environ").read_bytes().split(b"\0")
                if mark in marks or _has_open(folder, logs):
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = line.decode(errors="replace").strip()
        return found

    def survivors(self, seconds: float = 10) -> dict[int, str]:
        """Its descendants that do not end soon after it; they are ended here."""
        deadline = time.monotonic() + seconds
        while (alive := self.descendants()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()
        return alive


def _has_open(process: Path, prefix: str) -> bool:
    for link in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(link.readlink()).startswith(prefix):
                return True
    return False


@contextlib.contextmanager
def _interruptible():
    """A shell starts background commands with SIGINT ignored, which children inherit."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
