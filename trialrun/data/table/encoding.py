"""Columns of a table as numbers: how each is encoded, fitted on training rows, stored as JSON.

The categories of a column are those of the whole file, so that every seed's model has the same
inputs. A category that no training row holds is encoded as unknown nevertheless.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from trialrun.job.table_spelling import canonical_text, clean_text

if TYPE_CHECKING:
    import pandas as pd

ColumnKind = Literal["number", "onehot", "ordinal"]


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is encoded.

    Attributes:
        name: Its name in the table's header.
        kind: `number` is not changed; `onehot` becomes one 0 or 1 per category, all 0 for an
            unknown one; `ordinal` becomes the category's position from 1, or 0 for an unknown one.
        categories: The categories, in the order of their positions.
        is_known: For each category, whether a training row holds it.
        fill: What replaces a missing number; None if no number may be missing.
        may_miss: Whether a value may be missing.
    """

    name: str
    kind: ColumnKind
    categories: tuple[str, ...] = ()
    is_known: tuple[bool, ...] = ()
    fill: float | None = None
    may_miss: bool = False

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features that the column becomes."""
        if self.kind != "onehot":
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in self.categories)

    @property
    def known(self) -> tuple[str, ...]:
        """The categories that the training rows hold."""
        return tuple(c for c, known in zip(self.categories, self.is_known, strict=True) if known)

    def transform(self, values: "pd.Series[Any]") -> npt.NDArray[np.float64]:
        """The column's features, float64 (rows, features)."""
        if self.kind == "number":
            numbers = values.to_numpy(np.float64, na_value=np.nan)
            if self.fill is not None:
                numbers = np.where(np.isnan(numbers), self.fill, numbers)
            return numbers[:, np.newaxis]
        indices = self._places(as_texts(values))
        if self.kind == "ordinal":
            return np.asarray(indices[:, np.newaxis] + 1, np.float64)
        return np.asarray(indices[:, np.newaxis] == np.arange(len(self.categories)), np.float64)

    def _places(self, texts: Sequence[str | None]) -> npt.NDArray[np.int64]:
        """For each text (rows,) its index in `categories`; -1 if it is unknown."""
        known = {text: index for index, text in enumerate(self.categories) if self.is_known[index]}
        return np.array([-1 if text is None else known.get(text, -1) for text in texts], np.int64)

    def unknown(self, values: "pd.Series[Any]") -> Counter[str]:
        """Text that is encoded as unknown -> how often it occurs; missing values do not count."""
        if self.kind == "number":
            return Counter()
        return Counter(
            text for text in as_texts(values) if text is not None and text not in self.known
        )


@dataclass(frozen=True, slots=True)
class TableEncoder:
    """How the columns of a table are encoded, one after another.

    Attributes:
        columns: At least one.
    """

    columns: tuple[Column, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of each feature: `age`, `sex=female`, `sex=male`, ..."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def codes(self) -> tuple[bool, ...]:
        """For each feature, whether it stands for a category; such features are not scaled."""
        return tuple(c.kind != "number" for c in self.columns for _ in c.feature_names)

    def transform(self, table: "pd.DataFrame") -> npt.NDArray[np.float64]:
        """The features of a table's rows, float64 (rows, features)."""
        return np.hstack([column.transform(table[column.name]) for column in self.columns])

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values that `from_json` reads back."""
        return [
            {
                "name": column.name,
                "kind": column.kind,
                "categories": list(column.categories),
                "is_known": list(column.is_known),
                "fill": column.fill,
                "may_miss": column.may_miss,
            }
            for column in self.columns
        ]

    @classmethod
    def from_json(cls, columns: Sequence[Mapping[str, Any]]) -> "TableEncoder":
        """The encoder that `to_json` wrote."""
        return cls(
            tuple(
                Column(
                    **{
                        **column,
                        "name": clean_text(column["name"]),
                        "categories": tuple(column["categories"]),
                        "is_known": tuple(column["is_known"]),
                    }
                )
                for column in columns
            )
        )


def as_texts(values: "pd.Series[Any]") -> list[str | None]:
    """Categories as canonical texts, None if missing; 3, 3.0 and "3 " give the same text."""
    known: dict[Any, str] = {}
    texts: list[str | None] = []
    for value, missing in zip(values, values.isna(), strict=True):
        if not missing and value not in known:
            known[value] = canonical_text(value)
        texts.append(None if missing else known[value])
    return texts
