"""Files that a job names because its code needs them in ways that the code does not show.

Code can read any file, and import a module by a name that it makes up. Such files are named by
paths or patterns in `data.depends_on` and `model.depends_on`; they are hashed and sent as code is.
"""

import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from trialrun.errors import InputError
from trialrun.job.fields import folder_of
from trialrun.job.user_files import file_digest, hashed_once
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
    path = os.path.normpath(folder / Path(pattern).expanduser())
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
    found: list[Path] = []
    base = _base(pattern)
    is_plain = Path(pattern).exists()
    for path in [Path(pattern)] if is_plain else base.glob(str(Path(pattern).relative_to(base))):
        inside = path.rglob("*") if path.is_dir() else [path]
        found += [one for one in inside if one.is_file() and not _is_left_out(one, path)]
        if len(found) > _MAX_FILES:
            break
    return sorted(map(str, found))


def _is_left_out(file: Path, within: Path) -> bool:
    parts = file.relative_to(within).parts
    return "__pycache__" in file.parts or any(part.startswith(".") for part in parts)


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
