"""The data of a job as part of its plan: its columns, target, rows of each part, and size."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trialrun.data.arrays import Array, leaves
from trialrun.data.load import RawData, check_data
from trialrun.data.table.encoding import Column
from trialrun.data.table.rows import TableSummary
from trialrun.errors import InputError
from trialrun.host import stdout_for_results
from trialrun.job import LoadedJob
from trialrun.trials.trial import Trial

MAX_ROWS = 20
_MAX_NAMES = 5
_PARTS = {"train": "training", "validation": "validation", "test": "test"}


def check_first(loaded: LoadedJob, trial: Trial) -> RawData:
    """The data of a trial.

    Raises:
        InputError: It is wrong; the message says where.
    """
    try:
        with stdout_for_results():
            return check_data(trial.variant.data, loaded.folder, trial.seed)
    except InputError as error:
        raise InputError(loaded.locate(str(error))) from error


def data_bytes(raw: RawData) -> int | None:
    """Bytes of one trial's data on its device, at most 4 per number; None if it is streamed."""
    if raw.streams:
        return None
    parts = [raw.output[part] for part in ("train", "test", "validation") if part in raw.output]
    return sum(
        _device_bytes(array) for part in parts for arrays in part for _, array in leaves(arrays)
    )


def _device_bytes(array: Array) -> int:
    return math.prod(array.shape) * min(4, np.dtype(array.dtype).itemsize)


def print_table_data(console: Console, raw: RawData, *, shown: str) -> None:
    """Prints how a job's table is used; prints nothing if the data is not a table.

    Args:
        console: The console to print to.
        raw: The data of the job's first trial.
        shown: The name of that trial.
    """
    if raw.summary is None or raw.encoder is None:
        return
    summary = raw.summary
    title = f"\nColumns for {shown}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("column", "becomes"):
        table.add_column(name, overflow="fold")
    for name in ("features", "missing"):
        table.add_column(name, justify="right")
    table.add_column("holds", overflow="fold")
    for column in raw.encoder.columns[:MAX_ROWS]:
        table.add_row(*_about(column, summary))
    console.print(table)
    print_rest(console, len(raw.encoder.columns), "columns")
    names = raw.output.get("class_names", ())
    what = f"classification, {len(names)} classes" if names else "regression"
    _print_text(console, f"\nTarget {summary.target!r}: {what}, because {summary.why}.")
    console.print(_rows(raw.output, names))
    print_rest(console, len(names), "classes")
    for note in summary.notes:
        _print_text(console, f"\n{note}")


def _about(column: Column, summary: TableSummary) -> Iterable[Text]:
    kind = summary.kinds[column.name]
    if column.kind == "number":
        becomes, holds = "number", "true and false, as 1 and 0" if kind == "boolean" else "numbers"
        if column.fill is not None:
            holds += f"; {column.fill:.4g} if missing"
    elif column.kind == "ordinal":
        becomes, holds = "position", _first_names(column.categories, " < ")
    else:
        becomes, holds = "one-hot", _first_names(column.categories, ", ")
    num_features, num_missing = len(column.feature_names), summary.num_missing[column.name]
    cells = (column.name, becomes, f"{num_features:,}", f"{num_missing:,}", holds)
    return (Text(cell) for cell in cells)


def _first_names(names: Sequence[str], mark: str) -> str:
    """The first names, and how many there are if there are more."""
    first = mark.join(names[:_MAX_NAMES])
    return first if len(names) <= _MAX_NAMES else f"{first}{mark}... ({len(names):,} in all)"


def _rows(output: Mapping[str, Any], names: Sequence[str]) -> Table:
    """A table of how many rows each part has, by class and in all."""
    table = Table(box=None, pad_edge=False)
    table.add_column("\nrows", overflow="fold")
    parts = [part for part in _PARTS if part in output]
    for part in parts:
        table.add_column(f"\n{_PARTS[part]}", justify="right")
    labels = [output[part][1] for part in parts]
    if names:
        counts = [np.bincount(own, minlength=len(names)) for own in labels]
        for index, name in enumerate(names[:MAX_ROWS]):
            table.add_row(Text(name), *(f"{count[index]:,}" for count in counts))
    table.add_row("in all" if names else "", *(f"{len(own):,}" for own in labels))
    return table


def print_rest(console: Console, num_rows: int, kind: str) -> None:
    """Prints how many rows a table lacks, if there are more than are shown."""
    if num_rows > MAX_ROWS:
        console.print(f"... and {num_rows - MAX_ROWS} more {kind}")


def _print_text(console: Console, text: str) -> None:
    console.print(Text(text))
