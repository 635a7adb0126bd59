"""A small process that outlives the driver, to end what a killed driver leaves behind.

Ray's own processes notice the death of their driver after a while, some after minutes on a busy
machine, and nobody would remove their folder. Run as a script, with nothing but Python's own
modules: it is there before anything else is.

    python guardian.py FOLDER     waits for the end of standard input. If nothing came, the driver
                                  was killed: kills the processes that have a file in FOLDER open
                                  for writing, as all of Ray's have their logs. Removes FOLDER.

A driver that lives says so, and nobody is killed: a process that it starts has its files for a
moment, between fork and exec. Marks in the environment would not do: Ray's agents overwrite theirs
when they set their titles.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

_PAUSE_S = 0.05
_PATIENCE_S = 10.0  # for processes that are about to end


def main() -> None:
    """Leaves the driver's family, waits for its end, and cleans up."""
    folder, driver = os.path.realpath(sys.argv[1]), os.getppid()
    if os.fork():  # an orphan is no descendant: who ends all descendants spares it
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are for the driver
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
        with contextlib.suppress(OSError):  # closed meanwhile, or of another user
            if str(link.readlink()).startswith(f"{folder}/") and _is_written(link):
                found.add(int(link.parts[2]))
    return found


def _is_written(link: Path) -> bool:
    """Whether an open file can be written to; somebody may be reading a log of Ray's."""
    about = (link.parent.parent / "fdinfo" / link.name).read_text()
    flags = next(line.split()[1] for line in about.splitlines() if line.startswith("flags:"))
    return int(flags, 8) & (os.O_WRONLY | os.O_RDWR) != 0


if __name__ == "__main__":
    main()
