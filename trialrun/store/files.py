"""Files that are either whole or absent: atomic writing, JSON, and errors that name the file."""

import json
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from trialrun.errors import FileError
from trialrun.messages import said_by

_MAX_SMALL_BYTES = 4 << 20
# What the content of a file may make its reader raise; RuntimeError when it is nested too deeply.
_WRONG_CONTENT = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError),
    *(ArithmeticError, MemoryError, zipfile.BadZipFile),
)


@contextmanager
def replace_atomically(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A temporary path to write to; if the block succeeds, it is flushed and renamed to `path`.

    The temporary file is hidden, lies in the same folder and keeps the suffix of `path`, because
    Keras takes the format from it. If the block raises, `path` is not changed.

    Args:
        path: The file to write; its folder is made if it does not exist.
        flush: False not to wait for the disk; a power failure may then take the file.

    Yields:
        The path to write to.

    Raises:
        FileError: The file cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flush:
            _flush(temporary)
        temporary.replace(path)
        if flush:
            _flush(path.parent)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it was renamed, or the folder cannot be written
            temporary.unlink()


def _flush(path: Path) -> None:
    """Makes the content of a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Writes a whole file atomically; see `replace_atomically`."""
    with replace_atomically(path, flush=flush) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes a whole text file atomically, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(
    path: Path, content: Mapping[str, Any], *, indent: int | None = 2, flush: bool = True
) -> None:
    """Writes a JSON file atomically; NaN and infinities, which JSON lacks, become null."""
    text = json.dumps(json_ready(content), indent=indent, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode(), flush=flush)


def json_ready(value: Any) -> Any:
    """The value in types that JSON has: arrays as lists, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def read_small_json(path: Path, max_bytes: int = _MAX_SMALL_BYTES) -> dict[str, Any]:
    """The mapping in a small JSON file; empty if there is no such file, or it holds anything else.

    For files that a driver may be writing, or anybody may have put there: it waits for nothing.

    Args:
        path: The file.
        max_bytes: A larger file counts as none.
    """
    with suppress(OSError, ValueError, RecursionError):
        about = path.stat()
        if stat.S_ISREG(about.st_mode) and about.st_size <= max_bytes:
            content = json.loads(path.read_bytes())
            return content if isinstance(content, dict) else {}
    return {}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns errors while a file is read into a FileError that names the file.

    Raises:
        FileError: The file is missing, incomplete, of another kind, or holds other values.
    """
    try:
        yield
    except _WRONG_CONTENT as error:
        raise FileError(f"{path}: cannot be read: {said_by(error)}") from error
