"""What a pack's process writes to standard output and error: caught, bounded, and found again.

It is caught below Python, so that what C++ code and other programs write is in it too. The file
lies beside Ray's own logs on the worker's node: if the process dies, it is read from there.
"""

import ctypes
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trialrun.messages import bytes_text, said_by

_HEAD_BYTES, _TAIL_BYTES = 64 << 10, 192 << 10
_MOST_IN_FILE_BYTES = 4 << 20
_RAYS_BYTES = 16 << 10
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """Where the output of a pack's process is.

    Attributes:
        path: The file on the process's node, in the folder of Ray's logs.
        pid: The process, whose id is in the names of Ray's logs.
    """

    path: str
    pid: int

    @classmethod
    def of(cls, name: str) -> "OutputPlace":
        """The place of this process's output."""
        return cls(str(_logs_folder() / f"{name}.{os.getpid()}.log"), os.getpid())


def new_name(pack_id: str) -> str:
    """A name for the output of a task, by which its file can be found if the task says nothing."""
    return f"trialrun-{pack_id}-{secrets.token_hex(4)}"


class CaughtOutput:
    """Catches all that this process writes, in a file; a context manager.

    Args:
        name: From `new_name`.
    """

    def __init__(self, name: str) -> None:
        self.place = OutputPlace.of(name)

    def __enter__(self) -> Self:
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND
        self._file = os.open(self.place.path, flags, 0o600)
        _flush()
        self._before = [os.dup(1), os.dup(2)]
        for descriptor in (1, 2):
            os.dup2(self._file, descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        _flush()
        for descriptor, before in zip((1, 2), self._before, strict=True):
            os.dup2(before, descriptor)
            os.close(before)
        os.close(self._file)
        with suppress(OSError):
            Path(self.place.path).unlink()

    def text(self) -> str:
        """What was written so far; of very much, the beginning and the end."""
        _flush()
        return _bounded(Path(self.place.path))

    def trim(self) -> None:
        """Shortens the file if it has become large."""
        if os.fstat(self._file).st_size > _MOST_IN_FILE_BYTES:
            kept = _bounded(Path(self.place.path), _HEAD_BYTES // 2, _TAIL_BYTES // 2).encode()
            os.ftruncate(self._file, 0)
            os.write(self._file, kept)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)  # what C code has not written yet


def _logs_folder() -> Path:
    node = ray._private.worker._global_node
    return Path(tempfile.gettempdir() if node is None else node.get_logs_dir_path())


def _bounded(file: Path, head_bytes: int = _HEAD_BYTES, tail_bytes: int = _TAIL_BYTES) -> str:
    with file.open("rb") as content:
        size = os.fstat(content.fileno()).st_size
        if size <= head_bytes + tail_bytes:
            return content.read().decode(errors="replace")
        head = content.read(head_bytes)
        content.seek(size - tail_bytes)
        left_out = f"\n[... {bytes_text(size - head_bytes - tail_bytes)} are left out ...]\n"
        return head.decode(errors="replace") + left_out + content.read().decode(errors="replace")


def last_words(place: OutputPlace | None, name: str, node_id: str, *, is_node_lost: bool) -> str:
    """What a process wrote that has died, and the end of Ray's logs about it, or why it is lost.

    Args:
        place: Where it is; None if the process died before it could say so.
        name: The name of its output.
        node_id: The process's node; empty if it is not known.
        is_node_lost: Whether the node is gone.
    """
    place = place or _place_on_this_machine(name)
    if place is None:
        return "The process died before it said on which node it is."
    if Path(place.path).is_file():
        return _read(place.path, place.pid)
    if is_node_lost:
        return "Its node was lost, and with it what the process wrote."
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    try:
        asked = _read_there.options(scheduling_strategy=strategy).remote(place.path, place.pid)
        text: str = ray.get(asked, timeout=_PATIENCE_S)
    except RayError as error:
        return f"What the process wrote cannot be read from its node: {said_by(error)}"
    return text


def _place_on_this_machine(name: str) -> OutputPlace | None:
    file = next(_logs_folder().glob(f"{name}.*.log"), None)
    return None if file is None else OutputPlace(str(file), int(file.suffixes[-2][1:]))


def _read(path: str, pid: int) -> str:
    file = Path(path)
    try:
        sections = [_bounded(file)]
        with suppress(OSError):  # it is another user's
            file.unlink()
        for log in sorted(file.parent.glob(f"*[-_]{pid}.*")):
            if text := _bounded(log, 0, _RAYS_BYTES).strip():
                sections.append(f"--- The end of Ray's {log.name} ---\n{text}")
    except OSError as error:
        return f"What the process wrote cannot be read: {said_by(error)}"
    return "\n".join(section.rstrip() for section in sections)


_read_there = ray.remote(num_cpus=0, max_retries=0)(_read)
