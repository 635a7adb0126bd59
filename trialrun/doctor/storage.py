"""Checks of the folder of runs: its file system, and whether a run's file operations work there."""

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from trialrun.doctor.check import Check, ok, problem, warning
from trialrun.errors import FileError
from trialrun.messages import bytes_text, said_by
from trialrun.store.files import write_bytes

_NETWORK = {
    "nfs": "NFS",
    "nfs4": "NFS",
    "lustre": "Lustre",
    "gpfs": "GPFS",
    "beegfs": "BeeGFS",
    "ceph": "CephFS",
    "fuse.ceph": "CephFS",
    "cifs": "SMB",
    "smb3": "SMB",
    "9p": "9P",
    "fuse.sshfs": "sshfs",
}
_IN_MEMORY = {"tmpfs", "ramfs"}
_ENOUGH_BYTES = 1 << 30
_ENOUGH_FILES = 10_000  # a run of a million trials leaves about 6,000
_LIMIT_S = 30.0
_SLOW_S = 0.5  # a run flushes several files for each pack
_SHARED = (
    "a job that is requeued to another node would not find its run: choose a folder that all nodes"
    " share with --runs-dir"
)
# A variable that names a file beside the runs; the machine that asks made it. A node that does not
# see the file does not share the folder.
MARK = "TRIALRUN_DOCTOR_MARK"
_ELSEWHERE = "choose another folder with --runs-dir"


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system, as /proc/mounts lists it: where, of which kind, and from what."""

    point: Path
    kind: str
    source: str

    @property
    def is_shared(self) -> bool:
        """Whether other machines can mount it too."""
        return self.kind in _NETWORK

    def describe(self) -> str:
        """A text like `NFS at /home` or `ext4 (local) at /`."""
        if self.is_shared:
            return f"{_NETWORK[self.kind]} at {self.point}"
        return (
            f"{self.kind} ({'in memory' if self.kind in _IN_MEMORY else 'local'}) at {self.point}"
        )


def mount_of(path: Path, mounts: str) -> Mount | None:
    """The mount that holds a path; None if there is none.

    Args:
        path: An absolute path without symbolic links.
        mounts: The text of /proc/mounts.
    """
    found = None
    for line in mounts.splitlines():
        source, point, kind = line.split(" ")[:3]
        mount = Mount(Path(_unescape(point)), kind, _unescape(source))
        # Of two mounts at the same point the later hides the earlier.
        if path.is_relative_to(mount.point) and (
            found is None or len(mount.point.parts) >= len(found.point.parts)
        ):
            found = mount
    return found


def _unescape(text: str) -> str:
    """A path as /proc/mounts writes it, with `\\040` for a space and the like turned back."""
    for code in (r"\040", r"\011", r"\012", r"\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text


def check_storage(
    runs_dir: Path, environment: Mapping[str, str], mounts: str | None = None
) -> tuple[Check, ...]:
    """Checks the kind of file system, free space, safe writing and hard links.

    Args:
        runs_dir: Where run folders are made; it need not exist yet.
        environment: The variables, which tell whether this is a SLURM job.
        mounts: A text to use instead of this machine's /proc/mounts; None to read that.
    """
    # In a thread, because an access to a network file system whose server is gone never returns.
    outcome: Future[tuple[Check, ...]] = Future()

    def look() -> None:
        try:
            outcome.set_result(_look(runs_dir, environment, mounts))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=look, name="storage", daemon=True).start()
    try:
        return outcome.result(timeout=_LIMIT_S)
    except TimeoutError:
        found = f"{runs_dir}: no answer within {_LIMIT_S:g} s; is its file server gone?"
    except OSError as error:
        found = f"{runs_dir}: {error.strerror or error}"
    return (problem("runs folder", found, _ELSEWHERE),)


def _look(runs_dir: Path, environment: Mapping[str, str], mounts: str | None) -> tuple[Check, ...]:
    folder = nearest_folder(runs_dir)
    if not folder.is_dir():
        return (problem("runs folder", f"{folder} is not a folder", _ELSEWHERE),)
    mount = mount_of(folder, mounts or Path("/proc/mounts").read_text())
    return (
        _check_kind(folder, mount, environment),
        _check_room(folder),
        *_check_writing(folder),
    )


def nearest_folder(runs_dir: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = Path(os.path.realpath(runs_dir))
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


def _check_kind(folder: Path, mount: Mount | None, environment: Mapping[str, str]) -> Check:
    name = "runs folder"
    if mount is None:
        return ok(name, f"{folder}: a file system that /proc/mounts does not name")
    found = f"{folder} on {mount.describe()}"
    mark = environment.get(MARK)
    if mark and not Path(mark).exists():
        return problem(name, f"{found}: not the folder that the asking node sees", _SHARED)
    if mount.kind in _IN_MEMORY:
        return warning(name, f"{found}: lost when the machine stops", _ELSEWHERE)
    if mount.kind == "overlay":
        advice = f"bind a folder of the host, or {_ELSEWHERE}"
        return warning(name, f"{found}: removed with its container", advice)
    if mark:
        return ok(name, f"{found}, shared with the node that asked")
    if "SLURM_JOB_ID" in environment and not mount.is_shared:
        return warning(name, f"{found}: other nodes may not see it", _SHARED)
    return ok(name, found)


def _check_room(folder: Path) -> Check:
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    found = f"{bytes_text(free)} free"
    if space.f_files:  # some file systems do not count files
        found += f", {space.f_favail:,} more files"
        if space.f_favail < _ENOUGH_FILES:
            return warning("room for runs", found, f"delete files, or {_ELSEWHERE}")
    if free < _ENOUGH_BYTES:
        return warning("room for runs", found, f"make room, or {_ELSEWHERE}")
    return ok("room for runs", found)


def _check_writing(folder: Path) -> tuple[Check, ...]:
    """Checks writing, flushing and renaming a file as a run does, and linking as a lease does."""
    try:
        with tempfile.TemporaryDirectory(prefix=".trialrun-", dir=folder) as own:
            file = Path(own, "file")
            began = time.monotonic()
            write_bytes(file, b"doctor")
            seconds = time.monotonic() - began
            return (_check_speed(seconds), _check_hard_link(file))
    except (OSError, FileError) as error:
        return (problem("safe writing", f"{folder}: {said_by(error)}", _ELSEWHERE),)


def _check_speed(seconds: float) -> Check:
    found = f"write, flush and rename take {seconds * 1000:.0f} ms"
    if seconds > _SLOW_S:
        return warning("safe writing", found, f"each pack waits for that: {_ELSEWHERE}")
    return ok("safe writing", found)


def _check_hard_link(file: Path) -> Check:
    try:
        os.link(file, file.with_name("link"))
        os.link(file, file.with_name("link"))
    except FileExistsError:  # only one of two drivers may get the lease
        return ok("hard links", "work, and only one of two files gets a name")
    except OSError as error:
        return problem(
            "hard links",
            f"do not work: {error.strerror}",
            f"the lease that keeps two drivers apart needs them: {_ELSEWHERE}",
        )
    return problem("hard links", "two files got the same name", _ELSEWHERE)
