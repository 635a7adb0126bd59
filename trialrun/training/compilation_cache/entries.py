"""The files of the cache: one per compiled function, with a checksum, and bounded in all.

A file has its name only when it is whole, and what does not fit its checksum counts as absent. So
nothing has to be locked: two processes that write the same file write the same content, and a
process that is killed leaves a temporary file, which later ones remove. Nothing here raises an
error of the file system: without the cache, there is more to compile, and that is all.
"""

import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trialrun.messages import said_by
from trialrun.training.compilation_cache.folder import opened

_log = logging.getLogger(__name__)

MAX_BYTES = 512 << 20  # some hundred programs
_AFTER_REMOVAL = 0.75  # so that not each new file makes others go
_MAX_PER_FUNCTION = 4  # versions of one function whose code has changed
_MAGIC = b"trialrun compiled 1\n"
_CHECKSUM_AT = len(_MAGIC)
_AT = _CHECKSUM_AT + hashlib.sha256().digest_size  # where the name and the content begin
_TEMPORARY = ".new-"
_ABANDONED_S = 3600.0


class Entry(NamedTuple):
    """What TensorFlow has written about one compiled function.

    Attributes:
        name: The name that TensorFlow gave it.
        content: Its bytes.
    """

    name: str
    content: bytes


class _File(NamedTuple):
    name: str
    used_s: float
    num_bytes: int


def read_entries(folder: Path, key: str) -> list[Entry]:
    """The latest whole entries under a key; none if the folder cannot be used.

    Args:
        folder: The cache folder.
        key: Of the function and of the machine.
    """
    try:
        with opened(folder, make=False) as descriptor:
            files = sorted(_files(descriptor, f"{key}-"), key=lambda file: -file.used_s)
            found = [_read(descriptor, file.name) for file in files[:_MAX_PER_FUNCTION]]
            return [entry for entry in found if entry is not None]
    except OSError as error:
        _log.info("nothing is loaded from the compilation cache: %s", said_by(error))
        return []


def _read(descriptor: int, name: str) -> Entry | None:
    """The entry in a file, which counts as used now; None if the file is not whole."""
    try:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor), "rb") as file:
            content = file.read()
    except OSError:  # another process has removed it
        return None
    magic, checksum, rest = content[:_CHECKSUM_AT], content[_CHECKSUM_AT:_AT], content[_AT:]
    if magic != _MAGIC or hashlib.sha256(rest).digest() != checksum:
        return None
    with suppress(OSError):  # a folder that can only be read
        os.utime(name, dir_fd=descriptor)
    own_name, _, own_content = rest.partition(b"\n")
    return Entry(own_name.decode(), own_content)


def write_entry(folder: Path, key: str, entry: Entry) -> None:
    """Writes an entry, and removes the files that were not used for longest if there is too much.

    Args:
        folder: The cache folder.
        key: Of the function and of the machine.
        entry: What TensorFlow has written.
    """
    name = entry.name.encode()
    rest = name + b"\n" + entry.content
    content = _MAGIC + hashlib.sha256(rest).digest() + rest
    try:
        with opened(folder, make=True) as descriptor:
            _write(descriptor, f"{key}-{hashlib.sha256(name).hexdigest()[:16]}", content)
            _remove_oldest(descriptor)
    except OSError as error:
        _log.info("the compilation cache keeps nothing: %s", said_by(error))


def _write(descriptor: int, name: str, content: bytes) -> None:
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=descriptor), "wb") as file:
            file.write(content)
        os.replace(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=descriptor)
        raise


def _remove_oldest(descriptor: int) -> None:
    """Removes files until there is room again; another process may be doing the same."""
    files = sorted(_files(descriptor), key=lambda file: file.used_s)
    in_all = sum(file.num_bytes for file in files)
    enough = MAX_BYTES * _AFTER_REMOVAL if in_all > MAX_BYTES else MAX_BYTES
    for file in files:
        age_s = files[-1].used_s - file.used_s
        if in_all > enough or (file.name.startswith(_TEMPORARY) and age_s > _ABANDONED_S):
            in_all -= file.num_bytes
            with suppress(OSError):
                os.unlink(file.name, dir_fd=descriptor)


def remove_entries(folder: Path, key: str) -> None:
    """Removes all entries under a key, of which TensorFlow could not load one."""
    with suppress(OSError), opened(folder, make=False) as descriptor:
        for file in _files(descriptor, f"{key}-"):
            with suppress(OSError):
                os.unlink(file.name, dir_fd=descriptor)


def size_of(folder: Path) -> tuple[int, int]:
    """How many files a cache folder holds, and their bytes in all.

    Raises:
        OSError: It cannot be read, or not trusted.
    """
    try:
        with opened(folder, make=False) as descriptor:
            files = list(_files(descriptor))
    except FileNotFoundError:
        return 0, 0
    return len(files), sum(file.num_bytes for file in files)


def _files(descriptor: int, prefix: str = "") -> Iterator[_File]:
    """The regular files in a folder whose names have a prefix."""
    for name in os.listdir(descriptor):
        if name.startswith(prefix):
            with suppress(OSError):
                about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(about.st_mode):
                    yield _File(name, about.st_mtime, about.st_size)
