"""What submit_ray.sh sends: the job file, the files that it names, and what their code imports."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from trialrun.errors import InputError
from trialrun.host import path_from
from trialrun.job.document import parse_value, read_document
from trialrun.job.user_code.depends_on import files_named
from trialrun.job.user_code.functions import parse_reference
from trialrun.job.user_code.imports import own_files
from trialrun.job.user_code.source_hints import hints_of
from trialrun.job.variants_table import with_rows
from trialrun.messages import bytes_text, counted, visible

_MAX_FILES_SHOWN = 20
_NUM_LARGEST = 3
_FUNCTION = re.compile(r"(.+\.py|[^\W\d]\w*(?:\.[^\W\d]\w*)*):[^\W\d]\w*")
_DATA_FIELDS = ("csv", "parquet", "npz", "test")
_PATTERN_FIELDS = ("data.depends_on", "model.depends_on")
_OTHER_FIELDS = (*_PATTERN_FIELDS, "search.from")


class Needed(NamedTuple):
    """What a job needs of this machine.

    Attributes:
        files: In the job's folder, sorted; they are sent.
        elsewhere: Modules of the user that its code imports from other folders; they stay here.
        reads_files: The first file and line of its code that seems to read a file; empty if none
            does, or if the job names files that its code depends on.
    """

    files: list[Path]
    elsewhere: list[Path]
    reads_files: str


def find_needed(job: Path, options: Sequence[str]) -> Needed:
    """Finds what a job needs, and refuses a job that needs what would not be sent.

    A data file with an absolute path is not looked for: it may be on storage that all nodes see.

    Args:
        job: The job file.
        options: trialrun's options, of which `--set` may name files too.

    Raises:
        InputError: A file is missing here, or lies where it is not sent from.
    """
    job = job.resolve()
    folder = job.parent
    files, elsewhere, hints = {job}, set[Path](), dict[str, None]()
    document = read_document(job)
    named = list(_named_files(_texts(document.value, ""), options))
    for field, text in named:  # a table adds to it
        if field in _PATTERN_FIELDS:
            _require_beside(job, field, Path(text))
            found = [Path(file) for file in files_named([os.path.normpath(folder / text)])]
            _require_inside(job, field, found)
            files.update(found)
        elif function := _FUNCTION.fullmatch(text):
            source = _source_of(job, field, function[1])
            if source is None:
                continue
            reference = f"{source}:{text.rpartition(':')[2]}"
            # On the cluster the job is run in this folder, and Ray lets Python search it.
            with mock.patch.object(sys, "path", [str(folder), *sys.path]):
                found = [file.path for file in own_files(parse_reference(reference))]
                hints[hints_of(reference).reads_files] = None
            inside = [path for path in found if path.is_relative_to(folder)]
            _require_inside(job, field, inside)
            files.update(inside)
            elsewhere.update(path for path in found if path not in inside)
        elif not (path := path_from(text)).is_absolute():
            files.add(_file_of(job, field, path))
            if field == "search.from":
                table = with_rows(document.with_value(("search", "from"), text, str(job)), folder)
                named += _named_files(_texts(table.value["search"]["from"], field), ())
    names_files = any(field in _PATTERN_FIELDS for field, _ in named)
    reads_files = "" if names_files else next(filter(None, hints), "")
    return Needed(sorted(files), sorted(elsewhere), reads_files)


def describe(folder: Path, needed: Needed) -> str:
    """How many files are sent, how large they are, and their names; of many, the largest."""
    files = needed.files
    sizes = {path: path.stat().st_size for path in files}
    largest = sorted(files, key=lambda path: -sizes[path])[:_MAX_FILES_SHOWN]
    total = bytes_text(sum(sizes.values()))
    lines = [f"Sending {counted(len(files), 'file')} of {folder}, {total}:"]
    for path in [path for path in files if path in largest]:
        lines.append(f"  {visible(str(path.relative_to(folder)))}  {bytes_text(sizes[path])}")
    if num_more := len(files) - len(largest):
        lines.append(f"  and {counted(num_more, 'smaller file')}")
    if needed.elsewhere:
        paths = ", ".join(visible(str(path)) for path in needed.elsewhere[:_NUM_LARGEST])
        num_more = len(needed.elsewhere) - _NUM_LARGEST
        lines.append(
            f"Warning: the job's code imports {paths}{f' and {num_more} more' * (num_more > 0)},"
            f" which is outside of {folder} and is not sent; install it on the cluster, or move it"
            " beside the job file"
        )
    if needed.reads_files:
        lines.append(
            f"Warning: {visible(needed.reads_files)} seems to read a file. What the code reads is"
            " sent if data.depends_on or model.depends_on names it"
        )
    return "\n".join(lines)


def largest_text(folder: Path, files: Sequence[Path]) -> str:
    """The largest of some files with their sizes, for a message."""
    largest = sorted(files, key=lambda path: -path.stat().st_size)[:_NUM_LARGEST]
    return ", ".join(
        f"{path.relative_to(folder)} ({bytes_text(path.stat().st_size)})" for path in largest
    )


def copy_to(copy: Path, folder: Path, files: Iterable[Path]) -> None:
    """Makes a folder that holds nothing but some files of another, for Ray to send."""
    for path in files:
        place = copy / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), place)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, place)


def _source_of(job: Path, field: str, source: str) -> str | None:
    """The source of a reference, with the path of a file made absolute.

    None for a module that is not in the job's folder: the cluster must have it.
    """
    if source.endswith(".py"):
        return str(_file_of(job, field, path_from(source)))
    top = job.parent / source.partition(".")[0]
    try:
        return source if top.is_dir() or top.with_suffix(".py").is_file() else None
    except OSError:  # the text is too long for a name
        return None


def _file_of(job: Path, field: str, path: Path) -> Path:
    """The absolute path of a file that a field names by a path from the job's folder."""
    here = job.parent / path
    _require_beside(job, field, path)
    try:
        if not here.exists():
            raise InputError(f"{job}: {field}: there is no file {here}")
        if not here.is_file():
            raise InputError(f"{job}: {field}: {here} is not a file")
    except OSError as error:
        raise InputError(f"{job}: {field}: {path} cannot be read: {error.strerror}") from error
    _require_inside(job, field, [here])
    return here


def _require_beside(job: Path, field: str, path: Path) -> None:
    """Refuses a path that means another file, or none, where the job's folder is another."""
    if path.is_absolute() or ".." in path.parts:
        raise InputError(
            f"{job}: {field}: {visible(str(path))} is not sent to the cluster, only files in"
            f" {job.parent}; copy it beside the job file, and name it by its path from there"
        )


def _require_inside(job: Path, field: str, needed: Iterable[Path]) -> None:
    """Refuses files outside of the job's folder, and files and folders that begin with a dot."""
    for path in needed:
        if not path.is_relative_to(job.parent):
            why = f"it lies outside of {job.parent}"
        elif any(part.startswith(".") for part in path.relative_to(job.parent).parts):
            why = "a file or folder whose name begins with a dot may hold what is secret"
        else:
            continue
        raise InputError(
            f"{job}: {field}: {visible(str(path))}, which it needs, is not sent to the cluster:"
            f" {why}"
        )


def _named_files(
    given: Iterable[tuple[str, str]], options: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Dotted path -> text, of all texts of a job that name a file or a function.

    The values of a searched parameter count as if the job had them itself.
    """
    given = list(given)
    for option, text in zip(("", *options), (*options, ""), strict=True):
        assignment = text if option == "--set" else option.removeprefix("--set=")
        if option == "--set" or option.startswith("--set="):
            field, _, value = assignment.partition("=")
            given += _texts(parse_value(value, f"--set {assignment}"), field.strip())
    data = {f"data.{name}" for name in _DATA_FIELDS}
    for where, text in given:
        field = where.removeprefix("search.parameters.").removeprefix("search.from.")
        field = field.removesuffix(".values")
        if field in data or field in _OTHER_FIELDS or _FUNCTION.fullmatch(text):
            yield field, text


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, field)
