"""Whether what a job says of columns fits the header of its data file, and is said once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trialrun.errors import InputError
from trialrun.job.data_files import array_names, column_names, is_same_file, is_unnamed
from trialrun.job.table_spelling import same_category
from trialrun.messages import quoted, suggest

if TYPE_CHECKING:
    from trialrun.job.data_spec import DataSpec


class ColumnProblem(NamedTuple):
    """A field of `data` that does not fit the header of its file, or itself."""

    field: str
    message: str


def check_header(data: "DataSpec") -> Iterator[ColumnProblem]:
    """Fields of `data` that contradict the names in a data file; none if the source has no file."""
    if data.npz is not None:
        try:
            array_names(Path(data.npz))
        except InputError as error:
            yield ColumnProblem("npz", f"data.npz: {error}")
        return
    if data.table is None:
        return
    yield from _check_columns(data, data.source, data.table, data.used_columns)
    if data.test is not None:
        used = data.used_columns
        if not used:  # all columns of the training file
            try:
                used = tuple(column_names(Path(data.table), data.dialect))
            except InputError:
                return  # `_check_columns` above has reported it
        yield from _check_columns(data, "test", data.test, used)
        if is_same_file(Path(data.table), Path(data.test)):
            yield ColumnProblem(
                "test",
                f"data.test: {Path(data.test).name} holds the same bytes as data.{data.source}, so"
                " that models would be tested on training rows; give other rows, or give"
                " data.test_split instead",
            )


def check_orders(data: "DataSpec") -> Iterator[ColumnProblem]:
    """Columns of `data.categorical` whose order holds a category twice."""
    for name, order in data.encodings.items():
        if isinstance(order, tuple) and (twice := same_category(order, data.dialect)):
            message = f"of {name} must hold each category once, but {twice} are the same one"
            yield ColumnProblem("categorical", f"data.categorical {message}")


def _check_columns(
    data: "DataSpec", field: str, file: str, wanted: Sequence[str]
) -> Iterator[ColumnProblem]:
    """The first problem of the header of one table, if it has one."""
    path = Path(file)
    where = f"data.{field}: {path.name}"
    try:
        names = column_names(path, data.dialect)
    except InputError as error:
        yield ColumnProblem(field, f"data.{field}: {error}")
        return
    if len(names) < 2:
        yield ColumnProblem(
            field, f"{where} has one column, {names[0]!r}{_separator_hint(names[0])}"
        )
        return
    target = () if data.target is None else (data.target,)
    missing = [name for name in (*target, *data.encodings, *wanted) if name not in names]
    if missing:
        named_in = _field_that_names(missing[0], data, field)
        message = f"{path.name} has no column {missing[0]!r}; {suggest(missing[0], names)}"
        yield ColumnProblem(field if field == "test" else named_in, f"data.{named_in}: {message}")
        return
    unnamed = next((index for index, name in enumerate(names) if is_unnamed(name)), None)
    if not data.columns and unnamed is not None:
        text = (
            "has no name (is it an index that pandas wrote, or do the lines end with a separator?)"
        )
        yield ColumnProblem(
            field,
            f"data.{field}: column {unnamed + 1} of {path.name} {text}; give it a name, or list the"
            " columns to use in data.columns",
        )
        return
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        yield ColumnProblem(
            field, f"{where} has several columns named {doubled[0]!r}; names must be distinct"
        )


def _separator_hint(only_name: str) -> str:
    """What to do about a table with one column, if its name holds what may be a separator."""
    marks = [quoted(mark) for mark in ";\t|," if mark in only_name]
    if not marks:
        return ""
    return f"; if {marks[0]} separates its columns, give data.separator: {marks[0]}"


def _field_that_names(column: str, data: "DataSpec", file_field: str) -> str:
    """The field of `data` that names a column; the file's own field if no other does."""
    if column == data.target:
        return "target"
    if column in data.encodings:
        return "categorical"
    return "columns" if column in (data.columns or ()) else file_field
