"""A run folder that somebody else made, or changed: what is refused before anything is read.

A run folder holds files and folders, and nothing else. A link that leads elsewhere would let what
is written to the folder replace a file of the reader; a pipe or a device would be waited for.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from trialrun.errors import FileError, InputError, TrialrunError
from trialrun.messages import bytes_text, in_short
from trialrun.store.files import reading

_Read = TypeVar("_Read", bound=Callable[..., Any])

# Far more than trialrun writes, and still read within seconds.
_MAX_BYTES = 512 << 20
# It is written piece by piece, is as large as the run, and is never read.
_NEVER_READ = "confusion_matrices.json"


def require_plain(folder: Path) -> None:
    """Refuses a run folder that holds anything but files and folders of its own.

    Raises:
        InputError: It holds a pipe, a device, a link that leads out of it, or a file of a size that
            trialrun never writes.
    """
    for entry in _entries(folder):
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not Path(target).is_relative_to(folder.resolve()):
                raise InputError(
                    f"{entry.path}: is a link to {target}, outside of the run folder; copy what it"
                    " leads to into the folder, or remove the link"
                )
        elif not entry.is_file() and not entry.is_dir():
            raise InputError(
                f"{entry.path}: is neither a file nor a folder (a pipe, a socket or a device);"
                " trialrun wrote no such thing: remove it"
            )
        elif (size := _bytes_to_read(entry)) > _MAX_BYTES:
            raise InputError(
                f"{entry.path}: has {bytes_text(size)}; trialrun writes at most"
                f" {bytes_text(_MAX_BYTES)} there, so it did not write this file"
            )


def _entries(folder: Path) -> "Iterator[os.DirEntry[str]]":
    """All that is in a folder and below; links are not followed."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:  # it was replaced meanwhile, for the run goes on
            continue
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _bytes_to_read(entry: "os.DirEntry[str]") -> int:
    """The size of a file that would be read whole; 0 of any other."""
    if entry.name == _NEVER_READ or not entry.name.endswith((".json", ".csv")):
        return 0
    with suppress(FileNotFoundError):  # it was replaced meanwhile, for the run goes on
        return entry.stat(follow_symlinks=False).st_size
    return 0


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        FileError: The file holds something else.
    """
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a mapping, got a {type(content).__name__}")
    return content


@contextmanager
def reading_run(folder: Path) -> Iterator[None]:
    """Turns what the content of a run folder makes Python raise into a message about the folder.

    Raises:
        FileError: A file of the run holds values that trialrun did not write.
    """
    try:
        yield
    except TrialrunError:
        raise
    except Exception as error:  # a damaged file may lead to any
        raise FileError(
            f"{folder}: a file of this run is damaged, or was not written by trialrun:"
            f" {in_short(error)}"
        ) from error


def reads_run(command: _Read) -> _Read:
    """A command whose argument `run_folder` is read under `reading_run`."""

    @functools.wraps(command)
    def guarded(run_folder: Path, **options: Any) -> Any:
        with reading_run(run_folder):
            return command(run_folder, **options)

    return cast(_Read, guarded)


def reads_own_run(method: _Read) -> _Read:
    """A method of an object that has a run folder `_run`, which is read under `reading_run`."""

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **options: Any) -> Any:
        with reading_run(self._run.path):
            return method(self, *args, **options)

    return cast(_Read, guarded)


def neutral(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: such a text gets an apostrophe before it.

    >>> neutral("=1+1"), neutral(-1.5), neutral("-1.5"), neutral("v00")
    ("'=1+1", -1.5, '-1.5', 'v00')
    """
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
