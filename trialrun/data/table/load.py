"""A CSV or Parquet file as the data of a trial: its rows split, its columns encoded as numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.data.holdout import hold_out
from trialrun.data.table.encoding import Column, ColumnKind, TableEncoder
from trialrun.data.table.rows import TableRows, TableSummary, read_rows
from trialrun.data.table.target import Target
from trialrun.errors import InputError
from trialrun.job import DataSpec
from trialrun.job.table_spelling import number_of

if TYPE_CHECKING:
    import pandas as pd

_MAX_ONE_HOT = 1000
_MIN_AMOUNTS = 3  # fewer different numbers are hardly amounts


@dataclass(frozen=True, slots=True, eq=False)
class TableData:
    """The rows of a table in three parts.

    Attributes:
        output: What a generator would return: features, not yet scaled, and targets.
        encoder: What turned columns into features.
        summary: How the table was read, for people.
    """

    output: dict[str, Any]
    encoder: TableEncoder
    summary: TableSummary


def load_table(data: DataSpec, seed: int) -> TableData:
    """The rows of a job's table, split by a seed and encoded by an encoder fitted on training rows.

    Args:
        data: The section `data` of the job.
        seed: Decides the splits.

    Raises:
        InputError: Something is wrong with the table. The message names the column and the line or
            the number of the row.
    """
    table = read_rows(data)
    target, num_rows = table.target, len(table.features)
    classes = target.classes if _is_stratified(data, target) else None
    rows, test_rows = np.arange(table.num_own), np.arange(table.num_own, num_rows)
    try:
        if data.test is None:
            assert data.test_split is not None
            rows, test_rows = hold_out(
                rows, data.test_split, seed, "data.test_split", classes, num_kept_parts=2
            )
        rows, val_rows = hold_out(
            rows, data.validation_split, seed, "data.validation_split", classes
        )
    except InputError as error:
        raise InputError(f"{error}{_or_amounts(data, target)}") from None
    encoder = _fit_encoder(table, rows, data)
    parts = {"train": rows, "validation": val_rows, "test": test_rows}
    output: dict[str, Any] = {
        part: (encoder.transform(table.features.iloc[own]), target.values[own])
        for part, own in parts.items()
    }
    output["feature_names"] = encoder.feature_names
    if target.classes is not None:
        output["class_names"] = tuple(target.classes.names)
    return TableData(output, encoder, table.summary)


def _or_amounts(data: DataSpec, target: Target) -> str:
    """A hint that classes may be amounts; empty if they cannot be, or if the job gives the task."""
    names = () if target.classes is None else target.classes.names
    if data.task != "auto" or len(names) < _MIN_AMOUNTS or None in map(number_of, names):
        return ""
    return (
        f"; column {data.target!r} is read as classes, because {target.why}; give data.task:"
        " regression if they are amounts"
    )


def _is_stratified(data: DataSpec, target: Target) -> bool:
    if data.stratify is True and target.classes is None:
        raise InputError("data.stratify: true needs classes, but the target holds amounts")
    return data.stratify is not False


def _fit_encoder(table: TableRows, rows: npt.NDArray[np.int64], data: DataSpec) -> TableEncoder:
    """The encoder, fitted on training rows; categories are those of the file except test rows."""
    may_miss = data.missing == "mean"
    columns = []
    for name in table.features.columns:
        training = table.features[name].iloc[rows]
        if name not in table.categories:
            fill = _mean(training, data) if may_miss else None
            columns.append(Column(name, "number", fill=fill, may_miss=may_miss))
            continue
        is_ordinal, categories = name in table.orders, table.categories[name]
        if not is_ordinal and len(categories) > _MAX_ONE_HOT:
            raise InputError(
                f"data.{data.source} {Path(str(data.table)).name}: column {name!r} holds"
                f" {len(categories):,} different texts, but one-hot encoding allows at most"
                f" {_MAX_ONE_HOT:,}; leave it out with data.columns, or encode it as ordinal"
            )
        known = set(training.dropna())
        is_known = tuple(category in known for category in categories)
        kind: ColumnKind = "ordinal" if is_ordinal else "onehot"
        columns.append(Column(name, kind, categories, is_known, may_miss=may_miss))
    return TableEncoder(tuple(columns))


def _mean(training: "pd.Series[Any]", data: DataSpec) -> float:
    if training.isna().all():
        raise InputError(
            f"data.{data.source} {Path(str(data.table)).name}: column {training.name!r} has no"
            " value in the training rows, so that data.missing: mean has no mean for it; leave it"
            " out with data.columns"
        )
    return float(training.mean())
