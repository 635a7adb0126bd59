"""The leaderboard of the page: cells with values to sort by, and choices to filter rows by."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trialrun.analysis.variants import Leaderboard, VariantSummary, ordered_metrics
from trialrun.job import searched_paths
from trialrun.report.columns import TextColumn, identity_columns, metric_column
from trialrun.report.format import duration_text, p_value_text, short_names

MAX_ROWS = 200
MAX_CELLS = 20_000  # about a megabyte of HTML, which phones can still scroll
_MIN_ROWS = 20
_MAX_CHOICES = 6
_MAX_TEXTS = 25
_LONG = 90
_NUM_PRINTED = 12
_GROUPS = {"val_": "Validation", "test_": "Test", "train_": "Training"}
# The number that a text begins with: "<0.001", "1,890", "0.184 ± 0.012", "1.5e-05 [1e-05, 2e-05]".
_LEADING_NUMBER = re.compile(r"[<>≤≥]?\s*([-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?)", re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class HeadGroup:
    """A group of columns under one upper header, which may have no title."""

    title: str
    width: int


@dataclass(frozen=True, slots=True)
class Head:
    """The header of a column: its full name, and the text under the title of its group."""

    name: str
    text: str
    is_number: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, and for a number the value to sort by; empty if there is none."""

    text: str
    is_number: bool
    value: str = ""

    @property
    def is_long(self) -> bool:
        """Whether only its first lines are shown."""
        return len(self.text) > _LONG


@dataclass(frozen=True, slots=True)
class Row:
    """A variant and its cells."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """A parameter to filter by: its column, and its values as the column shows them."""

    name: str
    column: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PageTable:
    """The leaderboard as the page shows it; empty if there are no variants."""

    groups: tuple[HeadGroup, ...] = ()
    heads: tuple[Head, ...] = ()
    rows: tuple[Row, ...] = ()
    choices: tuple[Filter, ...] = ()
    name_column: int = 1
    num_printed: int = _NUM_PRINTED


def page_table(board: Leaderboard) -> PageTable:
    """The table of the best variants, as many as a page can hold, with all their metrics."""
    if not board.variants:
        return PageTable()
    variants = board.variants[: _num_rows(board)]
    identity = [*identity_columns(variants), *_p_values(board, variants), *_costs(variants)]
    groups, columns, texts = (
        [HeadGroup("", len(identity))],
        [*identity],
        [c.header for c in identity],
    )
    for prefix, title in _GROUPS.items():
        names = [name for name in ordered_metrics(board) if name.startswith(prefix)]
        columns += [metric_column(name, variants, with_sd=True) for name in names]
        texts += [name.removeprefix(prefix) for name in names]
        groups += [HeadGroup(title, len(names))] if names else []
    cells = [_cells(column) for column in columns]
    return PageTable(
        groups=tuple(groups),
        heads=tuple(
            Head(column.header, text, column.is_number)
            for column, text in zip(columns, texts, strict=True)
        ),
        rows=tuple(
            Row(variant.variant_id, row)
            for variant, row in zip(variants, zip(*cells, strict=True), strict=True)
        ),
        choices=_choices(identity, variants),
        name_column=[column.header for column in identity].index("variant"),
    )


def _p_values(board: Leaderboard, variants: Sequence[VariantSummary]) -> list[TextColumn]:
    """The column of p-values for being worse than the leader; none for a single variant."""
    if board.certainty is None or not board.certainty.p_values:
        return []
    p_values = [board.certainty.p_values.get(variant.variant_id, math.nan) for variant in variants]
    texts = tuple("" if math.isnan(value) else p_value_text(value) for value in p_values)
    return [TextColumn("p", texts, values=tuple(p_values))]


def _costs(variants: Sequence[VariantSummary]) -> list[TextColumn]:
    """The column of what variants have cost; none if that is not known."""
    values = [math.nan if one.cost is None else one.cost.device_s for one in variants]
    texts = tuple("" if math.isnan(value) else duration_text(value) for value in values)
    return [TextColumn("cost", texts, values=tuple(values))] if any(texts) else []


def _num_rows(board: Leaderboard) -> int:
    num_parameters = len(searched_paths(variant.parameters for variant in board.variants))
    num_columns = num_parameters + len(board.variants[0].metrics) + 6
    return max(_MIN_ROWS, min(MAX_ROWS, MAX_CELLS // num_columns))


def _cells(column: TextColumn) -> list[Cell]:
    if not column.is_number:
        return [Cell(text, is_number=False) for text in column.cells]
    values = column.values or tuple(map(leading_number, column.cells))
    return [
        Cell(text, is_number=True, value="" if math.isnan(value) else f"{value:.9g}")
        for text, value in zip(column.cells, values, strict=True)
    ]


def leading_number(text: str) -> float:
    """The number that a text begins with; NaN if it begins with none.

    >>> leading_number("1,890 of 2,100")
    1890.0
    """
    found = _LEADING_NUMBER.match(text)
    return float(found[1].replace(",", "")) if found else math.nan


def _choices(
    identity: Sequence[TextColumn], variants: Sequence[VariantSummary]
) -> tuple[Filter, ...]:
    """Choices for the first parameters that have few enough values to choose from."""
    names = short_names(searched_paths(variant.parameters for variant in variants)).values()
    choices = []
    for index, column in enumerate(identity):
        texts = tuple(dict.fromkeys(column.cells))
        if column.header in names and 1 < len(texts) <= _MAX_TEXTS:
            choices.append(Filter(column.header, index, _ordered(texts)))
    return tuple(choices[:_MAX_CHOICES])


def _ordered(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts sorted: numbers by size, then lists by their numbers, other texts by alphabet."""

    def key(text: str) -> tuple[bool, tuple[float, ...], str]:
        numbers = tuple(float(number) for number in _PLAIN_NUMBER.findall(text))
        number = leading_number(text)
        is_text = math.isnan(number)
        return is_text, numbers if is_text else (number,), text

    return tuple(sorted(texts, key=key))
