"""Columns of a table as numbers: what becomes of each, fitted on the training rows, kept as JSON.

The categories of a column are those of the whole file, so that every seed's model has the same
inputs; but what the training rows do not hold is encoded as unknown, whatever else is in the file.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from trialrun.spelling import canonical_text

if TYPE_CHECKING:
    import pandas as pd

ColumnKind = Literal["number", "onehot", "ordinal"]


@dataclass(frozen=True, slots=True)
class Column:
    """What becomes of one column.

    Attributes:
        name: In the table's header.
        kind: `number` stays as it is; `onehot` becomes a 0 or 1 per category, all 0 for anything
            unknown; `ordinal` becomes the category's place, from 1, and 0 for anything unknown.
        categories: In the order of their places.
        is_known: Of each category, whether the training rows hold it.
        fill: What takes the place of a missing number; None where none may be missing.
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
        """Names of the features that it becomes."""
        if self.kind != "onehot":
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in self.categories)

    @property
    def known(self) -> tuple[str, ...]:
        """The categories that the training rows hold."""
        return tuple(c for c, known in zip(self.categories, self.is_known, strict=True) if known)

    def transform(self, values: "pd.Series[Any]") -> npt.NDArray[np.float64]:
        """The features (rows, features of this column)."""
        if self.kind == "number":
            numbers = values.to_numpy(np.float64, na_value=np.nan)
            if self.fill is not None:
                numbers = np.where(np.isnan(numbers), self.fill, numbers)
            return numbers[:, np.newaxis]
        places = self._places(as_texts(values))
        if self.kind == "ordinal":
            return np.asarray(places[:, np.newaxis] + 1, np.float64)
        return np.asarray(places[:, np.newaxis] == np.arange(len(self.categories)), np.float64)

    def _places(self, texts: Sequence[str | None]) -> npt.NDArray[np.int64]:
        """Of each text (rows,) its place in the categories; -1 for one that is unknown."""
        known = {text: place for place, text in enumerate(self.categories) if self.is_known[place]}
        return np.array([-1 if text is None else known.get(text, -1) for text in texts], np.int64)

    def unknown(self, values: "pd.Series[Any]") -> Counter[str]:
        """How often each text occurs that is encoded as unknown; a missing one is none."""
        if self.kind == "number":
            return Counter()
        return Counter(
            text for text in as_texts(values) if text is not None and text not in self.known
        )


@dataclass(frozen=True, slots=True)
class TableEncoder:
    """What becomes of the columns of a table, one after another.

    Attributes:
        columns: At least one.
    """

    columns: tuple[Column, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One per feature: `age`, `sex=female`, `sex=male`, ..."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def codes(self) -> tuple[bool, ...]:
        """Of each feature, whether it stands for a category: such are not scaled."""
        return tuple(c.kind != "number" for c in self.columns for _ in c.feature_names)

    def transform(self, table: "pd.DataFrame") -> npt.NDArray[np.float64]:
        """The features (rows, features) of the rows of a table."""
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
                        "categories": tuple(column["categories"]),
                        "is_known": tuple(column["is_known"]),
                    }
                )
                for column in columns
            )
        )


def as_texts(values: "pd.Series[Any]") -> list[str | None]:
    """Categories as canonical texts, None for what is missing: 3, 3.0 and "3 " are the same."""
    known: dict[Any, str] = {}
    texts: list[str | None] = []
    for value, missing in zip(values, values.isna(), strict=True):
        if not missing and value not in known:
            known[value] = canonical_text(value)
        texts.append(None if missing else known[value])
    return texts
