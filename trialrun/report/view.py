"""A leaderboard as its reader wants it: some of the variants, in another order."""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trialrun.aggregate import Leaderboard, VariantSummary, variant_rows
from trialrun.arguments import is_real
from trialrun.compilation import natural_goal
from trialrun.document import parse_value, show
from trialrun.errors import InputError
from trialrun.report.format import short_names
from trialrun.vocabulary import suggest

_PARAMETER, _MEAN = "param.", "_mean"
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Of the scores that are not Keras's own.
_LARGE_IS_GOOD = ("roc_auc", "average_precision")
_CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*)")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """Which variants of a leaderboard are shown, in which order.

    A column is one of variants.csv, a searched parameter by its path or the end of it, or a metric,
    which stands for its mean.

    Attributes:
        where: Conditions such as `learning_rate=0.001` or `test_accuracy>0.9`; values as in YAML.
        sort: A column; None: by rank. Parameters ascend, metrics begin with the best.
        reverse: Whether the order is turned around.
    """

    where: Sequence[str] = ()
    sort: str | None = None
    reverse: bool = False

    def variants_of(self, leaderboard: Leaderboard) -> tuple[VariantSummary, ...]:
        """The variants that meet all conditions, sorted; their ranks stay those among all.

        Raises:
            InputError: There is no such column, or a condition is none.
        """
        if self == WHOLE or not leaderboard.variants:
            return leaderboard.variants
        return _select(leaderboard, self.where, self.sort, self.reverse)


WHOLE = View()


def _select(
    leaderboard: Leaderboard, where: Sequence[str], sort: str | None, reverse: bool
) -> tuple[VariantSummary, ...]:
    rows = variant_rows(leaderboard)
    tests = [_condition(text, rows[0]) for text in where]
    kept = [index for index, row in enumerate(rows) if all(test(row) for test in tests)]
    if sort is not None:
        column = _column(sort, rows[0], f"--sort {sort}")
        direction = -_direction(column) if reverse else _direction(column)
        kept.sort(key=lambda index: _sort_key(rows[index][column], direction))
    elif reverse:
        kept.reverse()
    return tuple(leaderboard.variants[index] for index in kept)


def _condition(text: str, row: Row) -> Callable[[Row], bool]:
    place = f"--where {text}"
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        allowed = ", ".join(_OPERATORS)
        raise InputError(f"{place}: expected a column, one of {allowed}, and a value")
    name, symbol, written = parts.groups()
    column, value = _column(name, row, place), parse_value(written, place)
    holds = _OPERATORS[symbol]
    if symbol in ("=", "!="):
        return lambda row: holds(row[column], value)
    if not is_real(value):
        raise InputError(f"{place}: {symbol} compares numbers, got {show(value)}")
    return lambda row: is_real(row[column]) and holds(row[column], value)


def _column(name: str, row: Row, place: str) -> str:
    """The column of variants.csv that a name stands for.

    Raises:
        InputError: None, or more than one.
    """
    paths = [key.removeprefix(_PARAMETER) for key in row if key.startswith(_PARAMETER)]
    endings = [path for path in paths if path == name or path.endswith(f".{name}")]
    if name in paths:
        endings = [name]
    for column in (name, *(f"{_PARAMETER}{path}" for path in endings), f"{name}{_MEAN}"):
        if column in row and len(endings) <= 1:
            return column
    if endings:
        raise InputError(f"{place}: {name!r} may be {' or '.join(endings)}")
    means = [key.removesuffix(_MEAN) for key in row if key.endswith(_MEAN)]
    others = ("rank", "variant_id", "n", "diverged", "failed", "p_value")
    known = [*short_names(paths).values(), *means, *others]
    raise InputError(f"{place}: there is no column {name!r}; {suggest(name, known)}")


def _direction(column: str) -> int:
    """-1 for a column of a metric that is good when large."""
    metric, _, statistic = column.rpartition("_")
    bare = metric.partition("_")[2]
    is_large_good = bare in _LARGE_IS_GOOD or natural_goal(bare) == "maximize"
    return -1 if is_large_good and statistic != "sd" else 1


def _sort_key(value: Any, direction: int) -> tuple[int, float, str]:
    """Numbers by size, then texts and lists, then what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 2, 0.0, ""
    if is_real(value):
        return 0, direction * value, ""
    return 1, 0.0, value if isinstance(value, str) else json.dumps(value)
