"""Filters and sorts a leaderboard: `trialrun show --where ... --sort ...`."""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trialrun.analysis.variants import Leaderboard, VariantSummary, variant_rows
from trialrun.errors import InputError
from trialrun.job.document import parse_value
from trialrun.job.keras_api.arguments import is_real
from trialrun.job.keras_api.logs import natural_goal
from trialrun.job.table_spelling import clean_text
from trialrun.messages import show, suggest
from trialrun.report.format import short_names
from trialrun.store.variants_csv import columns_of

_PARAMETER, _MEAN = "param.", "_mean"
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Scores that are not Keras's own.
_LARGE_IS_GOOD = ("roc_auc", "average_precision")
_CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*)")

CsvRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """Which variants of a leaderboard are shown, in which order.

    A column is named by its name in variants.csv, by a searched parameter's path or the end of it,
    or by a metric, which stands for its mean.

    Attributes:
        where: Conditions such as `learning_rate=0.001` or `test_accuracy>0.9`; values as in YAML. A
            variant that does not have a parameter meets no condition on it.
        sort: The column to sort by; None to sort by rank. Parameters are sorted in ascending order,
            metrics begin with the best.
        reverse: Whether the order is reversed.
    """

    where: Sequence[str] = ()
    sort: str | None = None
    reverse: bool = False

    def variants_of(self, leaderboard: Leaderboard) -> tuple[VariantSummary, ...]:
        """The variants that meet all conditions, sorted; they keep their ranks among all variants.

        Raises:
            InputError: There is no such column, or a condition is malformed.
        """
        if self == WHOLE or not leaderboard.variants:
            return leaderboard.variants
        return _select(leaderboard, self.where, self.sort, self.reverse)


WHOLE = View()


def _select(
    leaderboard: Leaderboard, where: Sequence[str], sort: str | None, reverse: bool
) -> tuple[VariantSummary, ...]:
    rows = variant_rows(leaderboard)
    columns = columns_of(rows)
    tests = [_condition(text, columns) for text in where]
    kept = [index for index, row in enumerate(rows) if all(test(row) for test in tests)]
    if sort is not None:
        column = _column(sort, columns, f"--sort {sort}")
        direction = -_direction(column) if reverse else _direction(column)
        kept.sort(key=lambda index: _sort_key(rows[index].get(column), direction))
    elif reverse:
        kept.reverse()
    return tuple(leaderboard.variants[index] for index in kept)


def _condition(text: str, columns: Sequence[str]) -> Callable[[CsvRow], bool]:
    option = f"--where {text}"
    found = _CONDITION.fullmatch(text)
    if found is None:
        allowed = ", ".join(_OPERATORS)
        raise InputError(f"{option}: write a column, one of {allowed}, and a value, such as n>=3")
    name, symbol, written = found.groups()
    column, value = _column(name, columns, option), parse_value(written, option)
    holds = _OPERATORS[symbol]
    if symbol in ("=", "!="):
        return lambda row: column in row and holds(_spelled(row[column]), _spelled(value))
    if not is_real(value):
        raise InputError(f"{option}: {symbol} compares numbers, got {show(value)}")
    return lambda row: is_real(row.get(column)) and holds(row[column], value)


def _spelled(value: Any) -> Any:
    """A text in its only spelling: a terminal may write accents in another form than the job."""
    return clean_text(value) if isinstance(value, str) else value


def _column(name: str, columns: Sequence[str], option: str) -> str:
    """The column of variants.csv that a name stands for.

    Raises:
        InputError: The name stands for no column, or for more than one.
    """
    paths = [key.removeprefix(_PARAMETER) for key in columns if key.startswith(_PARAMETER)]
    endings = [path for path in paths if path == name or path.endswith(f".{name}")]
    if name in paths:
        endings = [name]
    for column in (name, *(f"{_PARAMETER}{path}" for path in endings), f"{name}{_MEAN}"):
        if column in columns and len(endings) <= 1:
            return column
    if endings:
        raise InputError(f"{option}: {name!r} may mean {' or '.join(endings)}")
    means = [key.removesuffix(_MEAN) for key in columns if key.endswith(_MEAN)]
    others = ("rank", "variant_id", "n", "diverged", "failed", "p_value", "device_s")
    known = [*short_names(paths).values(), *means, *(key for key in others if key in columns)]
    raise InputError(f"{option}: there is no column {name!r}; {suggest(name, known)}")


def _direction(column: str) -> int:
    """The direction to sort in: -1 for a metric of which large values are good, else 1."""
    metric, _, statistic = column.rpartition("_")
    bare = metric.partition("_")[2]
    is_large_good = bare in _LARGE_IS_GOOD or natural_goal(bare) == "maximize"
    return -1 if is_large_good and statistic != "sd" else 1


def _sort_key(value: Any, direction: int) -> tuple[int, float, str]:
    """A key that sorts numbers by size, then texts and lists, then unknown values."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 2, 0.0, ""
    if is_real(value):
        return 0, direction * value, ""
    return 1, 0.0, value if isinstance(value, str) else json.dumps(value)
