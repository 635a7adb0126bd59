"""The rows of a job's table, and of its file of test rows, as numbers and categories.

Here is decided what holds for all seeds: what a column is, which rows are left out, and what the
target is.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.data.table.cells import Cells, cells_of
from trialrun.data.table.doubtful import check_categories
from trialrun.data.table.lookalikes import MISSING_WORDS, by_number, similar_texts
from trialrun.data.table.raw import RawTable, read_raw
from trialrun.data.table.target import (
    Target,
    are_texts,
    check_alike,
    numeric_class_name,
    read_target,
    text_counts,
)
from trialrun.errors import InputError
from trialrun.job import DataSpec
from trialrun.job.table_spelling import canonical_text, number_of, same_category, told_apart
from trialrun.job.user_code.own_files import moved_path
from trialrun.messages import said_by

if TYPE_CHECKING:
    import pandas as pd

_MAX_KEPT = 4
_MANY = 10


@dataclass(frozen=True, slots=True)
class TableSummary:
    """How a table was read, for people.

    Attributes:
        kinds: Column -> what its cells are: `number`, `boolean` or `text`.
        num_missing: Column -> number of missing cells, including those of rows that are left out.
        target: The column that is predicted.
        why: Why the target is read as classes or as amounts.
        notes: What the user should know: rows that are left out, categories that only test rows
            have, categories that look the same, words that may stand for a missing value.
    """

    kinds: Mapping[str, str]
    num_missing: Mapping[str, int]
    target: str
    why: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TableRows:
    """The rows of a table, then those of the file of test rows; the same for every seed.

    Attributes:
        features: Columns of numbers (float64) and of canonical texts (object).
        num_own: How many rows are the table's own, i.e. not from the file of test rows.
        target: The target of all rows.
        categories: Column of texts -> its categories in the table's own rows, the lowest first if
            they have an order.
        orders: The columns whose categories have an order, so that they become one number.
        summary: How the table was read.
    """

    features: "pd.DataFrame"
    num_own: int
    target: Target
    categories: Mapping[str, tuple[str, ...]]
    orders: frozenset[str]
    summary: TableSummary


_FIELDS = {
    *("csv", "parquet", "target", "task", "columns", "categorical", "missing", "missing_values"),
    *("separator", "decimal", "thousands", "encoding", "test"),
}


def read_rows(data: DataSpec) -> TableRows:
    """The rows of a job's tables, cached until a file changes, because every trial needs them.

    Raises:
        InputError: Something is wrong with a table. The message names the column and the line or
            the number of the row.
    """
    stamps = []
    for file in (data.table, data.test):
        if file is not None:
            try:
                stat = moved_path(Path(file)).stat()
            except OSError as error:
                raise InputError(
                    f"data.{data.source}: {file} cannot be read: {said_by(error)}"
                ) from error
            stamps.append((stat.st_mtime_ns, stat.st_size))
    return _read_once(data.model_dump_json(include=_FIELDS), tuple(stamps))


@functools.lru_cache(maxsize=_MAX_KEPT)
def _read_once(settings: str, stamps: tuple[tuple[int, int], ...]) -> TableRows:
    """The rows of the tables of a section `data` in JSON, cached by the files' times and sizes."""
    import pandas as pd

    data = DataSpec.model_validate(json.loads(settings))
    table, cells = _read_file(data, str(data.table), data.source, ())
    texts = frozenset(name for name, column in cells.items() if _holds_texts(column, data))
    whole = _typed(cells, texts)
    files = [(table, _complete_rows(table, whole, data))]
    if data.test is not None:
        test, test_cells = _read_file(data, data.test, "test", tuple(cells))
        files.append((test, _complete_rows(test, _typed(test_cells, texts), data)))
    own = files[0][1]
    target = _read_target([rows for _, rows in files], whole, data)
    names = [name for name in own.columns if name != data.target]
    orders = {name: order for name in names if (order := _order(cells[name], data, texts))}
    _check_orders(*files[0], orders)
    for file, rows in files[1:]:
        # Numbers that only test rows have are unknown categories, of which a note tells.
        _check_orders(file, rows, {n: o for n, o in orders.items() if None in map(number_of, o)})
    categories = {
        name: orders.get(name) or tuple(sorted(set(own[name].dropna())))
        for name in names
        if name in texts
    }
    summary = TableSummary(
        kinds={name: "text" if name in texts else cells[name].kind for name in cells},
        num_missing={str(name): int(column.isna().sum()) for name, column in whole.items()},
        target=str(data.target),
        why=target.why,
        notes=tuple(_notes(files, whole, categories, data)),
    )
    features = pd.concat([rows[names] for _, rows in files])
    return TableRows(features, len(own), target, categories, frozenset(orders), summary)


def _read_file(
    data: DataSpec, file: str, field: str, wanted: tuple[str, ...]
) -> tuple[RawTable, dict[str, Cells]]:
    """A table and the cells of its used columns: those wanted, or else those that the job uses."""
    table = read_raw(Path(file), data.dialect, f"data.{field} {Path(file).name}")
    cells = {
        name: cells_of(table, name, data.dialect)
        for name in wanted or data.used_columns or table.names
    }
    for column in cells.values():
        if column.is_missing.all():
            raise InputError(
                f"{column.shown} holds no value at all; leave it out with data.columns"
            )
    return table, cells


def _holds_texts(cells: Cells, data: DataSpec) -> bool:
    """Whether a column is read as categories, as numbers also are if the job says so."""
    if cells.name == data.target:
        return are_texts(cells, data)
    if cells.name in data.encodings:
        return True
    if cells.is_amount and not cells.is_stored_as_text:
        return False
    check_categories(cells)
    return True


def _typed(cells: Mapping[str, Cells], texts: frozenset[str]) -> "pd.DataFrame":
    """Columns of texts or numbers; the index holds the lines."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: column.texts() if name in texts else column.numbers()
            for name, column in cells.items()
        }
    )


def _complete_rows(table: RawTable, rows: "pd.DataFrame", data: DataSpec) -> "pd.DataFrame":
    """The rows without those that are left out because of a missing value.

    Raises:
        InputError: No row is left, or a value is missing that may not be.
    """
    if data.missing == "drop":
        kept = rows.dropna()
        if kept.empty:
            raise InputError(
                f"{table.shown}: every row lacks a value, so that data.missing: drop leaves no row"
            )
        return kept
    for name, column in rows.items():
        missing = column.isna()
        if missing.any() and (data.missing == "refuse" or name == data.target):
            hint = "data.missing: drop leaves such rows out"
            if name != data.target:
                hint += ", data.missing: mean fills them in"
            line = int(missing.index[int(missing.argmax())])
            raise InputError(
                f"{table.at(line)}: column {name!r} lacks a value in"
                f" {int(missing.sum())} of {len(rows)} rows, here first; {hint}"
            )
    return rows


# The target ---------------------------------------------------------------------------------------


def _read_target(files: list["pd.DataFrame"], whole: "pd.DataFrame", data: DataSpec) -> Target:
    own = files[0][data.target]
    test = files[1][data.target] if len(files) > 1 else own.iloc[:0]
    before = whole[data.target].dropna()
    if own.dtype == object:
        check_alike(before, data)
        _check_no_class_is_lost(before, own, data)
    target = read_target(own, test, data)
    if own.dtype != object and target.classes is not None:
        _check_no_class_is_lost(before.map(numeric_class_name), own.map(numeric_class_name), data)
    return target


def _check_no_class_is_lost(
    before: "pd.Series[Any]", after: "pd.Series[Any]", data: DataSpec
) -> None:
    lost = set(before) - set(after)
    if lost:
        counts = Counter(text for text in before if text in lost)
        raise InputError(
            f"data.missing: drop would leave no row of these classes of column {data.target!r}:"
            f" {text_counts(counts)}; fill values in with data.missing: mean, or leave columns out"
            " with data.columns"
        )


# Orders -------------------------------------------------------------------------------------------


def _order(cells: Cells, data: DataSpec, texts: frozenset[str]) -> tuple[str, ...] | None:
    """The categories of a column, the lowest first; None if it is one-hot encoded or numeric."""
    default = data.categorical if isinstance(data.categorical, str) else "onehot"
    encoding = data.encodings.get(cells.name, default)
    if cells.name not in texts or encoding == "onehot":
        return None
    order = encoding if isinstance(encoding, tuple) else cells.order
    if order is not None:
        if twice := same_category(order, data.dialect):
            raise InputError(
                f"{cells.shown} has an order of categories in which {twice} are one category; give"
                f" each once, as data.categorical: {{{cells.name}: [...]}}"
            )
        return tuple(canonical_text(level, data.dialect) for level in order)
    found = sorted(set(cells.texts().dropna()), key=by_number)
    if all(number_of(text) is not None for text in found):
        return tuple(found)
    listed = ", ".join(map(repr, found[:5])) + (", ..." if len(found) > 5 else "")
    raise InputError(
        f"{cells.shown} holds texts, which have no order of their own: {listed}; give their order,"
        f" the lowest first, as data.categorical: {{{cells.name}: [...]}}, or give onehot"
    )


def _check_orders(
    table: RawTable, rows: "pd.DataFrame", orders: Mapping[str, tuple[str, ...]]
) -> None:
    for name, order in orders.items():
        column = rows[name].dropna()
        foreign = column[~column.isin(order)]
        if len(foreign):
            raise InputError(
                f"{table.at(int(foreign.index[0]))}: column {name!r} holds {foreign.iloc[0]!r},"
                f" which is not among its categories {', '.join(order)}; add it to data.categorical"
            )


# Notes --------------------------------------------------------------------------------------------


def _notes(
    files: list[tuple[RawTable, "pd.DataFrame"]],
    whole: "pd.DataFrame",
    categories: Mapping[str, tuple[str, ...]],
    data: DataSpec,
) -> Iterator[str]:
    for table, rows in files:
        num_dropped = len(table.lines) - len(rows)
        if num_dropped:
            yield (
                f"{table.shown}: {num_dropped:,} of {len(table.lines):,} rows lack a value and are"
                " left out (data.missing: drop)"
            )
    own = files[0][0]
    for name, column in whole.items():
        if column.dtype != object:
            if name != data.target and _counts_rows(column):
                yield (
                    f"{own.shown}: column {name!r} counts the rows from {column.iloc[0]:g} on;"
                    " leave it out with data.columns unless their order means something"
                )
            continue
        counts = Counter(column.dropna())
        words = Counter({text: counts[text] for text in counts if text.casefold() in MISSING_WORDS})
        if words:
            yield (
                f"{own.shown}: column {name!r} holds {text_counts(words)}, which are read as"
                " categories; name them in data.missing_values if they stand for missing values"
            )
        if name != data.target and _MANY < len(counts) > len(column) / 2:
            yield (
                f"{own.shown}: column {name!r} holds {len(counts):,} different texts in"
                f" {len(column):,} rows; leave it out with data.columns if they are names or ids"
            )
        alike = similar_texts(counts) if name != data.target else None
        if alike is not None:
            yield (
                f"{own.shown}: column {name!r} holds {' and '.join(told_apart(*alike))}, which are"
                " read as two categories"
            )
    for table, rows in files[1:]:
        for name, known in categories.items():
            unseen = _unseen(table, rows[name].dropna(), known)
            if unseen:
                yield (
                    f"{table.shown}: column {name!r} holds categories that the training file lacks"
                    f" and that are treated as unknown: {text_counts(unseen)}"
                )


def _counts_rows(column: "pd.Series[Any]") -> bool:
    """Whether numbers are 0, 1, 2, ... or 1, 2, 3, ..., like an index that a program wrote."""
    values = column.to_numpy()
    return len(values) >= _MANY and values[0] in (0, 1) and bool((np.diff(values) == 1).all())


def _unseen(table: RawTable, texts: "pd.Series[Any]", known: tuple[str, ...]) -> Counter[str]:
    """Texts that are not among the training file's categories; raises InputError if none is."""
    unseen = Counter(texts[~texts.isin(known)])
    if len(texts) and unseen.total() == len(texts):
        raise InputError(
            f"{table.shown}: column {texts.name!r} holds no category of the training file: it holds"
            f" {text_counts(unseen)}, the training file {', '.join(map(repr, known[:5]))}"
            f"{', ...' if len(known) > 5 else ''}; write them alike in both files"
        )
    return unseen
