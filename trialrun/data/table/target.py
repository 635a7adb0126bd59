"""The column that is predicted: classes or amounts, by its values or as the job says."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.data.holdout import ClassLabels
from trialrun.data.table.cells import Cells
from trialrun.data.table.doubtful import check_categories
from trialrun.data.table.lookalikes import by_number, similar_texts
from trialrun.errors import InputError
from trialrun.job import DataSpec
from trialrun.job.table_spelling import told_apart

if TYPE_CHECKING:
    import pandas as pd

_MAX_INTEGER_CLASSES = 1000
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The value to predict for each row.

    Attributes:
        values: (rows,): class numbers from 0, int64; or amounts, float64.
        classes: The classes; None for amounts.
        why: Why the target is read as classes or as amounts.
    """

    values: npt.NDArray[Any]
    classes: ClassLabels | None
    why: str


def are_texts(cells: Cells, data: DataSpec) -> bool:
    """Whether a target is read as texts, which are classes; numbers may be either.

    Raises:
        InputError: Its texts are probably not classes, and the job does not say that they are.
    """
    if data.task == "regression" and not cells.is_amount and not cells.is_number.any():
        raise InputError(
            f"{cells.shown} holds text, which a regression cannot predict; give data.task:"
            " classification or another target"
        )
    if data.task != "auto":
        return data.task == "classification"
    if cells.kind in ("text", "categories", "date"):
        check_categories(cells, is_target=True)
    return cells.kind != "number"


def read_target(own: "pd.Series[Any]", test: "pd.Series[Any]", data: DataSpec) -> Target:
    """The target of a table's own rows, followed by that of the file of test rows.

    Args:
        own: Texts or numbers of the table's own rows, none missing.
        test: The same for the file of test rows; empty without such a file.
        data: The section `data` of the job.

    Raises:
        InputError: The target has only one class, has classes that only test rows have, or has
            numbers that may be classes or amounts.
    """
    where = f"data.target: column {own.name!r}"
    is_told = data.task != "auto"
    told = f"the job says data.task: {data.task}"
    if own.dtype == object:
        return _classes(own, test, where, told if is_told else "it holds no numbers")
    why = None if is_told else _why_classes(own.to_numpy(), where)
    if why is None:
        values = np.concatenate([own.to_numpy(), test.to_numpy()])
        return Target(values, None, told if is_told else "it holds numbers with fractions")
    return _classes(own.map(numeric_class_name), test.map(numeric_class_name), where, why)


def numeric_class_name(value: float) -> str:
    """The name of a class that is a number."""
    return str(int(value)) if value.is_integer() else str(value)


def _why_classes(values: npt.NDArray[np.float64], where: str) -> str | None:
    """Why numbers are classes; None if they are amounts, because they have fractions."""
    if (values % 1 != 0).any():
        return None
    different = np.unique(values)
    lowest, highest = int(different[0]), int(different[-1])
    is_gapless = lowest in (0, 1) and highest - lowest == len(different) - 1
    is_repeated = 2 * len(different) <= len(values)
    if is_gapless and is_repeated and highest < _MAX_INTEGER_CLASSES:
        return f"it holds the whole numbers from {lowest} to {highest}"
    if len(different) == 2:
        return f"it holds two whole numbers, {lowest} and {highest}"
    raise InputError(
        f"{where} holds {len(different)} different integers from {lowest} to {highest}, which may"
        " be classes or amounts; give data.task: classification or data.task: regression"
    )


def _classes(own: "pd.Series[Any]", test: "pd.Series[Any]", where: str, why: str) -> Target:
    """Class numbers, for the sorted classes of the table's own rows."""
    names = sorted(set(own), key=by_number)
    if len(names) < 2:
        raise InputError(f"{where} holds only one class, {names[0]!r}")
    foreign = Counter(text for text in test if text not in set(names))
    if foreign:
        raise InputError(
            f"{where}: data.test has classes that the training file lacks: {text_counts(foreign)};"
            f" the training file has {', '.join(map(repr, names[:_MAX_SHOWN]))}"
            f"{', ...' if len(names) > _MAX_SHOWN else ''}"
        )
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[text] for text in (*own, *test)], np.int64)
    return Target(labels, ClassLabels(labels, names), why)


def check_alike(texts: "pd.Series[Any]", data: DataSpec) -> None:
    """Raises InputError if two classes look like the same one, unless the job gives the task."""
    counts = Counter(texts.dropna())
    alike = similar_texts(counts)
    if alike is not None and data.task == "auto":
        one, other = sorted(alike, key=lambda text: (-counts[text], text))
        shown = told_apart(one, other)
        found = f"{shown[0]} ({_rows(counts[one])}), {shown[1]} ({_rows(counts[other])})"
        raise InputError(
            f"data.target: column {texts.name!r} holds classes that are probably the same:"
            f" {found}; write them alike, or give data.task: classification if they"
            " are two classes"
        )


def text_counts(counts: Counter[str]) -> str:
    """The most frequent texts with their numbers of rows: `'a' (3 rows), 'b' (1 row), ...`."""
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{text!r} ({_rows(count)})" for text, count in common[:_MAX_SHOWN]]
    return ", ".join([*listed, *(["..."] if len(common) > _MAX_SHOWN else [])])


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
