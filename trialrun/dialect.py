"""How a table is written, and the records of a CSV file read by it, each with its line.

Fields are counted here, against the header: a row with another number of fields is refused. What
the fields mean is for `trialrun.cells`.
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

_OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MAX_SHOWN = 40
_MAX_FIELD = 1 << 30  # characters; Python's own limit is 131,072


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a table are written.

    Attributes:
        separator: One character between the fields of a CSV file.
        decimal: Before the fraction of a number.
        thousands: Between groups of three digits; None where there is nothing between them.
        encoding: Of a CSV file; a byte order mark is no part of its text.
        missing_values: What stands for a missing value besides an empty field; a number is
            compared by its value.
    """

    separator: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    missing_values: tuple[str | int | float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values of what is not the default, which `from_json` reads back."""
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
    """The names in the first record of a CSV file, without white space around them.

    Args:
        path: The file.
        dialect: How it is written.
        shown: What a message calls the file.

    Raises:
        InputError: It cannot be read, or holds nothing.
    """
    for _, record in _records(path, dialect, shown):
        return [name.strip() for name in record]
    raise InputError(f"{shown}: cannot be read as CSV: it is empty")


def read_records(path: Path, dialect: Dialect, shown: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each record begins, counted from 1, and its fields; the header is the first.

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
    """Records that are not blank; what goes wrong names its line."""
    line = 1
    try:
        with _open(path, dialect.encoding) as file:
            csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))  # a whole article
            # Strict: a quote without its end would take in the rest of the file.
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
                    f"{shown}:{line}: cannot be read as CSV: {error}; is a quote without its end?"
                ) from error
    except UnicodeError as error:
        raise InputError(_about_encoding(path, dialect.encoding, shown)) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"{shown}: cannot be read: {error}") from error


def _open(path: Path, encoding: str) -> IO[str]:
    # The codec's name in one spelling; this one of UTF-8 takes a byte order mark away.
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
        f"a {dialect.separator!r} inside a field needs quotes around the field, and the columns of"
        " another separator need data.separator"
        if len(record) > num_columns
        else "is a separator or a quote missing?"
    )
    return f"{where}: {len(record)} {noun}, the header has {num_columns}: {text!r}; {hint}"


def _about_encoding(path: Path, encoding: str, shown: str) -> str:
    """Where the first byte stands that is none of the encoding."""
    with _open_bytes(path) as file:
        content: bytes = file.read()
    if content.startswith(b"PK\x03\x04"):
        return f"{shown}: is a zip archive or a spreadsheet, no CSV file; save its table as CSV"
    if content.startswith(b"\x1f\x8b"):
        return f"{shown}: is compressed by gzip; give its name the ending .gz"
    try:
        content.decode(encoding)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line, byte = content.count(b"\n", 0, start) + 1, content[start : start + 1].hex()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        hint = "utf-16" if is_utf16 else "latin-1, cp1252, utf-16"
        return (
            f"{shown}:{line}: the byte 0x{byte} is not {encoding}; say how the file is written,"
            f" data.encoding: {hint}{'' if is_utf16 else ', ...'}"
        )
    return f"{shown}: cannot be read as {encoding}"
