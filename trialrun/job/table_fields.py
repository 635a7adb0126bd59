"""Types of the fields of `data` that say what a table's columns are, and how it is written."""

import codecs
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from trialrun.job.table_spelling import clean_text, same_name
from trialrun.messages import show

Level = str | int | float
Order = Annotated[tuple[Level, ...], Field(strict=False)]
Encoding = Literal["onehot", "ordinal"]
_ENCODINGS = ("onehot", "ordinal")


def _check_categorical(value: object) -> object:
    """Accepts a word, or a mapping of columns to words or to their categories in order."""
    words = f"{_ENCODINGS[0]!r} or {_ENCODINGS[1]!r}"
    if isinstance(value, str) and value in _ENCODINGS:
        return value
    if not isinstance(value, Mapping) or not value:
        mapping = "" if isinstance(value, str) else ", or a mapping of column names to these"
        raise ValueError(f"must be {words}{mapping}, got {show(value)}")
    for name, encoding in value.items():
        if isinstance(encoding, list | tuple):
            if not all(isinstance(level, str) or _is_number(level) for level in encoding):
                raise ValueError(
                    f"of {name} must be texts and numbers, with quotes around words to which YAML"
                    f" gives another meaning, such as 'true'; got {show(encoding)}"
                )
            if len(encoding) < 2:
                raise ValueError(
                    f"of {name} must be two or more categories, the lowest first, got"
                    f" {show(encoding)}"
                )
        elif encoding not in _ENCODINGS:
            raise ValueError(
                f"must be {words}, or a mapping of column names to these or to a list of their"
                f" categories, the lowest first, got {show(value)}"
            )
    return value


def _clean_keys(value: Any) -> Any:
    """The same with its keys as tables give the names of columns; refuses two of one column."""
    if not isinstance(value, dict):
        return value
    _check_distinct(tuple(value))
    return {clean_text(name): encoding for name, encoding in value.items()}


def _clean_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of columns as tables give them; refuses two of one column."""
    _check_distinct(names)
    return tuple(map(clean_text, names))


def _check_distinct(names: tuple[str, ...]) -> None:
    if twice := same_name(names):
        raise ValueError(f"must be distinct, but {twice} are one column")


def _is_number(value: object) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)  # type: ignore[arg-type]


def _check_missing_values(value: object) -> object:
    is_list = isinstance(value, list | tuple) and value
    if is_list and all(isinstance(v, str) or _is_number(v) for v in value):  # type: ignore[attr-defined]
        return value
    raise ValueError(
        "must be a list of texts and numbers, such as [NA, '?', -999], with quotes around words"
        f" to which YAML gives another meaning, such as 'null'; got {show(value)}"
    )


_MARKS = {"tab": "\t", "\\t": "\t"}  # ways in which people write a tab in YAML


def _check_separator(value: object) -> object:
    value = _MARKS.get(value, value) if isinstance(value, str) else value
    if isinstance(value, str) and len(value) == 1 and value not in '"\r\n':
        return value
    raise ValueError(f"must be one character between the fields, such as ';', got {show(value)}")


def _check_encoding(value: str) -> str:
    try:
        codecs.lookup(value)
        "".encode(value)
    except (LookupError, ValueError):
        raise ValueError(
            f"must be an encoding that Python knows, such as latin-1, got {value!r}"
        ) from None
    return value


ColumnName = Annotated[str, Field(min_length=1), AfterValidator(clean_text)]
# strict=False accepts the list that YAML gives; the texts inside it are still strict.
ColumnNames = Annotated[
    tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(_clean_columns)
]
Categorical = Annotated[
    Encoding | dict[str, Encoding | Order],
    BeforeValidator(_check_categorical),
    AfterValidator(_clean_keys),
]
MissingValues = Annotated[
    tuple[Level, ...], BeforeValidator(_check_missing_values), Field(strict=False)
]
Separator = Annotated[str, BeforeValidator(_check_separator)]
TextEncoding = Annotated[str, AfterValidator(_check_encoding)]
