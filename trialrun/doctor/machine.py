"""Checks of the machine: cores, memory, /dev/shm, temporary folder, loopback, and their limits."""

import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trialrun.doctor.check import Check, ok, problem, warning
from trialrun.host import Limits, num_local_cpus
from trialrun.messages import bytes_text

# What a run of the reference job needs at its peak.
_ENOUGH_MEMORY_BYTES = 2 << 30
# Ray's object store takes this share of the memory by default.
_OBJECT_STORE_PART = 0.3
# A unix socket's path has at most 107 bytes. Ray's longest beneath its temporary folder:
_MAX_SOCKET_PATH = 107
_LONGEST_SOCKET = "session_2026-12-31_23-59-59_123456_4194304/sockets/plasma_store"
_OWN_RAY = "start Ray with the limits yourself, as scripts/slurm/trialrun.sbatch does"


def check_cpus(
    environment: Mapping[str, str], limits: Limits, ray_cpus: float | None = None
) -> Check:
    """Compares the cores that may be used with those that Ray takes.

    Args:
        environment: The variables, which tell what SLURM gave.
        limits: The limits of the control group.
        ray_cpus: The cores that Ray offers on this node; None for Ray inside this process.
    """
    usable, total = num_local_cpus(), os.cpu_count() or 1
    taken = usable if ray_cpus is None else ray_cpus
    allowed = {"this process may use only": float(usable)}
    if limits.cpus is not None:
        allowed["the control group allows only"] = limits.cpus
    given = environment.get("SLURM_CPUS_ON_NODE", "")
    if given.isdecimal():
        allowed["SLURM gave only"] = float(given)
    tightest = min(allowed, key=lambda who: allowed[who])
    if taken > allowed[tightest]:
        return warning(
            "CPU cores",
            f"Ray takes {taken:g} of the machine's {total}, but {tightest} {allowed[tightest]:g}",
            f"{_OWN_RAY}: --num-cpus={max(1, int(allowed[tightest]))}",
        )
    return ok("CPU cores", f"Ray takes {taken:g} of the machine's {total}")


def check_memory(
    environment: Mapping[str, str], limits: Limits, ray_bytes: float | None = None
) -> Check:
    """Checks how much memory is free, and whether Ray counts on more than is allowed here.

    Args:
        environment: The variables, which tell what SLURM gave.
        limits: The limits of the control group.
        ray_bytes: The memory that Ray counts on; None for Ray inside this process.
    """
    total, available = _memory_bytes("MemTotal"), _memory_bytes("MemAvailable")
    allowed = min(total, limits.memory_bytes or total, _memory_from_slurm(environment) or total)
    counted = _memory_that_ray_sees(total) if ray_bytes is None else ray_bytes
    if counted > allowed:
        return warning(
            "memory",
            f"Ray counts on {bytes_text(counted)}, but {bytes_text(allowed)} is allowed here",
            "processes are killed if they use more:"
            f" {_OWN_RAY}: --memory and --object-store-memory",
        )
    found = f"{bytes_text(available)} of {bytes_text(total)} free"
    if available < _ENOUGH_MEMORY_BYTES:
        enough = bytes_text(_ENOUGH_MEMORY_BYTES)
        return warning("memory", found, f"a small run needs {enough}: end other programs")
    return ok("memory", found)


def _memory_from_slurm(environment: Mapping[str, str]) -> int:
    """The memory that SLURM gave on this node, in bytes; 0 for all of it, or outside of a job."""

    def number(name: str) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else 0

    per_cpu = number("SLURM_MEM_PER_CPU") * number("SLURM_CPUS_ON_NODE")
    per_gpu = number("SLURM_MEM_PER_GPU") * number("SLURM_GPUS_ON_NODE")
    return (number("SLURM_MEM_PER_NODE") or per_cpu or per_gpu) << 20


def _memory_that_ray_sees(total: int) -> int:
    """The memory that Ray would count on, in bytes.

    Ray reads only the limit of the outermost control group: a container's, but not a SLURM job's.
    """
    root = Path("/sys/fs/cgroup")
    for file in (root / "memory.max", root / "memory/memory.limit_in_bytes"):
        if file.exists() and (limit := file.read_text().strip()) != "max":
            return min(total, int(limit))
    return total


def _memory_bytes(field: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Checks whether Ray's object store has room in shared memory.

    Args:
        folder: Where shared memory is mounted.
    """
    bigger = "in a container: --shm-size (docker), or a tmpfs mounted at /dev/shm"
    try:
        space = os.statvfs(folder)
    except OSError as error:
        return problem("/dev/shm", f"cannot be used: {error.strerror}", bigger)
    free, total = space.f_bavail * space.f_frsize, _memory_bytes("MemTotal")
    found = f"{bytes_text(free)} free, {free / total:.0%} of the memory"
    if free < _OBJECT_STORE_PART * total:
        return warning(
            "/dev/shm",
            f"{found}; below 30% Ray may keep its objects in /tmp, or fewer of them",
            f"{bigger}; or delete files in {folder}",
        )
    return ok("/dev/shm", found)


def check_temporary_folder(environment: Mapping[str, str]) -> Check:
    """Checks whether Ray's unix sockets can be made in its temporary folder."""
    name = next(
        (variable for variable in ("RAY_TMPDIR", "TMPDIR") if environment.get(variable)), ""
    )
    folder = Path(environment[name]) if name else Path("/tmp")
    length = len(os.fsencode(folder / "ray" / _LONGEST_SOCKET))
    if length > _MAX_SOCKET_PATH:
        most = _MAX_SOCKET_PATH - (length - len(os.fsencode(folder)))
        in_place = _try_socket(Path("/tmp"))
        found = f"{name} has {len(os.fsencode(folder))} bytes: too long for Ray's sockets"
        advice = f"trialrun's own Ray uses /tmp; for `ray start` set {name} to at most {most} bytes"
        return warning("temporary folder", found, advice) if in_place.status == "ok" else in_place
    return _try_socket(folder)


def _try_socket(folder: Path) -> Check:
    elsewhere = "set TMPDIR to a short path on a local disk, where you may write"
    try:
        with (
            tempfile.TemporaryDirectory(prefix="trialrun-", dir=folder) as own,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            listener.bind(str(Path(own, "s")))
        space = os.statvfs(folder)
    except OSError as error:
        return problem("temporary folder", f"{folder}: {error.strerror or error}", elsewhere)
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    if total and free < 0.05 * total:
        return problem(
            "temporary folder",
            f"{folder}: {bytes_text(free)} free, less than 5%: Ray refuses to keep objects",
            f"make room, or {elsewhere}",
        )
    return ok("temporary folder", f"{folder}: sockets work, {bytes_text(free)} free")


def check_loopback(host: str = "127.0.0.1") -> Check:
    """Checks whether a program can listen at a port of loopback, and another can reach it."""
    try:
        with socket.create_server((host, 0)) as server:
            address = server.getsockname()
            socket.create_connection(address, timeout=5).close()
    except OSError as error:
        return problem(
            "loopback",
            f"a port of {host} cannot be opened and reached: {error.strerror or error}",
            "bring it up: `ip link set lo up`; in a sandbox, allow it",
        )
    return ok("loopback", f"a port of {host} can be opened and reached")
