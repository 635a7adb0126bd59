"""A CSV or Parquet file as the data of a trial: read, checked, split, and encoded as numbers."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.datafiles import is_parquet
from trialrun.encoding import Column, TableEncoder, as_texts, check_numbers, is_number
from trialrun.errors import InputError
from trialrun.holdout import Classes, hold_out
from trialrun.job import DataSpec
from trialrun.references import moved_path

if TYPE_CHECKING:
    import pandas as pd

_MAX_ONE_HOT = 1000
_MAX_INTEGER_CLASSES = 1000
_MAX_TABLES_KEPT = 4


@dataclass(frozen=True, slots=True, eq=False)
class TableData:
    """The rows of a table in three parts.

    Attributes:
        output: As of a generator: features and targets, not scaled yet.
        encoder: What made the features of the columns.
    """

    output: dict[str, Any]
    encoder: TableEncoder


def load_table(data: DataSpec, seed: int) -> TableData:
    """The rows of a job's table, split under a seed and encoded by what the training part tells.

    Args:
        data: The job's section.
        seed: Keys the splits.

    Raises:
        InputError: What is wrong with the table, with the column and the number of rows.
    """
    table, num_own = _read_rows(data)
    target = _read_target(table, data)
    classes = target.classes if _is_stratified(data, target) else None
    rows, test_rows = np.arange(num_own), np.arange(num_own, len(table))
    if data.test is None:
        assert data.test_split is not None
        rows, test_rows = hold_out(
            rows, data.test_split, seed, "data.test_split", classes, num_kept_parts=2
        )
    rows, val_rows = hold_out(rows, data.validation_split, seed, "data.validation_split", classes)
    encoder = _fit_encoder(table, num_own, rows, data)
    parts = {"train": rows, "validation": val_rows, "test": test_rows}
    output: dict[str, Any] = {
        part: (encoder.transform(table.iloc[own]), target.values[own])
        for part, own in parts.items()
    }
    output["feature_names"] = encoder.feature_names
    if target.classes is not None:
        output["class_names"] = tuple(target.classes.names)
    return TableData(output, encoder)


# Reading -----------------------------------------------------------------------------------------


def _read_rows(data: DataSpec) -> tuple["pd.DataFrame", int]:
    """The rows of the file, then those of the file of test rows; and how many are its own."""
    import pandas as pd

    assert data.table is not None
    own = _read_file(data, data.table, f"data.{data.source} {Path(data.table).name}")
    if data.test is None:
        return own, len(own)
    test = _read_file(data, data.test, f"data.test {Path(data.test).name}")
    for name in own.columns:
        if is_number(own[name]) != is_number(test[name]):
            kinds = ("numbers", "text") if is_number(own[name]) else ("text", "numbers")
            raise InputError(
                f"data.test {Path(data.test).name}: column {name!r} holds {kinds[1]}, in"
                f" {Path(data.table).name} it holds {kinds[0]}"
            )
    return pd.concat([own, test[own.columns]], ignore_index=True), len(own)


def _read_file(data: DataSpec, file: str, where: str) -> "pd.DataFrame":
    """The used columns of a file, without rows that are left out, known to hold what they may."""
    texts = list(data.encodings)
    if data.task == "classification" and data.target is not None:
        texts.append(data.target)
    try:
        table = read_table(Path(file), tuple(texts))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if data.used_columns:
        table = table[list(data.used_columns)]
    if table.empty:
        raise InputError(f"{where}: holds no rows")
    if data.missing == "drop":
        table = table.dropna(ignore_index=True)
        if table.empty:
            raise InputError(f"{where}: every row lacks a value; nothing is left (data.missing)")
    for name, values in table.items():
        _check_column(str(name), values, data, where)
    return table


def _check_column(name: str, values: "pd.Series[Any]", data: DataSpec, where: str) -> None:
    shown = f"{where}: column {name!r}"
    num_missing = int(values.isna().sum())
    if num_missing and (data.missing == "refuse" or name == data.target):
        hint = "data.missing: drop leaves such rows out"
        if name != data.target:
            hint += ", mean fills them in"
        raise InputError(f"{shown} lacks a value in {num_missing} of {len(values)} rows; {hint}")
    if num_missing == len(values):
        raise InputError(f"{shown} holds no value at all")
    if is_number(values):
        check_numbers(values, shown)
        return
    odd = next((value for value in values.dropna() if not isinstance(value, str)), None)
    if odd is not None:
        raise InputError(
            f"{shown} holds {type(odd).__name__}, neither numbers nor text; leave it out with"
            " data.columns, or name it in data.categorical"
        )


def read_table(path: Path, texts: tuple[str, ...]) -> "pd.DataFrame":
    """A whole file; the columns in `texts` hold text as it is written, or as integers look.

    Raises:
        InputError: It cannot be read.
    """
    path = moved_path(path)
    try:
        stat = path.stat()
        return _read_once(path, texts, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError, ArithmeticError) as error:  # pandas's and Arrow's are ValueErrors
        raise InputError(f"cannot be read: {error}") from error


@functools.lru_cache(maxsize=_MAX_TABLES_KEPT)
def _read_once(path: Path, texts: tuple[str, ...], modified_ns: int, size: int) -> "pd.DataFrame":
    """Read again when the file has changed; every trial of a pack asks for it. Never changed."""
    import pandas as pd

    if not is_parquet(path):
        return pd.read_csv(path, dtype=dict.fromkeys(texts, str), low_memory=False)
    import pyarrow.parquet as pq

    # Integers that may be missing stay integers: as categories, 3 is not 3.0.
    arrow = pq.read_table(path, partitioning=None)
    table: pd.DataFrame = arrow.to_pandas(integer_object_nulls=True)
    for name in table.columns:
        if name in texts:
            table[name] = _to_text(table[name])
        elif table[name].dtype == object:
            if all(isinstance(value, int) for value in table[name].dropna()):
                table[name] = table[name].astype(float)
        elif isinstance(table[name].dtype, pd.CategoricalDtype):
            table[name] = table[name].astype(table[name].cat.categories.dtype)
    return table


def _to_text(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Texts, and None for what is missing."""
    import pandas as pd

    missing = values.isna()
    texts = [None if gone else str(value) for value, gone in zip(values, missing, strict=True)]
    return pd.Series(texts, values.index, dtype="str")


# The target --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """Values (rows,): int64 labels from 0 with their classes, or float64 without."""

    values: npt.NDArray[Any]
    classes: Classes | None


def _read_target(table: "pd.DataFrame", data: DataSpec) -> _Target:
    column = table[data.target]
    where = f"data.target: column {data.target!r}"
    if data.task == "regression" or (data.task == "auto" and _is_amount(column, where)):
        if not is_number(column):
            raise InputError(f"{where} holds text, which no regression can predict")
        return _Target(column.to_numpy(np.float64), None)
    texts = as_texts(column)
    names = sorted(set(texts), key=_by_number)
    if len(names) < 2:
        raise InputError(f"{where} holds one class only, {names[0]!r}")
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([places[text] for text in texts], np.int64)
    return _Target(labels, Classes(labels, names))


def _is_amount(column: "pd.Series[Any]", where: str) -> bool:
    """Whether a target is for regression: fractions are, texts and integers from 0 are classes."""
    import pandas as pd

    if not is_number(column) or pd.api.types.is_bool_dtype(column):
        return False
    if not pd.api.types.is_integer_dtype(column):
        return True
    lowest, highest = int(column.min()), int(column.max())
    if (lowest, highest) == (0, column.nunique() - 1) and highest < _MAX_INTEGER_CLASSES:
        return False
    raise InputError(
        f"{where} holds {column.nunique()} different integers from {lowest} to {highest}, which may"
        " be classes or amounts; say data.task: classification or regression"
    )


def _by_number(text: str) -> tuple[float, str]:
    """The order of classes: as numbers where they are some, else by the alphabet."""
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _is_stratified(data: DataSpec, target: _Target) -> bool:
    if data.stratify is True and target.classes is None:
        raise InputError("data.stratify: true needs classes, and the target holds amounts")
    return data.stratify is not False


# The features ------------------------------------------------------------------------------------


def _fit_encoder(
    table: "pd.DataFrame", num_own: int, rows: npt.NDArray[np.int64], data: DataSpec
) -> TableEncoder:
    """Fitted on the training rows; the categories are those of the file without its test rows."""
    may_miss = data.missing == "mean"
    columns = []
    for name in table.columns:
        if name == data.target:
            continue
        values = table[name]
        training = values.iloc[rows]
        if is_number(values) and name not in data.encodings:
            fill = float(training.mean()) if may_miss else None
            columns.append(Column(name, "number", fill=fill, may_miss=may_miss))
            continue
        default = data.categorical if isinstance(data.categorical, str) else "onehot"
        kind = data.encodings.get(name, default)
        categories = tuple(sorted(map(str, values.iloc[:num_own].dropna().unique())))
        if kind == "onehot" and len(categories) > _MAX_ONE_HOT:
            raise InputError(
                f"data.{data.source} {Path(str(data.table)).name}: column {name!r} holds"
                f" {len(categories):,} different texts, and one-hot encoding takes at most"
                f" {_MAX_ONE_HOT:,}; leave it out with data.columns, or encode it as ordinal"
            )
        known = set(map(str, training.dropna().unique()))
        is_known = tuple(category in known for category in categories)
        columns.append(Column(name, kind, categories, is_known, may_miss=may_miss))
    return TableEncoder(tuple(columns))
