"""What the cells of one column mean: a number, a text, or a missing value.

Nothing is guessed: a cell is missing only if it is empty or holds one of the job's missing values;
a text is a number only if it is written as one. A number that float32 cannot hold is refused here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.data.table.raw import RawTable
from trialrun.errors import InputError
from trialrun.job.table_dialect import Dialect
from trialrun.job.table_spelling import (
    SPACES,
    canonical_text,
    clean_text,
    number_of,
    number_pattern,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CellKind = Literal["number", "boolean", "text", "categories", "date"]
_MAX_EXACT = 2**53  # whole numbers up to here are floats
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of a column.

    Attributes:
        table: The table that holds them.
        name: The name of the column.
        kind: `number` or `boolean` if every cell that is not missing is one; `categories` for
            texts that a Parquet file declares to be categories; `date` for its dates and times.
        arrow: The cells as read; text is clean (see `clean_text`).
        values: float64 (rows,); NaN where a cell is missing or no number; booleans are 0 and 1.
        is_missing: bool (rows,).
        is_number: bool (rows,); true for each boolean that is not missing.
        order: The categories of a Parquet file's column if it declares an order, as written there.
        dialect: How numbers and missing values are written.
    """

    table: RawTable
    name: str
    kind: CellKind
    arrow: "pa.Array"
    values: npt.NDArray[np.float64]
    is_missing: npt.NDArray[np.bool_]
    is_number: npt.NDArray[np.bool_]
    order: tuple[str, ...] | None
    dialect: Dialect

    @property
    def is_amount(self) -> bool:
        """Whether it holds only numbers or only booleans, beside missing values."""
        return self.kind in ("number", "boolean")

    @property
    def is_stored_as_text(self) -> bool:
        """Whether a file that declares types says that its numbers are texts."""
        import pyarrow as pa

        types = (pa.types.is_string, pa.types.is_large_string)
        is_text = any(is_type(self.arrow.type) for is_type in types)
        return self.kind == "number" and is_text and not self.table.is_csv

    @property
    def shown(self) -> str:
        """The column as messages name it."""
        return f"{self.table.shown}: column {self.name!r}"

    def at(self, row: int) -> str:
        """The location of a cell, for the beginning of a message."""
        return f"{self.table.at(int(self.table.lines[row]))}: column {self.name!r}"

    def written(self, row: int) -> str:
        """The text of a cell as it is written in the table."""
        return str(self.arrow[row].as_py())

    def numbers(self) -> "pd.Series[Any]":
        """The cells as float64, NaN where one is missing; the index holds the lines.

        Raises:
            InputError: A cell is no number, is infinite, or is beyond what a float holds. The
                message names its line.
        """
        import pandas as pd

        wrong = np.flatnonzero(~self.is_number & ~self.is_missing)
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{self.at(row)} must hold numbers, found {self.written(row)!r}"
                f" ({len(wrong)} of {len(self.values)} cells are no numbers)"
            )
        self._check_range()
        return pd.Series(self.values, self.table.lines, name=self.name)

    def _check_range(self) -> None:
        with np.errstate(invalid="ignore"):
            too_large = ~self.is_missing & ~(np.abs(self.values) <= _MAX_FLOAT32)
        if too_large.any():
            row = int(np.flatnonzero(too_large)[0])
            what = "no finite number" if self._is_infinite(row) else "beyond the range of float32"
            raise InputError(
                f"{self.at(row)} holds {self.written(row)}, {what}, in {int(too_large.sum())} rows;"
                " give the column in another unit, or leave it out with data.columns"
            )
        large: list[int] = np.flatnonzero(np.abs(self.values) >= _MAX_EXACT).tolist()
        for row in filter(self._is_rounded, large):
            raise InputError(
                f"{self.at(row)} holds {self.written(row)}, a whole number that no float holds"
                f" exactly (floats are exact up to {_MAX_EXACT:,}); if the column holds ids, leave"
                " it out with data.columns or name it in data.categorical"
            )

    def _is_infinite(self, row: int) -> bool:
        return not any(digit.isdigit() for digit in self.written(row))

    def _is_rounded(self, row: int) -> bool:
        """Whether a large whole number, written with all its digits, changes as a float."""
        import pyarrow as pa

        if pa.types.is_floating(self.arrow.type):
            return False
        text = self.written(row)
        for mark in (self.dialect.thousands or "", "+"):
            text = text.replace(mark, "") if mark else text
        return text.removeprefix("-").isdecimal() and int(text) != int(self.values[row])

    def texts(self) -> "pd.Series[Any]":
        """Categories as canonical texts, None where one is missing; the index holds the lines."""
        import pandas as pd

        known: dict[Any, str] = {}
        cells: list[str | None] = []
        for value, missing in zip(self._exact(), self.is_missing, strict=True):
            if not missing and value not in known:
                known[value] = canonical_text(value, self.dialect)
            cells.append(None if missing else known[value])
        return pd.Series(np.array(cells, object), self.table.lines, dtype=object, name=self.name)

    def _exact(self) -> Sequence[Any]:
        """The cells as values that are written without loss: a float32 0.1 as 0.1."""
        import pyarrow as pa

        if pa.types.is_floating(self.arrow.type):
            return list(self.arrow.to_numpy(zero_copy_only=False))
        values: list[Any] = self.arrow.to_pylist()
        return values


def cells_of(table: RawTable, name: str, dialect: Dialect) -> Cells:
    """The cells of a column of a table.

    Args:
        table: The table as it was read.
        name: The name of the column.
        dialect: How its numbers and missing values are written.

    Raises:
        InputError: The file declares the column to be neither numbers nor text.
    """
    import pyarrow as pa

    arrow, order, is_category = _without_dictionary(table.column(name))
    is_date = pa.types.is_temporal(arrow.type)  # a pandas period is not: it is an extension type
    if is_date or pa.types.is_null(arrow.type):
        arrow = _as_strings(arrow, f"{table.shown}: column {name!r}")
    if pa.types.is_string(arrow.type) or pa.types.is_large_string(arrow.type):
        found = _written(arrow, dialect)
        if is_date or is_category:
            found = found._replace(kind="date" if is_date else "categories")
    elif pa.types.is_primitive(arrow.type) or pa.types.is_decimal(arrow.type):
        found = _declared(arrow, dialect)
    else:
        raise InputError(
            f"{table.shown}: column {name!r} holds {arrow.type}, neither numbers nor text; leave it"
            " out with data.columns"
        )
    return Cells(table=table, name=name, order=order, dialect=dialect, **found._asdict())


class _Found(NamedTuple):
    """The fields of `Cells` that follow from the Arrow array."""

    kind: CellKind
    arrow: "pa.Array"
    values: npt.NDArray[np.float64]
    is_missing: npt.NDArray[np.bool_]
    is_number: npt.NDArray[np.bool_]


def _without_dictionary(
    column: "pa.ChunkedArray",
) -> tuple["pa.Array", tuple[str, ...] | None, bool]:
    """A column as one array, the order of its categories, and whether it declares categories."""
    import pyarrow as pa

    arrow = column.combine_chunks()
    if isinstance(arrow, pa.ChunkedArray):  # as it is for a column without chunks
        arrow = pa.concat_arrays(arrow.chunks) if arrow.num_chunks else pa.array([], arrow.type)
    if pa.types.is_dictionary(arrow.type):
        order = tuple(arrow.dictionary.to_pylist()) if arrow.type.ordered else None
        return arrow.dictionary_decode(), order, True
    if pa.types.is_string_view(arrow.type):
        arrow = arrow.cast(pa.large_string())
    return arrow, None, False


def _as_strings(arrow: "pa.Array", shown: str) -> "pa.Array":
    import pyarrow as pa

    try:
        return arrow.cast(pa.large_string())
    except pa.ArrowException as error:
        raise InputError(
            f"{shown} holds {arrow.type}, neither numbers nor text; leave it out with data.columns"
        ) from error


def _written(arrow: "pa.Array", dialect: Dialect) -> _Found:
    """The meaning of cells that are texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(pc.utf8_normalize(pc.fill_null(arrow, ""), form="NFC"))
    is_number = _mask(pc.match_substring_regex(texts, number_pattern(dialect)))
    plain = texts
    if dialect.thousands is not None:
        marks = re.escape(SPACES if dialect.thousands == " " else dialect.thousands)
        plain = pc.replace_substring_regex(plain, f"[{marks}]", "")
    if dialect.decimal != ".":
        plain = pc.replace_substring(plain, dialect.decimal, ".")
    numbers = pc.if_else(pa.array(is_number), plain, None).cast(pa.float64())
    values = numbers.to_numpy(zero_copy_only=False)
    words = {"", *_words_in(dialect)}
    others = texts.filter(pa.array(~is_number)).unique().to_pylist()
    missing = [text for text in others if canonical_text(text, dialect) in words]
    is_missing = _mask(pc.is_in(texts, pa.array(missing, texts.type)))
    is_missing |= is_number & np.isin(values, _numbers_in(dialect))
    lower = pc.utf8_lower(texts)
    is_true, is_false = _mask(pc.equal(lower, "true")), _mask(pc.equal(lower, "false"))
    if (is_true | is_false).any() and (is_true | is_false | is_missing).all():
        values = np.where(is_missing, np.nan, is_true.astype(np.float64))
        return _Found("boolean", texts, values, is_missing, ~is_missing)
    kind: CellKind = "number" if (is_number | is_missing).all() else "text"
    is_number &= ~is_missing
    return _Found(kind, texts, np.where(is_number, values, np.nan), is_missing, is_number)


def _declared(arrow: "pa.Array", dialect: Dialect) -> _Found:
    """The meaning of a Parquet file's numbers and booleans; NaN is missing, as in pandas."""
    import pyarrow as pa

    is_boolean = pa.types.is_boolean(arrow.type)
    numbers = arrow.cast(pa.float64(), safe=False)
    values = numbers.to_numpy(zero_copy_only=False)
    named = [float(word == "True") for word in _words_in(dialect) & {"False", "True"}]
    missing = named if is_boolean else _numbers_in(dialect)
    if pa.types.is_floating(arrow.type):  # -99.9 is another number in float32; the cells hold that
        with np.errstate(over="ignore"):
            missing = np.asarray(missing, arrow.type.to_pandas_dtype()).astype(np.float64).tolist()
    is_missing = np.isnan(values) | np.isin(values, missing)
    values = np.where(is_missing, np.nan, values)
    return _Found("boolean" if is_boolean else "number", arrow, values, is_missing, ~is_missing)


def _mask(array: Any) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = np.array(array.to_numpy(zero_copy_only=False), np.bool_)
    return mask


def _words_in(dialect: Dialect) -> set[str]:
    """The missing values that are texts, as categories are spelled."""
    return {canonical_text(v, dialect) for v in dialect.missing_values if isinstance(v, str)}


def _numbers_in(dialect: Dialect) -> list[float]:
    """The missing values that are numbers; a text is a number as in the table, or as in YAML."""
    numbers = []
    for value in dialect.missing_values:
        text = clean_text(str(value))
        in_table = number_of(text, dialect) if isinstance(value, str) else None
        numbers.append(number_of(text) if in_table is None else in_table)
    return [number for number in numbers if number is not None]
