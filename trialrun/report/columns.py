"""The columns of a leaderboard as text, for the terminal and for the page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from trialrun.analysis.parameters import ABSENT, HasParameters, values_in
from trialrun.analysis.variants import VariantSummary
from trialrun.job import searched_paths
from trialrun.report.format import mean_sd_text, mean_text, parameter_text, short_names


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column of a leaderboard as text.

    Attributes:
        header: The column's name.
        cells: One text per variant.
        is_number: Whether the cells are numbers.
        values: The numbers by which the cells are sorted, NaN for a cell without one; empty to
            sort by the texts.
        is_parameter: Whether it is a searched parameter.
    """

    header: str
    cells: tuple[str, ...]
    is_number: bool = True
    values: tuple[float, ...] = ()
    is_parameter: bool = False

    @property
    def width(self) -> int:
        """The width in a terminal, in character cells, of the header or of the widest cell."""
        lines = [line for text in (self.header, *self.cells) for line in text.splitlines()]
        return max(map(cell_len, lines), default=0)

    def with_folded_header(self) -> "TextColumn":
        """The column with its header broken between words, to make it as narrow as possible."""
        room = max(map(len, [*_words(self.header), *self.cells]))
        return replace(self, header=fold_header(self.header, room))


def fold_header(name: str, room: int) -> str:
    """A name broken between its words into lines of `room` characters, or of one longer word."""
    lines = [""]
    for word in _words(name):
        if lines[-1] and len(lines[-1] + word.rstrip()) > room:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)


def _words(name: str) -> list[str]:
    """A name split after underscores and spaces."""
    return re.split(r"(?<=[_ ])", name)


def identity_columns(variants: Sequence[VariantSummary]) -> list[TextColumn]:
    """Columns of rank, id, parameters under short names, and n; other counts only if not all 0.

    Args:
        variants: At least one, the best first.
    """
    columns = [
        TextColumn("#", tuple(str(variant.rank) for variant in variants)),
        TextColumn("variant", tuple(variant.variant_id for variant in variants), is_number=False),
    ]
    counts = {
        "n": [variant.num_completed for variant in variants],
        "diverged": [variant.num_diverged for variant in variants],
        "failed": [variant.num_failed for variant in variants],
    }
    shown = {name: numbers for name, numbers in counts.items() if name == "n" or any(numbers)}
    num_trials = [TextColumn(name, tuple(map(str, numbers))) for name, numbers in shown.items()]
    return [*columns, *parameter_columns(variants), *num_trials]


def parameter_columns(variants: Sequence[HasParameters]) -> list[TextColumn]:
    """Columns of the searched parameters under short names, in the order of the search."""
    columns = []
    for path, name in short_names(searched_paths(one.parameters for one in variants)).items():
        values = values_in(variants, path)
        is_number = all(value is ABSENT or isinstance(value, int | float) for value in values)
        numbers = (math.nan if value is ABSENT else float(value) for value in values if is_number)
        cells = tuple(map(parameter_text, values))
        columns.append(TextColumn(name, cells, is_number, tuple(numbers), is_parameter=True))
    return columns


def metric_column(name: str, variants: Sequence[VariantSummary], *, with_sd: bool) -> TextColumn:
    """The column of a metric's mean over seeds, with or without its standard deviation."""
    summaries = [variant.metrics[name] for variant in variants]
    cells = tuple(map(mean_sd_text if with_sd else mean_text, summaries))
    return TextColumn(name, cells, values=tuple(summary.mean for summary in summaries))
