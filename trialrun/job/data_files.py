"""Data files that a job names: they are found, and only their headers are read.

`trialrun.data.table.load` and `trialrun.data.npz` read the rows; `trialrun.job.user_code.files`
hashes the files and sends them to other machines.
"""

import filecmp
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from trialrun.errors import InputError
from trialrun.job.table_dialect import Dialect, read_header
from trialrun.job.table_spelling import clean_text
from trialrun.job.user_code.own_files import moved_path
from trialrun.messages import said_by, suggest

_ARRAY_PARTS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "x", "y")
_NAME_LISTS = ("class_names", "feature_names")


def find_data_file(text: str, folder: Path) -> str:
    """The absolute path of a data file that exists.

    Args:
        text: A path as the user wrote it.
        folder: The folder to which a relative path is relative.

    Raises:
        InputError: The file does not exist or cannot be read.
    """
    try:
        path = (folder / Path(text).expanduser()).absolute()
        if path.is_file():
            with path.open("rb"):
                return str(path)
        beside = [file.name for file in path.parent.glob(f"*{path.suffix}") if file.is_file()]
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a null byte
        raise InputError(f"{text!r} cannot be read: {said_by(error)}") from error
    if beside:
        hint = suggest(path.name, sorted(beside)[:20])
    else:
        hint = f"{path.parent} has no file of this kind"
    raise InputError(f"there is no file {path}; {hint}")


def is_same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, or to files with the same bytes."""
    path, other = moved_path(path), moved_path(other)
    try:
        return path.samefile(other) or filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False  # one does not exist, which is reported elsewhere


def is_unnamed(name: str) -> bool:
    """Whether a column has no name, or only the one that pandas gives to an index in Parquet."""
    return not name or name.startswith("__index_level_")


def column_names(path: Path, dialect: Dialect) -> list[str]:
    """The clean names of a table's columns; the file is read as Parquet if it is, else as CSV.

    Raises:
        InputError: The file cannot be read as a table.
    """
    path = moved_path(path)
    names = _parquet_names(path) if is_parquet(path) else read_header(path, dialect, str(path))
    return [clean_text(name) for name in names]


def is_parquet(path: Path) -> bool:
    """Whether a file begins with the bytes of a Parquet file."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _parquet_names(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {said_by(error)}") from error


def array_names(path: Path) -> dict[str, tuple[str, ...]]:
    """The arrays of an .npz file, e.g. `x_train` -> all names in the file that belong to it.

    Several inputs or targets differ in a name after a dot: `x_train.age`.

    Raises:
        InputError: The file is no .npz file, or its arrays are not those of a data set.
    """
    try:
        with zipfile.ZipFile(moved_path(path)) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file: {said_by(error)}") from error
    known = (*_ARRAY_PARTS, *_NAME_LISTS)
    parts: dict[str, list[str]] = {}
    for name in names:
        part, dot, leaf = name.partition(".")
        if part not in known or (dot and (not leaf or part in _NAME_LISTS)):
            raise InputError(f"{path.name} holds an array {name!r}; {suggest(part, known)}")
        parts.setdefault(part, []).append(name)
    _check_parts(path, parts)
    return {part: tuple(leaves) for part, leaves in parts.items()}


def _check_parts(path: Path, parts: Mapping[str, Sequence[str]]) -> None:
    for part, leaves in parts.items():
        if len(leaves) > 1 and part in leaves:
            raise InputError(
                f"{path.name} holds both {part!r} and {leaves[-1]!r}; give one array {part!r}, or"
                f" several that are named {part}.<name>"
            )
    found = f"it holds {', '.join(parts) or 'nothing'}"
    whole, apart = {"x", "y"} & parts.keys(), set(_ARRAY_PARTS[:6]) & parts.keys()
    if whole and apart:
        raise InputError(
            f"{path.name} must hold either x and y, or x_train, y_train, x_test and y_test; {found}"
        )
    wanted: tuple[str, ...] = ("x", "y") if whole else ("x_train", "y_train", "x_test", "y_test")
    if {"x_val", "y_val"} & parts.keys():
        wanted += ("x_val", "y_val")
    for part in wanted:
        if part not in parts:
            raise InputError(f"{path.name} lacks the array {part!r}; {found}")
