"""What submit_ray.sh sends: the job file, the files that it names, and what their code imports."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import click

from trialrun.cli import cli
from trialrun.errors import InputError
from trialrun.host import path_from
from trialrun.job import REFERENCE_PATHS, may_hold_references
from trialrun.job.document import read_document
from trialrun.job.fields import CALLBACKS_PATH
from trialrun.job.keras_api.own_terms import own_terms
from trialrun.job.load import overridden
from trialrun.job.user_code.depends_on import files_named
from trialrun.job.user_code.functions import check_reference, find_source, parse_reference
from trialrun.job.user_code.imports import own_files
from trialrun.job.user_code.own_files import is_users_own
from trialrun.job.user_code.source_hints import hints_of
from trialrun.job.variants_table import with_rows
from trialrun.messages import bytes_text, counted, visible

_MAX_FILES_SHOWN = 20
_NUM_LARGEST = 3
_MAX_BYTES = 1 << 30  # Ray takes 100 MiB when packed; far more is not even packed
_SECTIONS = ("", "data", "model", "training", "search")
_DATA_PATHS = tuple(f"data.{name}" for name in ("csv", "parquet", "npz", "test"))
_PATTERN_PATHS = ("data.depends_on", "model.depends_on")
_TABLE_PATH = "search.from"
# On the cluster Python looks into the job's folder first, from the start of each process.
_NOT_TO_BE_REPLACED = sys.stdlib_module_names - {"test"} | {
    *("click", "jinja2", "keras", "matplotlib", "numpy", "packaging", "pandas", "pyarrow"),
    *("pydantic", "ray", "rich", "scipy", "sklearn", "tensorflow", "trialrun", "yaml"),
}


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
        InputError: An option is wrong, or a file is missing here, or lies where it is not sent
            from, or would break Python on the cluster.
    """
    job = job.parent.resolve() / job.name  # where a link lies, and not where it leads
    files, elsewhere, hints = {job}, set[Path](), list[str]()
    _require_inside(job, "the job itself", files)
    document = overridden(read_document(job), _overrides(job, options))
    table = dict(_fields(document.value)).get(_TABLE_PATH)
    if isinstance(table, str):
        path = path_from(table)
        if not path.is_absolute():
            files.add(_file_of(job, _TABLE_PATH, path))
        if not path.is_absolute() or path.is_file():
            document = with_rows(document, job.parent)
    fields = list(_fields(document.value))
    for field, value in fields:
        found = list(_data_files(job, field, value))
        for text in _references(field, value):
            code, hint = _code_of(job, field, text)
            found += code
            hints.append(hint)
        inside = [path for path in found if path.is_relative_to(job.parent)]
        _require_inside(job, field, inside)
        files.update(inside)
        elsewhere.update(path for path in found if path not in inside)
    _require_harmless(job, files)
    names_files = any(field in _PATTERN_PATHS and value for field, value in fields)
    reads_files = "" if names_files else next(filter(None, hints), "")
    return Needed(sorted(files), sorted(elsewhere), reads_files)


def describe(folder: Path, needed: Needed) -> str:
    """How many files are sent, how large they are, and their names; of many, the largest."""
    files = needed.files
    sizes = {path: path.stat().st_size for path in files}
    largest = sorted(files, key=lambda path: -sizes[path])[:_MAX_FILES_SHOWN]
    total = bytes_text(sum(sizes.values()))
    lines = [f"Sending {counted(len(files), 'file')} of {_shown(folder)}, {total}:"]
    for path in [path for path in files if path in largest]:
        leads = "" if (real := path.resolve()).is_relative_to(folder) else f" -> {_shown(real)}"
        lines.append(f"  {_shown(path.relative_to(folder))}{leads}  {bytes_text(sizes[path])}")
    if num_more := len(files) - len(largest):
        lines.append(f"  and {counted(num_more, 'smaller file')}")
    if needed.elsewhere:
        paths = ", ".join(_shown(path) for path in needed.elsewhere[:_NUM_LARGEST])
        num_more = len(needed.elsewhere) - _NUM_LARGEST
        lines.append(
            f"Warning: the job's code imports {paths}{f' and {num_more} more' * (num_more > 0)},"
            f" which is outside of {_shown(folder)} and is not sent; install it on the cluster, or"
            " move it beside the job file"
        )
    if needed.reads_files:
        lines.append(
            f"Warning: {visible(needed.reads_files)} seems to read a file. What the code reads is"
            " sent if data.depends_on or model.depends_on names it"
        )
    return "\n".join(lines)


def _largest_text(folder: Path, files: Sequence[Path]) -> str:
    """The largest of some files with their sizes, for a message."""
    largest = sorted(files, key=lambda path: -path.stat().st_size)[:_NUM_LARGEST]
    return ", ".join(
        f"{_shown(path.relative_to(folder))} ({bytes_text(path.stat().st_size)})"
        for path in largest
    )


def require_sendable(job: Path, files: Sequence[Path]) -> None:
    """Raises InputError for files that are too large for Ray however well they can be packed."""
    if sum(path.stat().st_size for path in files) > _MAX_BYTES:
        raise too_large(job, files)


def too_large(job: Path, files: Sequence[Path]) -> InputError:
    """What is wrong if Ray does not take a job's files, and what to do."""
    return InputError(
        f"{job}: its files are too large to send; the largest are"
        f" {_largest_text(job.parent, files)}; keep large data on storage that all nodes see, and"
        " name it by its absolute path"
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


# What a job names ----------------------------------------------------------------------------


def _overrides(job: Path, options: Sequence[str]) -> Sequence[str]:
    """The values of `--set`, as `trialrun run` reads its options, which are all checked."""
    try:
        context = cli.commands["run"].make_context("trialrun run", [command_path(job), *options])
    except click.UsageError as error:
        raise InputError(
            f"{error.format_message()} What follows the job file are options of `trialrun run`"
        ) from error
    overrides: Sequence[str] = context.params["overrides"]
    return overrides


def command_path(job: Path) -> str:
    """The job file as an argument of a command that runs in its folder."""
    return f"./{job.name}" if job.name.startswith("-") else job.name


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path -> value, of all fields of a job, and of all values that the search gives one."""
    if path in _SECTIONS and isinstance(value, dict):
        for key, item in value.items():
            yield from _fields(item, f"{path}.{key}" if path else key)
    elif path == "search.parameters" and isinstance(value, dict):
        for searched, domain in value.items():
            values = domain.get("values") if isinstance(domain, dict) else None
            for item in values if isinstance(values, list) else ():
                yield from _fields(item, searched)
    elif path == _TABLE_PATH and isinstance(value, list):
        for row in value:
            for searched, item in row.items() if isinstance(row, dict) else ():
                yield from _fields(item, searched)
    else:
        yield path, value


def _data_files(job: Path, field: str, value: Any) -> Iterator[Path]:
    """The files in the job's folder that a field names and that are no code."""
    if field in _DATA_PATHS and isinstance(value, str):
        if not (path := path_from(value)).is_absolute():
            yield _file_of(job, field, path)
    elif field in _PATTERN_PATHS and isinstance(value, list):
        for text in filter(_is_text, value):
            _require_beside(job, field, path_from(text))
            with _located(job, field):
                yield from map(Path, files_named([os.path.normpath(job.parent / text)]))


def _references(field: str, value: Any) -> Iterator[str]:
    """The references to functions in a field's value."""
    if field in REFERENCE_PATHS or field == CALLBACKS_PATH:
        yield from filter(_is_text, value if isinstance(value, list) else [value])
    elif may_hold_references(field):
        yield from (text for text, _ in own_terms(value) if _is_text(text))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _code_of(job: Path, field: str, text: str) -> tuple[list[Path], str]:
    """The user's files that a reference needs, and where they first seem to read a file.

    No files for a module that is not here, or installed: the cluster must have it.
    """
    with _located(job, field):
        reference = parse_reference(text)
    if reference.is_file:
        text = f"{_file_of(job, field, path_from(reference.source))}:{reference.function}"
        reference = parse_reference(text)
    # On the cluster the job is run in this folder, and Ray lets Python search it.
    with mock.patch.object(sys, "path", [str(job.parent), *sys.path]):
        try:
            source = find_source(reference, job.parent)
            if source is not None and not is_users_own(source):
                return [], ""
            check_reference(text, job.parent)
            found = [file.path for file in own_files(reference)]
            hint = hints_of(text).reads_files
        except InputError as error:
            if reference.is_file or _is_beside(job, reference.source):
                raise InputError(f"{job}: {field}: {error}") from error
            return [], ""
    return [path for path in found if is_users_own(path)], hint


@contextlib.contextmanager
def _located(job: Path, field: str) -> Iterator[None]:
    """Puts the job and the field before the message of what is raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{job}: {field}: {error}") from error


def _is_beside(job: Path, module: str) -> bool:
    """Whether a module, or the package that it is in, lies in the job's folder."""
    top = job.parent / module.partition(".")[0]
    try:
        return top.is_dir() or top.with_suffix(".py").is_file()
    except OSError:  # the text is too long for a name
        return False


# What is refused ------------------------------------------------------------------------------


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
            f"{job}: {field}: {_shown(path)} is not sent to the cluster, only files in"
            f" {job.parent}; copy it beside the job file, and name it by its path from there"
        )


def _require_inside(job: Path, field: str, needed: Iterable[Path]) -> None:
    """Refuses files outside of the job's folder, and what begins with a dot by whatever name."""
    for path in needed:
        real = path.resolve()
        leads = "" if real == path else f" is a link to {_shown(real)}, and"
        if not path.is_relative_to(job.parent):
            why = f"it lies outside of {job.parent}"
        elif _is_hidden(path, job.parent) or _is_hidden(real, job.parent):
            why = "a file or folder whose name begins with a dot may hold what is secret"
        else:
            continue
        raise InputError(
            f"{job}: {field}: {_shown(path)}, which it needs,{leads} is not sent to the cluster:"
            f" {why}; put a copy under another name into the job's folder"
        )


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether a name begins with a dot on the way to a path from a folder or the nearest around."""
    around = os.path.commonpath([path, folder])
    return any(part.startswith(".") for part in path.relative_to(around).parts)


def _require_harmless(job: Path, files: Iterable[Path]) -> None:
    """Refuses modules that Python, Ray and trialrun would import there instead of others."""
    for path in sorted(files):
        top, *inside = path.relative_to(job.parent).parts
        name, _, suffix = (inside[0] if inside else top).partition(".")
        is_first = name == "__init__" if inside else True
        module = top if inside else name
        if is_first and suffix.endswith(("py", "so")) and module in _NOT_TO_BE_REPLACED:
            raise InputError(
                f"{job}: {_shown(path)}, which it needs, would be imported on the cluster in"
                f" place of {module}, which Python or trialrun needs, by Ray too; rename it"
            )


def _shown(path: Path) -> str:
    """A path in one line of visible text."""
    return visible(str(path)).replace("\n", "␊").replace("\t", "␉")
