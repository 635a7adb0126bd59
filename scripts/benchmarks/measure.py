"""Runs a command and measures its wall time from start to exit and its processes' peak memory.

It works on Linux only, because it reads /proc.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SAMPLE_INTERVAL_S = 0.25
_LEFTOVERS_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements and the output of a command.

    Attributes:
        wall_s: Seconds from its start to its exit.
        peak_memory_bytes: Greatest sum of PSS over its process tree, sampled four times a second.
            PSS counts a page that n processes share as 1/n in each, so that the sum counts it once.
        exit_code: Its exit code; if negative, the signal that ended it.
        stdout: Its standard output.
        stderr: Its standard error.
    """

    wall_s: float
    peak_memory_bytes: int
    exit_code: int
    stdout: str
    stderr: str


def run_measured(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float
) -> Measured:
    """Runs a command to its end, and waits until the processes that it left behind are gone.

    Raises:
        TimeoutError: The command did not end in time; it and its descendants were killed.
    """
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
        watch = _TreeWatch(process.pid)
        try:
            exit_code = process.wait(timeout_s)
            wall_s = time.perf_counter() - start
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"did not end within {timeout_s:.0f} s") from None
        finally:
            watch.stop()
            watch.end_processes(patience_s=0 if process.returncode is None else None)
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        return Measured(wall_s, watch.peak_bytes, exit_code, stdout.read(), stderr.read())


@dataclass(slots=True)
class _TreeWatch:
    """A thread that samples the memory of a process and its descendants.

    Attributes:
        root: Process id at the top of the tree.
        peak_bytes: Greatest sum seen so far.
        start_times: Id of every process seen in the tree -> when it started, to tell it from a
            later process with the same id.
    """

    root: int
    peak_bytes: int = 0
    start_times: dict[int, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def end_processes(self, *, patience_s: float | None) -> None:
        """Waits for all processes of the tree to end, and kills those that do not end in time."""
        patience_s = _LEFTOVERS_PATIENCE_S if patience_s is None else patience_s
        deadline = time.monotonic() + patience_s
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _alive(self) -> list[int]:
        processes = read_processes()
        return [
            pid
            for pid, start_time in self.start_times.items()
            if pid in processes and processes[pid].start_time == start_time
        ]

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_INTERVAL_S):
            tree = descendants(self.root, read_processes())
            self.start_times.update(tree)
            self.peak_bytes = max(self.peak_bytes, sum(map(_pss_bytes, tree)))


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    start_time: int  # in clock ticks since boot


def parse_with_only(
    parser: argparse.ArgumentParser, names: Sequence[str], verb: str
) -> argparse.Namespace:
    """The arguments of a command, with `--only NAME,...` for some of what it measures or makes."""
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=names,
        metavar="NAME,...",
        help=f"{verb} only some of: {', '.join(names)}",
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.only) - set(names)):
        parser.error(f"--only: there is no {', '.join(unknown)}; choose from: {', '.join(names)}")
    return options


def read_processes() -> dict[int, _Process]:
    """All living processes by id, without zombies."""
    processes = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            # The name, in parentheses, may contain spaces.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has just ended
            continue
        if fields[0] not in "ZX":
            processes[int(folder.name)] = _Process(int(fields[1]), int(fields[19]))
    return processes


def descendants(root: int, processes: Mapping[int, _Process]) -> dict[int, int]:
    """Process id -> start time, for the root and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found, waiting = {}, [root]
    while waiting:
        pid = waiting.pop()
        if pid in processes:
            found[pid] = processes[pid].start_time
            waiting += children.get(pid, [])
    return found


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
