"""Files that a job names because its code needs them in ways that the code does not show.

Code can read any file, and import a module by a name that it makes up. Such files are named by
paths or patterns in `data.depends_on` and `model.depends_on`; they are hashed and sent as code is.
"""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from trialrun.errors import InputError
from trialrun.host import path_from
from trialrun.job.fields import folder_of
from trialrun.job.user_code.files import file_digest, hashed_once
from trialrun.messages import show

_MAX_FILES = 1000
_LEAST_DEPTH = 3  # the parts of /home/somebody: what lies above may hold anything


def _check_patterns(patterns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """Absolute patterns, each of which has files; unchanged if the job's folder is not known."""
    folder = folder_of(info)
    if folder is None:
        return patterns
    absolute = tuple(_check_pattern(pattern, folder) for pattern in patterns)
    try:
        files_named(absolute)
    except InputError as error:
        raise ValueError(str(error)) from None
    return absolute


def _check_pattern(pattern: str, folder: Path) -> str:
    path = os.path.normpath(folder / path_from(pattern))
    if glob.has_magic(pattern):
        base = _base(path)
        if ".." in Path(pattern).parts or len(base.parts) < _LEAST_DEPTH or base == Path.home():
            raise ValueError(
                f"must stay in the job's folder, got {show(pattern)}; a pattern that leaves it may"
                " match any number of files, so name a file or a folder instead"
            )
    return path


DependsOn = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(strict=False),
    AfterValidator(_check_patterns),
]


def files_named(patterns: Iterable[str]) -> list[str]:
    """The absolute paths of all files that absolute patterns match; all files of a folder.

    Raises:
        InputError: A pattern matches no file, or all together match more than 1000.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        own = _files_of(pattern)
        if not own:
            raise InputError(f"must match at least one file, but {pattern} matches none")
        files |= dict.fromkeys(own)
        if len(files) > _MAX_FILES:
            raise InputError(f"must match at most {_MAX_FILES} files, but {pattern} matches more")
    return list(files)


def _files_of(pattern: str) -> list[str]:
    """Sorted; without hidden files and what Python compiled, which change by themselves."""
    found: set[str] = set()
    try:
        for path in _matches(pattern):
            found.update(_files_in(path) if path.is_dir() else [str(path)] * path.is_file())
            if len(found) > _MAX_FILES:
                break
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return sorted(found)


def _matches(pattern: str) -> Iterable[Path]:
    if Path(pattern).exists():
        return [Path(pattern)]
    base = _base(pattern)
    inside = Path(pattern).relative_to(base)
    if "**" not in inside.parts:
        return base.glob(str(inside))
    below = map(Path, _files_in(base))  # Path.glob would not look where links lead
    return (file for file in below if _fits(file.relative_to(base).parts, inside.parts))


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a pattern matches a file, or a folder that it is in."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _files_in(folder: Path) -> Iterator[str]:
    """The files in a folder and below it, also where links lead; a link to a folder around it ends.

    Run folders are left out: each run would make all trials new ones.

    Raises:
        OSError: A folder cannot be read.
    """
    for where, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = [name for name in _shown(folders) if not _is_left_out(Path(where, name))]
        yield from (str(file) for name in _shown(names) if (file := Path(where, name)).is_file())


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and name != "__pycache__"]


def _is_left_out(folder: Path) -> bool:
    leads_back = folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
    return leads_back or ((folder / "job.yaml").is_file() and (folder / "lease").is_dir())


def _raise(error: OSError) -> None:
    raise error


def _base(pattern: str) -> Path:
    """The folder that a pattern starts from: up to its first wildcard, or that of a plain path."""
    parts = Path(pattern).parts
    first_magic = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    path = Path(*parts[:first_magic])
    return path if path.is_dir() else path.parent


def dependencies_digest(patterns: Iterable[str]) -> str:
    """A hash, 16 hex digits, of the files of some patterns and of their paths inside these."""
    patterns = tuple(patterns)
    return hashed_once(("depends_on", "\0".join(patterns)), lambda: _digest(patterns))


def _digest(patterns: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for pattern in patterns:
        for file in files_named([pattern]):
            name = Path(file).relative_to(_base(pattern)).as_posix()
            digest.update(f"{name}\0{file_digest(file)}\0".encode())
    return digest.hexdigest()[:16]


def folders_named(patterns: Iterable[str]) -> list[str]:
    """The folders that patterns start from; the structure below them is kept."""
    return [str(_base(pattern)) for pattern in patterns]
