"""What submit_ray.sh sends of a job's folder: no dotfiles, but all files that the job names."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trialrun.errors import InputError
from trialrun.job.document import parse_value, read_document
from trialrun.job.user_code.depends_on import files_named
from trialrun.job.user_code.functions import Reference
from trialrun.job.user_code.imports import own_files
from trialrun.messages import bytes_text, counted, visible

# What Ray leaves out, as in a .gitignore. A name of a dot alone would be the folder itself.
STAYS_HERE = [".?*", "runs/", "__pycache__/"]
_MAX_FILES_SHOWN = 20
_NUM_LARGEST = 3
_OF_FILE = re.compile(r"([^:]+\.py):\w+")
_DATA_FIELDS = ("csv", "parquet", "npz", "test")
_PATTERN_FIELDS = ("data.depends_on", "model.depends_on")
_OTHER_FIELDS = (*_PATTERN_FIELDS, "search.from")


def files_to_send(folder: Path) -> list[Path]:
    """The files of a folder that Ray will send, sorted: by its own rules.

    Raises:
        InputError: The folder holds a pipe or a device, which Ray would wait for.
    """
    from ray._private.runtime_env import packaging

    found: list[Path] = []
    excludes = [packaging._get_excludes(folder, STAYS_HERE)]
    packaging._dir_travel(folder, excludes, found.append, include_gitignore=True)
    for path in found:
        if not path.is_file() and not path.is_dir() and path.exists():
            raise InputError(f"{path}: is neither a file nor a folder, and cannot be sent")
    return sorted(path for path in found if path.is_file())


def describe(folder: Path, files: Sequence[Path]) -> str:
    """How many files are sent, how large they are, and their names; of many, the largest."""
    sizes = {path: path.stat().st_size for path in files}
    largest = sorted(files, key=lambda path: -sizes[path])[:_MAX_FILES_SHOWN]
    total = bytes_text(sum(sizes.values()))
    lines = [f"Sending {counted(len(files), 'file')} of {folder}, {total}:"]
    for path in [path for path in files if path in largest]:
        lines.append(f"  {visible(str(path.relative_to(folder)))}  {bytes_text(sizes[path])}")
    if num_more := len(files) - len(largest):
        lines.append(f"  and {counted(num_more, 'smaller file')}")
    return "\n".join(lines)


def largest_text(folder: Path, files: Sequence[Path]) -> str:
    """The largest of some files with their sizes, for a message."""
    largest = sorted(files, key=lambda path: -path.stat().st_size)[:_NUM_LARGEST]
    return ", ".join(
        f"{path.relative_to(folder)} ({bytes_text(path.stat().st_size)})" for path in largest
    )


def check_files(job: Path, options: Sequence[str], sent: Sequence[Path]) -> None:
    """Refuses a job that names a file beside it that is not sent.

    A data file with an absolute path is not looked for: it may be on storage that all nodes see.

    Args:
        job: The job file.
        options: trialrun's options, of which `--set` may name files too.
        sent: The files that are sent.

    Raises:
        InputError: A file is missing here, or stays here.
    """
    folder, known = job.resolve().parent, {path.resolve() for path in sent}
    for field, text in _named_files(read_document(job).value, options):
        match = _OF_FILE.fullmatch(text)
        path = Path(match[1] if match else text).expanduser()
        if not match and path.is_absolute():
            continue
        if field in _PATTERN_FIELDS:
            _require_sent(job, field, known, files_named([str(folder / path)]))
            continue
        here = (folder / path).resolve()
        if here in known and not path.is_absolute() and ".." not in path.parts:
            if match:
                imported = [file.path for file in own_files(Reference(str(here), ""))]
                inside = [one for one in imported if one.resolve().is_relative_to(folder)]
                _require_sent(job, field, known, inside)
            continue
        if here.is_relative_to(folder) and "runs" not in path.parts and not here.is_file():
            raise InputError(f"{job}: {field}: there is no file {here}")
        raise InputError(
            f"{job}: {field}: {visible(text)} is not sent to the cluster, only {folder} without its"
            " runs/, dotfiles, and what .gitignore and .rayignore name; copy it beside the job"
            " file, and name it by its path from there"
        )


def _require_sent(
    job: Path, field: str, known: Collection[Path], needed: Iterable[str | Path]
) -> None:
    for file in needed:
        if Path(file).resolve() not in known:
            raise InputError(
                f"{job}: {field}: {visible(str(file))}, which it needs, is not sent to the cluster:"
                " it is a dotfile, lies outside of the job's folder or in runs/, or is named in"
                " .gitignore or .rayignore"
            )


def _named_files(job: Any, options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Dotted path -> text, of all texts of a job that name a file."""
    given = [(field, value) for field, value in _texts(job, "")]
    for option, text in zip(("", *options), (*options, ""), strict=True):
        assignment = text if option == "--set" else option.removeprefix("--set=")
        if option == "--set" or option.startswith("--set="):
            field, _, value = assignment.partition("=")
            given += _texts(parse_value(value, f"--set {assignment}"), field.strip())
    data = {f"data.{name}" for name in _DATA_FIELDS}
    for field, text in given:
        if field in data or field in _OTHER_FIELDS or _OF_FILE.fullmatch(text):
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
