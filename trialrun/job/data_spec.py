"""The section `data` of a job: where the data comes from, and how it is prepared."""

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

from trialrun.errors import InputError
from trialrun.job.data_files import find_data_file
from trialrun.job.fields import SEED_LIMIT, ReferenceText, Section, folder_of, word_or_int
from trialrun.job.table_dialect import Dialect
from trialrun.job.table_fields import (
    Categorical,
    ColumnName,
    ColumnNames,
    Encoding,
    Level,
    MissingValues,
    Separator,
    TextEncoding,
)
from trialrun.job.user_code.depends_on import DependsOn
from trialrun.messages import show

DEFAULT_GENERATOR = "trialrun.datasets:medical_trial"
DEFAULT_TEST_SPLIT = 0.2
SOURCES = ("generator", "csv", "npz", "parquet")
_TABLES = ("csv", "parquet")
ScalingName = Literal["minmax", "standard", "none"]
_KINDS = ("minmax", "standard", "none")
# Field -> the sources that it is for; a field that is not listed is for all.
_FIELDS_OF = {
    "args": ("generator",),
    "depends_on": ("generator",),
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


def _check_stratify(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f"must be 'auto', true or false, got {show(value)}")


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

    generator: ReferenceText | None = None
    """The function that makes the data: `f(seed, **args)` returns
    `{"train": (x, y), "test": (x, y)}`, and perhaps `"validation"`, `"class_names"` and
    `"feature_names"`. The default, where no other source is given, is
    `trialrun.datasets:medical_trial`.

    Allowed: `module:function`, or `file.py:function` with the path starting at the job's folder.
    Example: `mine.py:my_data`.
    """
    args: Annotated[dict[str, Any], AfterValidator(_check_args)] = Field(default_factory=dict)
    """Keyword arguments of the generator.

    Allowed: a mapping without `seed`. Example: `{num_rows: 5000}`.
    """
    depends_on: DependsOn = ()
    """Files that the generator needs in ways that its source code does not show: those that it
    reads, and modules that it imports by a name that it makes up. They count as its code does: they
    are sent to workers, and an edit of one makes other trials.

    Allowed: a list of paths and patterns that start at the job's folder; a folder stands for all of
    its files. Example: `[patients.csv, "tables/*.csv"]`.
    """
    csv: DataFile | None = None
    """A CSV file with a header. It may be compressed: `.gz`, `.bz2`, `.xz`.

    Allowed: a path that starts at the job's folder. Example: `patients.csv`.
    """
    npz: DataFile | None = None
    """A file of NumPy arrays: `x` and `y`, which are split, or `x_train`, `y_train`, `x_test`,
    `y_test` and perhaps `x_val`, `y_val`; perhaps `class_names` and `feature_names`. The arrays
    of several inputs are named `x.age`, `x.dose`.

    Allowed: a path that starts at the job's folder. Example: `images.npz`.
    """
    parquet: DataFile | None = None
    """A Parquet file.

    Allowed: a path that starts at the job's folder. Example: `patients.parquet`.
    """
    target: ColumnName | None = None
    """The column of a table that is predicted. Every table needs it. Example: `outcome`."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """Whether the target is classes or quantities. With `auto`, text and whole numbers are classes,
    and numbers with fractions are quantities.

    Example: `regression`.
    """
    columns: ColumnNames | None = None
    """The columns that are features; without it, all but the target are.

    Allowed: a list of distinct column names. Example: `[age, dose, clinic]`.
    """
    categorical: Categorical = "onehot"
    """How columns of categories become numbers: all in the same way, or each as its name says. A
    list gives the categories in order, the lowest first. Text columns that are not named here
    are one-hot encoded.

    Allowed: `onehot`, `ordinal`, or a mapping of columns to these or to lists of categories.
    Example: `{clinic: onehot, stage: [low, mid, high]}`.
    """
    missing: Literal["refuse", "drop", "mean"] = "refuse"
    """What happens to a missing value: the job is refused, its row is dropped, or the mean of the
    training rows takes its place.

    Example: `mean`.
    """
    missing_values: MissingValues | None = None
    """What stands for a missing value besides an empty field. Nothing else is taken as missing.

    Allowed: a list of texts and numbers. Example: `[NA, "?", -999]`.
    """
    separator: Separator | None = None
    """The character between the fields of a CSV file; a comma if not given.

    Allowed: one character, or `tab`. Example: `";"`.
    """
    decimal: Literal[".", ","] | None = None
    """The decimal mark of a CSV file; a point if not given. Example: `","`."""
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    """The mark between groups of three digits in a CSV file; none if not given. Example: `"."`."""
    encoding: TextEncoding | None = None
    """The encoding of a CSV file; UTF-8 if not given.

    Allowed: one that Python knows. Example: `latin-1`.
    """
    test: DataFile | None = None
    """A table of the test rows, in the place of `test_split`.

    Allowed: a path that starts at the job's folder, to another file than that of the training rows.
    Example: `other.csv`.
    """
    test_split: Share | None = None
    """The share of a file's rows that is kept for the test; 0.2 if neither this nor `test` is
    given.

    Example: `0.3`.
    """
    stratify: Annotated[Literal["auto"] | bool, BeforeValidator(_check_stratify)] = "auto"
    """Whether the parts of a file get the same share of each class, and at least one row of each.
    `auto` does so where the target is classes.

    Allowed: `auto`, `true` or `false`. Example: `false`.
    """
    seed: Annotated[Literal["per_trial"] | int, word_or_int("per_trial", 0, SEED_LIMIT)] = (
        "per_trial"
    )
    """`per_trial` gives each seed data, or a split, of its own; an integer gives all trials the
    same.

    Allowed: `per_trial`, or an integer from 0 to 2**32 - 1. Example: `7`.
    """
    scaling: Annotated[
        ScalingName | dict[str, ScalingName], _word_or_words(_KINDS, "input names")
    ] = "minmax"
    """How inputs are scaled, per feature, by the training rows alone: to the range from 0 to 1, to
    mean 0 and standard deviation 1, or not at all. Inputs may differ, by name.

    Allowed: `minmax`, `standard`, `none`, or a mapping of input names to these. Example:
    `{measurements: standard, clinic: none}`.
    """
    validation_split: Share = 0.1
    """The share of the shuffled training rows that is kept for validation: the last ones, as Keras
    does. It is not used where the data has a validation part of its own.

    Example: `0.2`.
    """

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
