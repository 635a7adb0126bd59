"""The section `data` of a job: where the data comes from, and how it is prepared."""

import codecs
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from trialrun.datafiles import find_data_file
from trialrun.dialect import Dialect
from trialrun.document import show
from trialrun.errors import InputError
from trialrun.section import SEED_LIMIT, Reference, Section, folder_of, word_or_int

DEFAULT_GENERATOR = "trialrun.datasets:medical_trial"
DEFAULT_TEST_SPLIT = 0.2
SOURCES = ("generator", "csv", "npz", "parquet")
_TABLES = ("csv", "parquet")
Kind = Literal["minmax", "standard", "none"]
Level = str | int | float
Order = Annotated[tuple[Level, ...], Field(strict=False)]
Encoding = Literal["onehot", "ordinal"]
_KINDS, _ENCODINGS = ("minmax", "standard", "none"), ("onehot", "ordinal")
# Field -> the sources that it is for; a field that is not listed is for all.
_FIELDS_OF = {
    "args": ("generator",),
    **dict.fromkeys(
        ("target", "task", "columns", "categorical", "missing", "missing_values", "test"), _TABLES
    ),
    **dict.fromkeys(("separator", "decimal", "thousands", "encoding"), ("csv",)),
    **dict.fromkeys(("test_split", "stratify"), ("csv", "npz", "parquet")),
}


def _word_or_words(words: tuple[str, ...], keys: str) -> BeforeValidator:
    """Accepts one of some words, or a mapping of names to them."""
    listed = f"{', '.join(map(repr, words[:-1]))} or {words[-1]!r}"

    def check(value: object) -> object:
        if isinstance(value, str) and value in words:
            return value
        is_mapping = isinstance(value, Mapping) and value
        if is_mapping and all(isinstance(v, str) and v in words for v in value.values()):  # type: ignore[attr-defined]
            return value
        mapping = "" if isinstance(value, str) else f", or a mapping of {keys} to these"
        raise ValueError(f"must be {listed}{mapping}, got {show(value)}")

    return BeforeValidator(check)


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
            texts = [str(level).strip() for level in encoding]
            if len(set(texts)) < max(2, len(texts)):
                raise ValueError(
                    f"of {name} must be two or more different categories, the lowest first, got"
                    f" {show(encoding)}"
                )
        elif encoding not in _ENCODINGS:
            raise ValueError(
                f"must be {words}, or a mapping of column names to these or to a list of their"
                f" categories, the lowest first, got {show(value)}"
            )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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


def _check_stratify(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f"must be 'auto', true or false, got {show(value)}")


def _check_distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"must be distinct, got {list(values)}")
    return values


def _check_args(value: dict[str, Any]) -> dict[str, Any]:
    if "seed" in value:
        raise ValueError(
            "holds a seed, but the generator is always given one; leave it out and see data.seed"
        )
    return value


def _check_file(value: str, info: ValidationInfo) -> str:
    """The absolute path of an existing file; unchanged if the job's folder is not known."""
    folder = folder_of(info)
    if folder is None:
        return value
    try:
        return find_data_file(value, folder)
    except InputError as error:
        raise ValueError(str(error)) from error


DataFile = Annotated[str, AfterValidator(_check_file)]
Share = Annotated[float, Field(gt=0, lt=1)]


class DataSpec(Section):
    """Where the data comes from and how it is prepared.

    Exactly one of `generator`, `csv`, `npz` and `parquet` is the source. In a table the column
    `target` is predicted from the columns named in `columns`, or from all others. Test rows come
    from the file `test`, or are the share `test_split` of the table's own rows.
    """

    generator: Reference | None = None
    args: Annotated[dict[str, Any], AfterValidator(_check_args)] = Field(default_factory=dict)
    csv: DataFile | None = None
    npz: DataFile | None = None
    parquet: DataFile | None = None
    target: Annotated[str, Field(min_length=1)] | None = None
    task: Literal["auto", "classification", "regression"] = "auto"
    # strict=False accepts the list that YAML gives; the texts inside it are still strict.
    columns: (
        Annotated[
            tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(_check_distinct)
        ]
        | None
    ) = None
    categorical: Annotated[
        Encoding | dict[str, Encoding | Order], BeforeValidator(_check_categorical)
    ] = "onehot"
    missing: Literal["refuse", "drop", "mean"] = "refuse"
    missing_values: (
        Annotated[tuple[Level, ...], BeforeValidator(_check_missing_values), Field(strict=False)]
        | None
    ) = None
    separator: Annotated[str, BeforeValidator(_check_separator)] | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    encoding: Annotated[str, AfterValidator(_check_encoding)] | None = None
    test: DataFile | None = None
    test_split: Share | None = None
    stratify: Annotated[Literal["auto"] | bool, BeforeValidator(_check_stratify)] = "auto"
    seed: Annotated[Literal["per_trial"] | int, word_or_int("per_trial", 0, SEED_LIMIT)] = (
        "per_trial"
    )
    scaling: Annotated[Kind | dict[str, Kind], _word_or_words(_KINDS, "input names")] = "minmax"
    validation_split: Share = 0.1

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, value: Any) -> Any:
        """Fills in defaults that depend on the source."""
        if not isinstance(value, Mapping):
            return value
        if all(value.get(source) is None for source in SOURCES):
            return {**value, "generator": DEFAULT_GENERATOR}
        is_table = any(value.get(source) is not None for source in _TABLES)
        if is_table and value.get("test") is None and value.get("test_split") is None:
            return {**value, "test_split": DEFAULT_TEST_SPLIT}
        return value

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        given = [source for source in SOURCES if getattr(self, source) is not None]
        if len(given) > 1:
            listed = f"{', '.join(SOURCES[:-1])} and {SOURCES[-1]}"
            raise ValueError(f"must have only one of {listed}, got {' and '.join(given)}")
        for name, sources in _FIELDS_OF.items():
            field = type(self).model_fields[name]
            default = field.get_default(call_default_factory=True, validated_data={})
            if given[0] not in sources and getattr(self, name) != default:
                raise ValueError(f"{name} is for {', '.join(sources)}, not for {given[0]}")
        if self.table is not None:
            self._check_table()
        return self

    def _check_table(self) -> None:
        if self.target is None:
            raise ValueError(
                f"target is missing; name the column of the {self.source} file that is to be"
                " predicted"
            )
        for name, columns in (("columns", self.columns or ()), ("categorical", self.encodings)):
            if self.target in columns:
                raise ValueError(
                    f"{name} holds the target {self.target!r}, which is no feature; leave it out"
                )
        if self.thousands is not None and self.thousands == self.dialect.decimal:
            raise ValueError(
                f"thousands and decimal are both {self.thousands!r}; they must be different"
            )
        if self.test is not None and self.test_split is not None:
            raise ValueError("test and test_split both choose the test rows; give only one")
        for column in self.encodings:
            if self.columns is not None and column not in self.columns:
                raise ValueError(
                    f"categorical names {column!r}, which is not in columns; add it there or leave"
                    " it out here"
                )

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_of_the_source(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """Without fields of other sources, so that a job's hash is the same as in older versions.

        Their runs are found by that hash.
        """
        values: dict[str, Any] = serialize(self)
        return {
            name: value
            for name, value in values.items()
            if self.source in _FIELDS_OF.get(name, SOURCES)
            and not (value is None and (name in SOURCES or name in _FIELDS_OF))
        }

    @property
    def source(self) -> str:
        """The name of the field that gives the source: one of `SOURCES`."""
        return next(source for source in SOURCES if getattr(self, source) is not None)

    @property
    def table(self) -> str | None:
        """The path of the table; None for other sources."""
        return self.csv if self.csv is not None else self.parquet

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all data files."""
        return tuple(file for file in (self.table, self.npz, self.test) if file is not None)

    @property
    def dialect(self) -> Dialect:
        """How numbers, missing values and text are written in the tables."""
        names = ("separator", "decimal", "thousands", "encoding", "missing_values")
        given = {name: getattr(self, name) for name in names}
        return Dialect(**{name: value for name, value in given.items() if value is not None})

    @property
    def encodings(self) -> Mapping[str, Encoding | tuple[Level, ...]]:
        """Column that the job declares categorical -> its encoding, or its categories in order."""
        return self.categorical if isinstance(self.categorical, dict) else {}

    @property
    def used_columns(self) -> tuple[str, ...]:
        """Names of the features and the target; empty if all columns are used."""
        return () if self.columns is None or self.target is None else (*self.columns, self.target)
