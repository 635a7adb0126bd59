"""Columns of text that are probably not categories: numbers with a typo, amounts, dates, ids.

One-hot encoding would make a feature of every single text, and nobody would notice. Such columns
are refused with a message that says what the job can state about them. A column that the job names
in `data.categorical` is never checked.
"""

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trialrun.data.table.cells import Cells
from trialrun.data.table.lookalikes import (
    AMOUNT_WITH_UNIT,
    DATE,
    INFINITIES,
    MISSING_WORDS,
    SIGNED_AMOUNT,
)
from trialrun.errors import InputError
from trialrun.messages import quoted

if TYPE_CHECKING:
    import pyarrow as pa

_MIN_IDS = 10  # fewer texts may all be different by chance
_MAX_AMOUNTS_AS_CATEGORIES = 10
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:([,.' ])\d{3})+(?:[.,]\d+)?")
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w -]*")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


def check_categories(cells: Cells, *, is_target: bool = False) -> None:
    """Raises InputError if the texts of a column are probably not categories.

    Args:
        cells: Of kind `text`, `categories` or `date`, or numbers that a Parquet file holds as text.
        is_target: Whether the texts are classes; a class with a single row is refused elsewhere.

    Raises:
        InputError: The texts are probably not categories. The message names a line, its value and
            what to do.
    """
    if cells.kind == "categories":
        return
    remedy = "data.task: classification" if is_target else _categorical(cells)
    if cells.kind == "number":
        raise InputError(
            f"{cells.shown} holds numbers that are stored as text; store them as numbers, or give"
            f" {remedy} if they are names of categories"
        )
    _check_dates(cells, remedy)
    _check_mostly_numbers(cells, remedy)
    _check_amounts(cells, remedy)
    if not is_target:
        _check_ids(cells)


def _check_mostly_numbers(cells: Cells, remedy: str) -> None:
    counts = _counts(cells)
    numbers = set(_distinct(cells, cells.is_number))
    num_numbers = int(cells.is_number.sum())
    infinities = {text for text in counts if text.casefold() in INFINITIES}
    words = {text for text in counts if text.casefold() in MISSING_WORDS}
    texts = counts.keys() - numbers - infinities - words
    is_most = num_numbers and num_numbers >= sum(counts[text] for text in texts)
    if is_most or len(numbers) > max(2, len(texts)) or (infinities and not texts):
        row = int(np.flatnonzero(~cells.is_number & ~cells.is_missing)[0])
        found = cells.written(row)
        not_finite = ", no finite number" if found.casefold() in INFINITIES else ""
        raise InputError(
            f"{cells.at(row)} holds {found!r}{not_finite}, but numbers in {num_numbers} of"
            f" {int((~cells.is_missing).sum())} rows; correct it, or give {_how_written(found)}"
            f"data.missing_values: [{quoted(found)}] if it stands for a missing value, or"
            f" {remedy} if the numbers are names of categories"
        )


def _check_dates(cells: Cells, remedy: str) -> None:
    # A column of numbers such as 1990.50 may hold 1990.12, which also reads as a date.
    is_date = _matches(cells, DATE) & ~cells.is_number
    if cells.kind == "date":
        is_date = ~cells.is_missing
    if 2 * is_date.sum() > (~cells.is_missing).sum():
        row = int(np.flatnonzero(is_date)[0])
        raise InputError(
            f"{cells.at(row)} holds {cells.written(row)!r}, but dates and times cannot be features;"
            " turn them into numbers (such as days since a date), leave them out with data.columns,"
            f" or give {remedy} if each is a category"
        )


def _check_amounts(cells: Cells, remedy: str) -> None:
    """Raises InputError if most texts are numbers with groups of digits, a currency or a unit."""
    is_signed, has_unit = _matches(cells, SIGNED_AMOUNT), _matches(cells, AMOUNT_WITH_UNIT)
    is_amount = is_signed | (has_unit & _is_measured(cells, has_unit))
    if 2 * is_amount.sum() > (~cells.is_missing).sum():
        row = int(np.flatnonzero(is_amount)[0])
        raise InputError(
            f"{cells.at(row)} holds {cells.written(row)!r}, which looks like a number but is not"
            f" written as one; write only the number, or give {_how_written(cells.written(row))}"
            f"{remedy} if its values are categories"
        )


def _is_measured(cells: Cells, has_unit: npt.NDArray[np.bool_]) -> bool:
    """Whether numbers with a unit are measured, rather than names such as 2WD or 1st."""
    texts = _distinct(cells, has_unit)
    matches = [match for text in texts if (match := re.match(AMOUNT_WITH_UNIT, text))]
    units = {match["unit"].casefold() for match in matches}
    numbers = {match["number"] for match in matches}
    return (len(units) == 1 and len(numbers) > 2) or len(texts) > _MAX_AMOUNTS_AS_CATEGORIES


def _check_ids(cells: Cells) -> None:
    counts = _counts(cells)
    if len(counts) >= _MIN_IDS and max(counts.values()) == 1:
        raise InputError(
            f"{cells.shown} holds a different text in each of its {len(counts):,} rows, such as"
            f" {min(counts)!r}; nothing can be learned from names or ids; leave it out with"
            f" data.columns, or give {_categorical(cells)}"
        )


def _how_written(text: str) -> str:
    """The fields that say how a number is written, for a message in which they follow `give`."""
    grouped, comma = _GROUPED.fullmatch(text), _DECIMAL_COMMA.fullmatch(text)
    ways = []
    if grouped is not None:
        ways.append(f"data.thousands: {quoted(grouped[1])} if it groups digits, ")
    if comma is not None or (grouped is not None and grouped[1] != "," and "," in text):
        ways.append("data.decimal: ',' if the comma is a decimal point, ")
    return "".join(ways)


def _categorical(cells: Cells) -> str:
    name = cells.name if _PLAIN_NAME.fullmatch(cells.name) else quoted(cells.name)
    return f"data.categorical: {{{name}: onehot}}"


def _counts(cells: Cells) -> Counter[str]:
    """Text -> how often it occurs, without missing cells."""
    return Counter(_texts(cells, ~cells.is_missing).to_pylist())


def _distinct(cells: Cells, where: npt.NDArray[np.bool_]) -> list[str]:
    texts: list[str] = _texts(cells, where).unique().to_pylist()
    return texts


def _texts(cells: Cells, where: npt.NDArray[np.bool_]) -> "pa.Array":
    import pyarrow as pa

    return cells.arrow.filter(pa.array(where))


def _matches(cells: Cells, pattern: str) -> npt.NDArray[np.bool_]:
    import pyarrow.compute as pc

    found = pc.match_substring_regex(cells.arrow, pattern).to_numpy(zero_copy_only=False)
    return np.asarray(found, np.bool_) & ~cells.is_missing
