"""Columns of a table as numbers: what becomes of each, fitted on the training rows, kept as JSON.

The categories of a column are those of the whole file, so that every seed's model has the same
inputs; but what the training rows do not hold is encoded as unknown, whatever else is in the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from trialrun.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ColumnKind = Literal["number", "onehot", "ordinal"]
_NO_TEXT = "\0"  # stands for a missing text; no category


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
        texts = as_texts(values)[:, np.newaxis]
        return self._one_hot(texts) if self.kind == "onehot" else self._ordinal(texts)

    def _one_hot(self, texts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        from sklearn.preprocessing import OneHotEncoder

        known = np.array(self.known, object)
        encoder = OneHotEncoder(categories=[known], handle_unknown="ignore", sparse_output=False)
        features = np.zeros((len(texts), len(self.categories)))
        features[:, np.array(self.is_known)] = encoder.fit(known[:, np.newaxis]).transform(texts)
        return features

    def _ordinal(self, texts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        from sklearn.preprocessing import OrdinalEncoder

        categories = np.array(self.categories, object)
        encoder = OrdinalEncoder(
            categories=[categories], handle_unknown="use_encoded_value", unknown_value=-1
        )
        places: npt.NDArray[np.float64] = (
            encoder.fit(categories[:, np.newaxis]).transform(texts) + 1
        )
        return np.where(np.isin(texts, np.array(self.known, object)), places, 0.0)

    def unknown(self, values: "pd.Series[Any]") -> list[str]:
        """The texts among the values that are encoded as unknown, each once."""
        if self.kind == "number":
            return []
        return sorted(set(as_texts(values)) - {*self.known, _NO_TEXT})


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

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns whose values are read as they are written."""
        return tuple(column.name for column in self.columns if column.kind != "number")

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


def as_texts(values: "pd.Series[Any]") -> npt.NDArray[Any]:
    """Categories as texts, object (rows,): 3 and "3" look alike in a CSV file, and are the same."""
    missing = values.isna().to_numpy()
    texts = np.array([str(value) for value in values], object)
    texts[missing] = _NO_TEXT
    return texts


def is_number(values: "pd.Series[Any]") -> bool:
    """Whether a column holds numbers or booleans."""
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(values) and not is_complex(values))


def is_complex(values: "pd.Series[Any]") -> bool:
    """Whether a column holds complex numbers, which no model takes."""
    import pandas as pd

    return bool(pd.api.types.is_complex_dtype(values))


def check_numbers(values: "pd.Series[Any]", where: str) -> None:
    """Raises InputError where a column of numbers holds an infinity."""
    num_infinite = int(np.isinf(values.to_numpy(np.float64, na_value=np.nan)).sum())
    if num_infinite:
        raise InputError(f"{where} holds infinity in {num_infinite} rows")
