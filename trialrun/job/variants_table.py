"""A table of given variants, `search.from`: a CSV file that becomes rows of the job itself.

So a run needs the file only once: its own job file holds the rows. The values are checked in
`job.checks`, as those of a list are.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from trialrun.errors import InputError
from trialrun.job.data_files import find_data_file
from trialrun.job.document import Document, KeyPath, canonical_json, parse_value
from trialrun.job.problems import Problem
from trialrun.job.search_spec import SearchSpec
from trialrun.job.spec import Settings
from trialrun.messages import bytes_text, said_by, show

_PATH: KeyPath = ("search", "from")
_PARAMETER = "param."  # before a parameter's path in variants.csv
_MAX_BYTES = 16 << 20  # most columns of variants.csv are results
# The rows must fit into a run's job file, which is read again on resume.
_MAX_VALUES = 50_000
_MAX_CHARACTERS = 600_000


def with_rows(document: Document, folder: Path) -> Document:
    """The document with the rows of the file that `search.from` names in place of its name.

    Args:
        document: The job file.
        folder: The folder to which the file's path is relative.

    Raises:
        InputError: The file cannot be read as a table of variants.
    """
    search = document.value.get("search")
    name = search.get("from") if isinstance(search, dict) else None
    if not isinstance(name, str):
        return document
    try:
        path = Path(find_data_file(name, folder))
    except InputError as error:
        raise InputError(f"{document.location_of(_PATH)}: search.from: {error}") from error
    shown = folder / Path(name).expanduser()
    rows = list(_read_rows(path, str(shown)))
    if not rows:
        raise InputError(f"{shown}: holds no variant; give each of them a row below the header")
    content = [row for _, row in rows]
    num_values, num_characters = _num_values(content), len(canonical_json(content))
    if num_values > _MAX_VALUES or num_characters > _MAX_CHARACTERS:
        raise InputError(
            f"{shown}: is too large for a job; of {len(rows):,} rows, about"
            f" {_num_fitting(len(rows), num_values, num_characters):,} fit"
        )
    filled = document.with_value(_PATH, content, f"{shown}:1")
    lines = {(*_PATH, index): f"{shown}:{line}" for index, (line, _) in enumerate(rows)}
    return replace(filled, locations={**filled.locations, **lines})


def _read_rows(path: Path, shown: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its line: dotted path -> value; an empty cell gives none."""
    records = _records(path, shown)
    _, header = next(records, (1, []))
    columns = _parameter_columns([name.strip() for name in header], f"{shown}:1")
    parsed: dict[tuple[int, str], Any] = {}
    for line, record in records:
        if len(record) != len(header):
            raise InputError(
                f"{shown}:{line}: has {len(record)} fields, but the header has {len(header)}; put"
                " quotes around a field that holds a comma"
            )
        row = {}
        for column, name in columns.items():
            text = record[column].strip()
            if text:
                if (column, text) not in parsed:
                    parsed[column, text] = _value_of(text, f"{shown}:{line}: {name}")
                row[name] = parsed[column, text]
        if not row:
            what = "has no value in any column of a parameter"
            raise InputError(f"{shown}:{line}: {what}; leave it out, or write out the job's own")
        yield line, row


def _value_of(text: str, location: str) -> Any:
    """The value of a cell, as in YAML; a comment is refused, as it would be lost without a word."""
    value = parse_value(text, location)
    if "#" in text:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None or text[node.end_mark.index :].strip():
            raise InputError(
                f"{location}: {show(text)} holds a comment of YAML; write it in quotes"
            )
    return value


def _records(path: Path, shown: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file that are not blank, each with the line where it begins."""
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            limit = f"a table of variants may have at most {bytes_text(_MAX_BYTES)}"
            raise InputError(f"{shown}: {limit}, this file has {bytes_text(size)}")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: not UTF-8 text (byte {error.start}); save it so") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    line = 1
    try:
        for record in reader:
            if any(field.strip() for field in record):
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{shown}:{line}: cannot be read as CSV: {said_by(error)}") from error


def _parameter_columns(header: Sequence[str], where: str) -> dict[int, str]:
    """Index of a column -> the dotted path that it holds.

    Columns as `param.training.epochs` are from an earlier run's `variants.csv`, whose other columns
    are its results. Without them, each column is a parameter.
    """
    sections = tuple(f"{name}." for name in Settings._fields)
    has_results = any(name.startswith(_PARAMETER) for name in header)
    columns = {
        index: name.removeprefix(_PARAMETER)
        for index, name in enumerate(header)
        if not has_results or name.startswith((_PARAMETER, *sections))
    }
    for index, path in columns.items():
        if not path:
            raise InputError(f"{where}: column {index + 1} has no name; give it a dotted path")
        first = next(other for other in columns if columns[other] == path)
        if first != index:
            raise InputError(f"{where}: the columns {first + 1} and {index + 1} are both {path!r}")
    return columns


def _num_values(value: Any) -> int:
    """How many values and keys a value is made of, as the reader of job files counts them."""
    if isinstance(value, Mapping):
        return 1 + len(value) + sum(map(_num_values, value.values()))
    return 1 + sum(map(_num_values, value)) if isinstance(value, list) else 1


def _num_fitting(num_rows: int, num_values: int, num_characters: int) -> int:
    share = min(_MAX_VALUES / num_values, _MAX_CHARACTERS / num_characters)
    return int(share * num_rows)


# Checks ------------------------------------------------------------------------------------------


def check_table(search: SearchSpec) -> Iterator[Problem]:
    """Problems of the table as a whole; a row may lack values of some columns."""
    if search.method == "from" and search.rows is None:
        yield Problem(
            _PATH, "search.from is missing; give a CSV file with a column for each parameter"
        )
    elif search.method != "from" and search.rows is not None:
        message = f"search.from is only for method: from, got method: {search.method}"
        yield Problem(("search", "method"), message)
    if search.rows is not None and search.parameters:
        message = "search.parameters must be left out, because search.from has the values"
        yield Problem(("search", "parameters"), message)


def place_of_row(index: int) -> KeyPath:
    """Where a row stands in the job."""
    return (*_PATH, index)


def enumerated_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The different rows, each with its index where it stands first."""
    seen: set[str] = set()
    for index, row in enumerate(rows):
        if (key := canonical_json(row)) not in seen:
            seen.add(key)
            yield index, row


def rows_by_value(rows: Sequence[Mapping[str, Any]], path: str) -> Iterator[int]:
    """The index of the row in which each of the different values of a column stands first."""
    seen: set[str] = set()
    for index, row in enumerate(rows):
        if path in row and (key := canonical_json(row[path])) not in seen:
            seen.add(key)
            yield index
