"""How a table is written, and the records of a CSV file that is read accordingly, with their lines.

A row with another number of fields than the header is refused here. What the fields mean is decided
in `trialrun.data.table.cells`.
"""

import bz2
import codecs
import csv
import gzip
import io
import lzma
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from trialrun.errors import InputError
from trialrun.messages import said_by

_OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MAX_SHOWN = 40
_MAX_FIELD = 1 << 30  # characters; Python's own limit is 131,072


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a table are written.

    Attributes:
        separator: The character between the fields of a CSV file.
        decimal: The character before the fraction of a number.
        thousands: The character between groups of three digits; None if digits are not grouped.
        encoding: The encoding of a CSV file; a byte order mark is not part of its text.
        missing_values: Texts and numbers that stand for a missing value, besides an empty field; a
            number is compared by its value.
    """

    separator: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    missing_values: tuple[str | int | float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields that are not the default, as plain values that `from_json` reads back."""
        default = asdict(Dialect())
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Dialect":
        """The dialect that `to_json` wrote."""
        missing = tuple(values.get("missing_values", ()))
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        return cls(**{**given, "missing_values": missing})


def read_header(path: Path, dialect: Dialect, shown: str) -> list[str]:
    """The names in the first record of a CSV file, as they are written there.

    Args:
        path: The file.
        dialect: How it is written.
        shown: How messages name the file.

    Raises:
        InputError: The file cannot be read or is empty.
    """
    for _, record in _records(path, dialect, shown):
        return record
    raise InputError(f"{shown}: cannot be read as CSV: it is empty")


def read_records(path: Path, dialect: Dialect, shown: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each record begins, counted from 1, and its fields; the header comes first.

    Blank lines are left out.

    Raises:
        InputError: The file cannot be read, or a row has another number of fields than the header.
    """
    num_columns = 0
    for line, record in _records(path, dialect, shown):
        num_columns = num_columns or len(record)
        if len(record) != num_columns:
            raise InputError(_about_fields(f"{shown}:{line}", record, num_columns, dialect))
        yield line, record
    if not num_columns:
        raise InputError(f"{shown}: cannot be read as CSV: it is empty")


def _records(path: Path, dialect: Dialect, shown: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with its line; errors name the line."""
    line = 1
    try:
        with _open(path, dialect.encoding) as file:
            # A field may hold a whole article.
            csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
            # Strict, so that a quote that is never closed is an error; otherwise the field would
            # swallow the rest of the file.
            reader = csv.reader(
                file,
                delimiter=dialect.separator,
                strict=True,
                skipinitialspace=dialect.separator != " ",
            )
            try:
                for record in reader:
                    if len(record) > 1 or (record and record[0].strip()):
                        yield line, record
                    line = reader.line_num + 1
            except csv.Error as error:
                raise InputError(
                    f"{shown}:{line}: cannot be read as CSV: {said_by(error)}; is a closing"
                    " quote missing?"
                ) from error
    except UnicodeError as error:
        raise InputError(_about_encoding(path, dialect.encoding, shown)) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"{shown}: cannot be read: {said_by(error)}") from error


def _open(path: Path, encoding: str) -> IO[str]:
    # `lookup` gives one spelling of the codec's name. The codec utf-8-sig drops a byte order mark.
    name = codecs.lookup(encoding).name
    return io.TextIOWrapper(
        _open_bytes(path), encoding="utf-8-sig" if name == "utf-8" else name, newline=""
    )


def _open_bytes(path: Path) -> Any:
    return _OPENERS.get(path.suffix.lower(), open)(path, "rb")


def _about_fields(where: str, record: list[str], num_columns: int, dialect: Dialect) -> str:
    text = dialect.separator.join(record)
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}..."
    noun = "field" if len(record) == 1 else "fields"
    hint = (
        f"put quotes around a field that holds {dialect.separator!r}, or give data.separator if"
        " another character separates the columns"
        if len(record) > num_columns
        else "is a separator or a quote missing?"
    )
    return f"{where}: {len(record)} {noun}, but the header has {num_columns}: {text!r}; {hint}"


def _about_encoding(path: Path, encoding: str, shown: str) -> str:
    """The message about a file that is not in its encoding, with the first wrong byte's line."""
    with _open_bytes(path) as file:
        content: bytes = file.read()
    if content.startswith(b"PK\x03\x04"):
        return f"{shown}: is a zip archive or a spreadsheet, not a CSV file; save its table as CSV"
    if content.startswith(b"\x1f\x8b"):
        return f"{shown}: is compressed by gzip; rename it so that its name ends in .gz"
    try:
        content.decode(encoding)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line, byte = content.count(b"\n", 0, start) + 1, content[start : start + 1].hex()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        hint = "utf-16" if is_utf16 else "latin-1, cp1252, utf-16"
        return (
            f"{shown}:{line}: the byte 0x{byte} is not {encoding}; give the file's encoding as"
            f" data.encoding: {hint}{'' if is_utf16 else ', ...'}"
        )
    return f"{shown}: cannot be read as {encoding}"
