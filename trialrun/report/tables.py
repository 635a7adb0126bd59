"""The leaderboard and the winner's confusion matrix in a terminal of any width."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from trialrun.aggregate import Leaderboard, VariantSummary, explain, ordered_metrics
from trialrun.report.format import (
    class_labels,
    counts_text,
    mean_sd_text,
    mean_text,
    num_decimals,
    parameter_text,
    short_names,
)
from trialrun.report.overview import Overview
from trialrun.statistics import Counts, accuracy, normalize_rows

NUM_VARIANTS_SHOWN = 20
_NUM_PROBLEMS_SHOWN = 5
_GAP = 2


def print_run(console: Console, overview: Overview) -> None:
    """Prints leaderboard, selection, the winner's confusion matrix, problems, and the folder."""
    for renderable in run_renderables(overview, width=console.width):
        console.print(renderable)
    # Soft-wrapped: a path that is broken into lines cannot be copied.
    console.print(Text(str(overview.folder)), soft_wrap=True)


def run_renderables(overview: Overview, *, width: int) -> Iterator[RenderableType]:
    """All that is said about a run, from top to bottom, for a terminal of `width` columns."""
    board = overview.leaderboard
    yield Text.assemble((overview.job_name, "bold"), f"  {counts_text(overview.counts)}")
    if overview.summary is None:
        yield Text("This run has not ended: these are the trials so far.", style="yellow")
    if board.variants:
        yield leaderboard_table(board, width=width)
        num_more = len(board.variants) - NUM_VARIANTS_SHOWN
        if num_more > 0:
            place = "variants.csv" if overview.summary is not None else "--json"
            yield Text(f"... and {num_more:,} more ({place})\n", style="dim")
    yield Text(explain(board))
    if board.selection is not None and board.variants[0].test_confusion_matrix is not None:
        yield confusion_table(board.variants[0], overview.class_names, width=width)
    yield from _problem_lines(overview)


def _problem_lines(overview: Overview) -> Iterator[Text]:
    for problem in overview.problems[:_NUM_PROBLEMS_SHOWN]:
        reason = f": {problem.error.strip().splitlines()[-1]}" if problem.error.strip() else ""
        line = f"{problem.variant_id} seed {problem.seed} {problem.status}{reason}"
        yield Text(line, style="red" if problem.status == "failed" else "yellow")
    num_more = len(overview.problems) - _NUM_PROBLEMS_SHOWN
    if num_more > 0:
        yield Text(f"... and {num_more:,} more (trials/)", style="dim")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column that is written out: its header and one cell per variant."""

    header: str
    cells: tuple[str, ...]
    is_number: bool = True

    @property
    def width(self) -> int:
        lines = [*self.header.splitlines(), *self.cells]
        return max(cell_len(line) for line in lines)

    def with_folded_header(self) -> "_Column":
        """The header broken after underscores, so that it is no wider than it must be."""
        room = max([len(part) + 1 for part in self.header.split("_")] + [*map(len, self.cells)])
        lines = [""]
        *parts, last = self.header.split("_")
        for part in [*(f"{part}_" for part in parts), last]:
            if lines[-1] and len(lines[-1] + part) > room:
                lines.append("")
            lines[-1] += part
        return _Column("\n".join(lines), self.cells, self.is_number)


def leaderboard_table(leaderboard: Leaderboard, *, width: int) -> Table:
    """The first 20 variants: parameters, n, validation with the selection metric first, test.

    A wide terminal gets mean ± sd of every metric, training included. A narrow one gives up, in
    this order: training, headers in one line, the sd of other metrics, other metrics.

    Args:
        leaderboard: With at least one variant.
        width: Columns of the terminal.
    """
    variants = leaderboard.variants[:NUM_VARIANTS_SHOWN]
    for columns in _layouts(leaderboard, variants):
        if _fits(columns, width):
            break
    table = _table(columns)
    table.rows[0].style = "bold"
    return table


def _fits(columns: Sequence[_Column], width: int) -> bool:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1) <= width


def _table(columns: Sequence[_Column], title: str | None = None) -> Table:
    table = Table(
        title=title and Text(title, style="default"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for column in columns:
        table.add_column(
            # Text, not str, here and below: a name with brackets is a name, not markup.
            Text(column.header),
            justify="right" if column.is_number else "left",
            overflow="fold",
            no_wrap=column.is_number,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _layouts(
    leaderboard: Leaderboard, variants: Sequence[VariantSummary]
) -> Iterator[list[_Column]]:
    """The columns of the leaderboard, from the most room to the least."""
    names = ordered_metrics(leaderboard)
    main = [name for name in names if not name.startswith("train_")]
    identity = _identity_columns(variants)
    spreads = {name: _metric_column(name, variants, with_sd=True) for name in names}
    means = {name: _metric_column(name, variants, with_sd=False) for name in main}
    yield [*identity, *(spreads[name] for name in names)]
    columns = [*identity, *(spreads[name] for name in main)]
    yield columns
    yield [column.with_folded_header() for column in columns]
    counterpart = leaderboard.metric.replace("val_", "test_", 1)
    by_need = sorted(main, key=lambda name: (name != leaderboard.metric, name != counterpart))
    for num_kept in range(len(main), 0, -1):
        kept = [name for name in main if name in by_need[:num_kept]]
        metrics = [(spreads if name == leaderboard.metric else means)[name] for name in kept]
        yield [column.with_folded_header() for column in (*identity, *metrics)]


def _identity_columns(variants: Sequence[VariantSummary]) -> list[_Column]:
    columns = [
        _Column("#", tuple(str(place) for place in range(1, len(variants) + 1))),
        _Column("variant", tuple(variant.variant_id for variant in variants), is_number=False),
    ]
    for path, name in short_names(list(variants[0].parameters)).items():
        values = [variant.parameters[path] for variant in variants]
        is_number = all(isinstance(value, int | float) for value in values)
        columns.append(_Column(name, tuple(map(parameter_text, values)), is_number))
    counts = {
        "n": [variant.num_completed for variant in variants],
        "diverged": [variant.num_diverged for variant in variants],
        "failed": [variant.num_failed for variant in variants],
    }
    shown = {name: numbers for name, numbers in counts.items() if name == "n" or any(numbers)}
    return columns + [_Column(name, tuple(map(str, numbers))) for name, numbers in shown.items()]


def _metric_column(name: str, variants: Sequence[VariantSummary], *, with_sd: bool) -> _Column:
    summaries = [variant.metrics[name] for variant in variants]
    decimals = num_decimals(summaries)
    text = mean_sd_text if with_sd else mean_text
    return _Column(name, tuple(text(summary, decimals) for summary in summaries))


def confusion_table(
    variant: VariantSummary, class_names: Sequence[str], *, width: int
) -> RenderableType:
    """The pooled test confusion matrix of a variant, with the recall of each class.

    Args:
        variant: With a test confusion matrix.
        class_names: Empty when the data has none.
        width: Columns of the terminal; with too many classes for it, one line takes the place of
            the table.
    """
    matrix = variant.test_confusion_matrix
    assert matrix is not None
    seeds = f"{variant.num_completed} seed{'s'[: variant.num_completed != 1]}"
    title = f"Test set, {variant.variant_id}, {seeds} pooled: accuracy {accuracy(matrix):.2%}"
    for columns in _confusion_layouts(matrix, class_labels(class_names, len(matrix))):
        if _fits(columns, width):
            return _table(columns, title)
    return Text(f"{title}; {len(matrix)} classes: see figures/confusion_matrix.png")


def _confusion_layouts(matrix: Counts, names: Sequence[str]) -> Iterator[list[_Column]]:
    """The columns of a confusion matrix: headed by the names of the classes, then by numbers."""
    numbered = [f"{number} {name}" for number, name in enumerate(names)]
    numbers = [str(number) for number in range(len(names))]
    recalls = [f"{recall:.1%}" for recall in normalize_rows(matrix).diagonal()]
    for rows, headers in ((names, names), (numbered, numbers)):
        predicted = zip(headers, matrix.T.tolist(), strict=True)
        yield [
            _Column("true \\ predicted", tuple(rows), is_number=False),
            *(_Column(name, tuple(f"{count:,}" for count in counts)) for name, counts in predicted),
            _Column("recall", tuple(recalls)),
        ]
