"""The rows of a CSV or Parquet file before their cells are interpreted, with their lines."""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.errors import InputError
from trialrun.job.data_files import is_parquet
from trialrun.job.table_dialect import Dialect, read_records
from trialrun.job.table_spelling import clean_text
from trialrun.job.user_code.own_files import moved_path
from trialrun.messages import said_by

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_MAX_TABLES_KEPT = 4
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class RawTable:
    """Columns as a file holds them: texts of a CSV file, Arrow values of a Parquet file.

    Attributes:
        shown: How messages name the table.
        names: Distinct names of the columns, which are clean texts (see `clean_text`).
        columns: Arrow arrays (rows,), one per name.
        lines: For each row, int64 (rows,), the line where it begins in a CSV file, or its number
            from 1 in a Parquet file.
        is_csv: Whether `lines` are lines of a CSV file.
    """

    shown: str
    names: tuple[str, ...]
    columns: tuple["pa.ChunkedArray", ...]
    lines: npt.NDArray[np.int64]
    is_csv: bool

    def column(self, name: str) -> "pa.ChunkedArray":
        """The cells of a column."""
        return self.columns[self.names.index(name)]

    def at(self, line: int) -> str:
        """The location of a row, for the beginning of a message."""
        return f"{self.shown}:{line}" if self.is_csv else f"{self.shown}: row {line}"

    def as_written(self) -> "pd.DataFrame":
        """The cells as they are in the file; those of a CSV file are all texts.

        Integers of a column with missing values stay integers, as objects.
        """
        import pandas as pd

        columns = zip(self.names, self.columns, strict=True)
        return pd.DataFrame(
            {name: column.to_pandas(integer_object_nulls=True) for name, column in columns}
        )


def read_raw(path: Path, dialect: Dialect, shown: str) -> RawTable:
    """The rows of a whole file, cached until it changes, because every trial of a pack needs them.

    Args:
        path: The file, which is read as Parquet if it is, else as CSV.
        dialect: How a CSV file is written.
        shown: How messages name the file.

    Raises:
        InputError: The file cannot be read, has two columns of the same name, or has a row with
            another number of fields than the header. The message names the line.
    """
    path = moved_path(path)
    try:
        stat = path.stat()
        return _read_once(path, dialect, shown, stat.st_mtime_ns, stat.st_size)
    except OSError as error:  # it is a folder, or there is no permission to read it
        raise InputError(f"{shown}: cannot be read: {said_by(error)}") from error


@functools.lru_cache(maxsize=_MAX_TABLES_KEPT)
def _read_once(path: Path, dialect: Dialect, shown: str, modified_ns: int, size: int) -> RawTable:
    table = _read_parquet(path, shown) if is_parquet(path) else _read_csv(path, dialect, shown)
    check_distinct(table.names, shown)
    if not len(table.lines):
        raise InputError(f"{shown}: holds no rows")
    return table


def check_distinct(names: Sequence[str], shown: str) -> None:
    """Raises InputError if two columns have the same name."""
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(
            f"{shown}: has several columns named {doubled[0]!r}; names must be distinct"
        )


def _read_csv(path: Path, dialect: Dialect, shown: str) -> RawTable:
    import pyarrow as pa

    records = read_records(path, dialect, shown)
    _, header = next(records)
    lines: list[int] = []
    chunks: list[list[pa.Array]] = [[] for _ in header]
    rows: list[list[str]] = []

    def keep() -> None:
        for chunk, texts in zip(chunks, zip(*rows, strict=True), strict=True):
            chunk.append(pa.array(texts, pa.large_string()))
        rows.clear()

    for line, row in records:
        lines.append(line)
        rows.append(row)
        if len(rows) == _ROWS_AT_ONCE:
            keep()
    if rows:
        keep()
    columns = tuple(pa.chunked_array(chunk, pa.large_string()) for chunk in chunks)
    names = tuple(map(clean_text, header))
    return RawTable(shown, names, columns, np.array(lines, np.int64), is_csv=True)


def _read_parquet(path: Path, shown: str) -> RawTable:
    """The columns of a Parquet file; what pandas stores about an index is ignored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        arrow = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{shown}: cannot be read as Parquet: {said_by(error)}") from error
    return from_arrow(arrow, shown)


def from_arrow(arrow: "pa.Table", shown: str) -> RawTable:
    """The raw table of an Arrow table; its rows are counted from 1."""
    lines = np.arange(1, arrow.num_rows + 1, dtype=np.int64)
    names = tuple(map(clean_text, arrow.column_names))
    return RawTable(shown, names, tuple(arrow.columns), lines, is_csv=False)


def from_frame(frame: "pd.DataFrame", shown: str, wanted: Collection[str]) -> RawTable:
    """The raw table of a DataFrame, without its index.

    Args:
        frame: The DataFrame; columns that are not wanted may hold anything and become empty.
        shown: How messages name it.
        wanted: Names of the wanted columns.

    Raises:
        InputError: The DataFrame has no rows, two columns of the same name, or a wanted column that
            holds neither numbers nor text.
    """
    import pyarrow as pa

    names = tuple(clean_text(str(name)) for name in frame.columns)
    check_distinct(names, shown)
    if not len(frame):
        raise InputError(f"{shown}: holds no rows")
    columns = [
        _to_arrow(frame.iloc[:, index], name, shown) if name in wanted else pa.nulls(len(frame))
        for index, name in enumerate(names)
    ]
    return from_arrow(pa.table(columns, names), shown)


def _to_arrow(values: "pd.Series[Any]", name: str, shown: str) -> "pa.Array":
    import pyarrow as pa

    if values.dtype == object:
        given = values.dropna()
        # A mix of numbers and texts becomes texts, as in a CSV file.
        if any(isinstance(value, str) for value in given):
            values = values.map(str, na_action="ignore")
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(
            f"{shown}: column {name!r} holds neither numbers nor text: {said_by(error)}"
        ) from error
