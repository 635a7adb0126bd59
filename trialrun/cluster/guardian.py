"""A small process that outlives the driver, to clean up what a killed driver leaves behind.

Ray's own processes notice the death of their driver only after a while, some after minutes on a
busy machine, and nobody would remove their folder. The guardian is run as a script and uses only
Python's standard library, so that it runs before Ray's processes do.

    python guardian.py FOLDER     waits for the end of standard input. If no byte came before it,
                                  the driver was killed; the guardian then kills the processes that
                                  have a file in FOLDER open for writing, as all of Ray's processes
                                  have their logs. In the end it removes FOLDER.

A driver that ends normally writes something, and then nothing is killed: a process that the driver
starts holds the driver's open files for a moment, between fork and exec. Ray's processes cannot be
recognized by a mark in their environment, because Ray's agents overwrite it when they set their
titles.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

_PAUSE_S = 0.05
_PATIENCE_S = 10.0  # how long processes that are ending are waited for


def main() -> None:
    """Detaches from the driver, waits for the driver's end, and cleans up."""
    folder, driver = os.path.realpath(sys.argv[1]), os.getppid()
    if os.fork():  # the child is no descendant of the driver, so ending all of those spares it
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # these signals are meant for the driver
    was_killed = not sys.stdin.buffer.read()
    patience_until = time.monotonic() + _PATIENCE_S
    while alive := _processes_of(folder) - {driver}:
        if was_killed:
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif time.monotonic() > patience_until:
            break
        time.sleep(_PAUSE_S)
    shutil.rmtree(folder, ignore_errors=True)


def _processes_of(folder: str) -> set[int]:
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # closed meanwhile, or another user's
            if str(link.readlink()).startswith(f"{folder}/") and _is_written(link):
                found.add(int(link.parts[2]))
    return found


def _is_written(link: Path) -> bool:
    """Whether a file is open for writing, and not just for reading, as when a user reads a log."""
    about = (link.parent.parent / "fdinfo" / link.name).read_text()
    flags = next(line.split()[1] for line in about.splitlines() if line.startswith("flags:"))
    return int(flags, 8) & (os.O_WRONLY | os.O_RDWR) != 0


if __name__ == "__main__":
    main()
