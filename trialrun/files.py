"""Files that are whole or absent: atomic writing, JSON, and errors that name the file."""

import json
import math
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from trialrun.errors import FileError


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A temporary path to write to; when the block ends well it is flushed and becomes `path`.

    The temporary name is hidden, lies in the same folder and keeps the suffix of `path`, because
    Keras takes the format from it. If the block raises, `path` is what it was before.

    Args:
        path: The file to write; its folder is made.

    Yields:
        The path to write to.

    Raises:
        FileError: The file system refuses.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it was renamed, or the folder is what is wrong
            temporary.unlink()


def _flush(path: Path) -> None:
    """Makes what was written to a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes a whole text file atomically, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Writes a JSON file atomically; NaN and infinities, which JSON has not, become null."""
    text = json.dumps(json_ready(content), indent=indent, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def json_ready(value: Any) -> Any:
    """The same value in what JSON knows: arrays as lists, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Names the file in whatever goes wrong while it is read.

    Raises:
        FileError: The block met a file that is missing, torn or of another kind.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FileError(f"{path}: cannot be read: {error}") from error
