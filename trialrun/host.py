"""This machine as its processes see it: what they may use, and what identifies it."""

import contextlib
import gc
import importlib
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


def num_local_cpus(root: Path = Path("/")) -> int:
    """The number of CPU cores that this process may use, by its affinity and its control groups.

    Ray itself ignores the affinity.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    quota = read_limits(root).cpus
    num_cpus = len(os.sched_getaffinity(0))
    return num_cpus if quota is None else max(1, min(num_cpus, math.floor(quota)))


@contextlib.contextmanager
def importing(name: str) -> Iterator[None]:
    """Within this context Python looks for no garbage, and later only among newer objects.

    Importing TensorFlow makes hundreds of thousands of objects, which stay. Walking through them
    again and again takes a fifth of the import, and more time whenever something is traced.

    Args:
        name: A module that is imported within; if it was imported before, nothing is changed,
            because what is garbage by now would never be found.
    """
    if name in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def imported_late(name: str) -> Iterator[None]:
    """Within this context a module is not imported where it is asked for, but when it is used.

    That is for what a library imports at its beginning, and what its functions hardly ever use.
    Whoever asks for the module afterwards gets it as always.

    Args:
        name: A module. If it was imported before, nothing is changed.
    """
    if name in sys.modules:
        yield
        return
    late = sys.modules[name] = _Late(name)
    try:
        yield
    finally:
        late.step_aside()


class _Late(ModuleType):
    """Stands for a module, and imports it when something in it is used."""

    def step_aside(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def __getattr__(self, name: str) -> Any:
        self.step_aside()
        return getattr(importlib.import_module(self.__name__), name)


def path_from(text: str) -> Path:
    """A path as a user wrote it, with `~` as a home; the `~x` of no known user stays as it is."""
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def machine_id() -> str:
    """A text that identifies this boot of this machine and this container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        return f"{boot.read_text().strip()} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
    return os.uname().nodename


def process_started(pid: Any) -> str | None:
    """When a process began, in ticks since boot; None if there is no such process.

    With its pid, which may be reused, it identifies the process. One that has ended is there until
    its parent asks how: where nobody asks, as in a container without an init, for ever.
    """
    with suppress(OSError, IndexError):
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else others[18]
    return None


@dataclass(frozen=True, slots=True)
class Limits:
    """What control groups allow this process; None if they set no limit.

    Attributes:
        cpus: CPU cores, as a quota of CPU time.
        memory_bytes: Memory beyond which the kernel kills the process.
    """

    cpus: float | None
    memory_bytes: int | None


def read_limits(root: Path = Path("/")) -> Limits:
    """The tightest limits of this process's control group and those above it, version 1 or 2.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    cpus, memory = [], []
    for folder in _control_groups(root):
        if words := _words(folder / "cpu.max"):
            cpus += [float(words[0]) / float(words[1])] if words[0] != "max" else []
        if (quota := _words(folder / "cpu.cfs_quota_us")) and int(quota[0]) > 0:
            cpus.append(int(quota[0]) / int(_words(folder / "cpu.cfs_period_us")[0]))
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (words := _words(folder / name)) and words[0] != "max":
                memory.append(int(words[0]))
    return Limits(min(cpus, default=None), min(memory, default=None))


def available_memory_bytes(root: Path = Path("/")) -> int:
    """The memory that this process can still get from the kernel within its control groups.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
            limit = read_limits(root).memory_bytes
            return free if limit is None else min(free, limit)
    raise OSError(f"{root / 'proc/meminfo'} does not say MemAvailable")


def _control_groups(root: Path) -> Iterator[Path]:
    """Folders of this process's control groups, version 1 and 2, and of the groups above them.

    Inside a container some of these folders may be missing, but never the root of the hierarchy.
    """
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "cpu", "memory", "cpu,cpuacct"):
            mount = root / "sys/fs/cgroup" / controllers
            group = mount / path.lstrip("/")
            yield from (
                folder for folder in (group, *group.parents) if folder.is_relative_to(mount)
            )


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Sends to standard error what user code and libraries print, for other programs read stdout.

    What C++ code or another process writes goes there too.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Hides what TensorFlow's C++ code writes during its import; later only errors are shown.

    This also hides Keras's warnings about each HDF5 file, whose format it calls legacy.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with silent_stderr():
        yield
    if "absl.logging" in sys.modules:  # only then is the logger `absl` of absl's own class
        logging.getLogger("absl").setLevel(logging.ERROR)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Hides what C++ code of this process writes to standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a file
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
