"""The leaderboard and the winner's confusion matrix in a terminal of any width."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import isnan

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from trialrun.analysis.explanation import explain
from trialrun.analysis.rounds import DroppedVariant
from trialrun.analysis.variants import Leaderboard, VariantSummary, ordered_metrics
from trialrun.errors import InputError
from trialrun.report.columns import TextColumn, identity_columns, metric_column
from trialrun.report.format import (
    class_labels,
    counts_text,
    place_of,
    pooled_text,
    reason_of,
)
from trialrun.report.overview import Overview
from trialrun.report.rounds import dropped_columns, round_lines
from trialrun.report.saved import saved_sentences
from trialrun.statistics.matrices import accuracy, matrix_scores
from trialrun.statistics.spread import Counts

NUM_VARIANTS_IN_TERMINAL = 20
_NUM_PROBLEMS_SHOWN = 5
_GAP = 2
_TEXT = 16  # how narrow a column of texts may become


def print_run(console: Console, overview: Overview, shown: Sequence[VariantSummary]) -> None:
    """Prints the leaderboard, the selection, the winner's confusion matrix, and problems.

    Args:
        console: The console to print to.
        overview: The run.
        shown: The variants of the leaderboard, in their order.
    """
    for renderable in run_renderables(overview, shown, width=console.width):
        console.print(renderable)


def run_renderables(
    overview: Overview, shown: Sequence[VariantSummary], *, width: int
) -> Iterator[RenderableType]:
    """Everything that is printed about a run, in order, for a terminal of `width` columns."""
    board = overview.leaderboard
    yield Text.assemble((overview.job_name, "bold"), f"  {counts_text(overview.counts)}")
    if overview.summary is None:
        yield Text("This run has not ended: these are the trials so far.", style="yellow")
    if board.rounds is not None:
        yield Text(f"\n{round_lines(board.rounds)}")
    if board.variants and not shown:
        yield Text(f"\nNone of the {len(board.variants):,} variants meets the conditions.")
    if shown:
        yield Text()
        yield leaderboard_table(board, shown, width=width)
        num_more = len(shown) - NUM_VARIANTS_IN_TERMINAL
        if num_more > 0:
            is_whole = overview.summary is not None and len(shown) == len(board.variants)
            source = "variants.csv" if is_whole else "--csv"
            yield Text(f"... and {num_more:,} more ({source})", style="dim")
    yield Text(f"\n{explain(board)}\n")
    for warning in overview.data_warnings:
        yield Text(f"Warning: {warning}", style="yellow")
    for task in overview.model_tasks:
        yield Text(f"Model: {task}.\n")
    if board.selection is not None and board.variants[0].test_confusion_matrix is not None:
        yield confusion_table(board.variants[0], overview.class_names, width=width)
    if lines := saved_sentences(overview.summary):
        yield Text("\n" + "\n".join(lines))
    yield from _problem_lines(overview)


def rounds_renderables(overview: Overview, *, width: int) -> Iterator[RenderableType]:
    """The rounds of a run, and the variants that were dropped, those that went furthest first.

    Args:
        overview: The run.
        width: Columns of the terminal.

    Raises:
        InputError: The run has no rounds.
    """
    board = overview.leaderboard
    if board.rounds is None:
        raise InputError(f"{overview.folder}: has no rounds: its job has no search.rounds")
    yield Text(round_lines(board.rounds))
    yield Text()
    if board.rounds.dropped:
        yield _dropped_table(board.rounds.dropped, board.metric, width)
    else:
        yield Text("No variant was dropped.")


def _dropped_table(dropped: Sequence[DroppedVariant], metric: str, width: int) -> Table:
    """A table of dropped variants; a narrow terminal leaves out the last parameters."""
    columns = dropped_columns(dropped, metric)
    if fits(columns, width):
        return plain_table(columns)
    folded = [column.with_folded_header() for column in columns]
    return _captioned(_narrowed(folded, width), columns)


def _problem_lines(overview: Overview) -> Iterator[Text]:
    if overview.problems:
        yield Text()
    for problem in overview.problems[:_NUM_PROBLEMS_SHOWN]:
        reason = f": {reason_of(problem.error)}" if problem.error.strip() else ""
        line = f"{problem.variant_id} seed {problem.seed} {problem.status}{reason}"
        yield Text(line, style="red" if problem.status == "failed" else "yellow")
        if where := place_of(problem.error):
            yield Text(f"  {where}", style="dim")
    num_more = overview.num_problems - _NUM_PROBLEMS_SHOWN
    if num_more > 0:
        yield Text(f"... and {num_more:,} more (trials/)", style="dim")


def leaderboard_table(
    leaderboard: Leaderboard, shown: Sequence[VariantSummary], *, width: int
) -> Table:
    """A table of the first 20 variants: parameters, n, selection metric, other metrics.

    A wide terminal shows mean ± sd of every metric, also in training. A narrow one leaves out, in
    this order: training metrics, headers on one line, metrics down to three (losses first), the sd
    of all metrics but the selection metric, metrics down to one, and the last parameters.

    Args:
        leaderboard: The leaderboard, whose winner is printed bold.
        shown: At least one of its variants.
        width: Columns of the terminal.
    """
    variants = shown[:NUM_VARIANTS_IN_TERMINAL]
    for columns in _layouts(leaderboard, variants):
        if fits(columns, width):
            break
    else:
        columns = _narrowed(columns, width)
    metrics = [name for name in ordered_metrics(leaderboard) if not name.startswith("train_")]
    every = [metric_column(name, variants, with_sd=False) for name in metrics]
    table = _captioned(columns, [*identity_columns(variants), *every])
    for variant, row in zip(variants, table.rows, strict=True):
        if leaderboard.selection is not None and variant.rank == 1:
            row.style = "bold"
    return table


def _narrowed(columns: Sequence[TextColumn], width: int) -> list[TextColumn]:
    """The columns without as many of the last parameters as have no room.

    Long texts are broken into lines.
    """
    parameters = [column for column in columns if column.is_parameter]
    for num_kept in range(len(parameters), -1, -1):
        left_out = parameters[num_kept:]
        kept = [column for column in columns if column not in left_out]
        room = width - _GAP * (len(kept) - 1)
        if sum(one.width if one.is_number else min(one.width, _TEXT) for one in kept) <= room:
            break
    return kept


def _captioned(columns: Sequence[TextColumn], every: Sequence[TextColumn]) -> Table:
    """A table of the columns; its caption says what it lacks of every column that there is."""
    table = plain_table(columns)
    shown, whole = (Counter(one.is_parameter for one in some) for some in (columns, every))
    absent = [
        what
        for what, is_parameter in (("metrics", False), ("parameters", True))
        if shown[is_parameter] < whole[is_parameter]
    ]
    if absent:
        caption = f"A wider terminal shows more {' and '.join(absent)}."
        table.caption = Text(caption, style="dim")
        table.caption_justify = "left"
    return table


def fits(columns: Sequence[TextColumn], width: int) -> bool:
    """Whether the columns fit side by side into a terminal of `width` columns."""
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1) <= width


def plain_table(columns: Sequence[TextColumn]) -> Table:
    """A table of the columns under a line; nothing in them is taken for markup."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for column in columns:
        table.add_column(
            # Text, not str, here and below, so that a name with brackets is not taken for markup.
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
) -> Iterator[list[TextColumn]]:
    """Layouts of the leaderboard's columns, from the widest to the narrowest."""
    names = ordered_metrics(leaderboard)
    main = [name for name in names if not name.startswith("train_")]
    identity = identity_columns(variants)
    spreads = {name: metric_column(name, variants, with_sd=True) for name in names}
    means = {
        name: metric_column(name, variants, with_sd=name == leaderboard.metric) for name in main
    }
    yield [*identity, *spreads.values()]
    yield [*identity, *(spreads[name] for name in main)]
    by_need = _by_need(main, leaderboard.metric)
    for metrics, least in ((spreads, 3), (means, 1)):
        for num_kept in range(len(main), least - 1, -1):
            kept = [metrics[name] for name in main if name in by_need[:num_kept]]
            yield [column.with_folded_header() for column in (*identity, *kept)]


def _by_need(names: Sequence[str], metric: str) -> list[str]:
    """Metrics by importance: the selection metric first, test before validation, losses last."""
    bases = list(dict.fromkeys(name.split("_", 1)[1] for name in names))

    def need(name: str) -> tuple[bool, bool, int, bool]:
        part, base = name.split("_", 1)
        return name != metric, base == "loss", bases.index(base), part == "val"

    return sorted(names, key=need)


def confusion_table(
    variant: VariantSummary, class_names: Sequence[str], *, width: int
) -> RenderableType:
    """The pooled test confusion matrix of a variant, with the recall of each class.

    Args:
        variant: A variant that has a test confusion matrix.
        class_names: Empty if the data has none.
        width: Columns of the terminal; if there are too many classes for it, one line replaces the
            table.
    """
    matrix = variant.test_confusion_matrix
    assert matrix is not None
    seeds = pooled_text(variant.num_completed)
    title = f"Test set, {variant.variant_id}, {seeds}: accuracy {accuracy(matrix):.2%}"
    for columns in _confusion_layouts(matrix, class_labels(class_names, len(matrix))):
        if fits(columns, width):
            return Group(Text(title), plain_table(columns))
    return Text(f"{title}; {len(matrix)} classes: see figures/confusion_matrix.png")


def _confusion_layouts(matrix: Counts, names: Sequence[str]) -> Iterator[list[TextColumn]]:
    """Layouts of a confusion matrix: headed by names of classes, or, if narrower, by numbers."""
    numbered = [f"{number} {name}" for number, name in enumerate(names)]
    numbers = [str(number) for number in range(len(names))]
    recalls = ["n/a" if isnan(rate) else f"{rate:.1%}" for rate in matrix_scores(matrix).recall]
    for rows, headers in ((names, names), (numbered, numbers)):
        predicted = zip(headers, matrix.T.tolist(), strict=True)
        yield [
            TextColumn("true \\ predicted", tuple(rows), is_number=False),
            *(
                TextColumn(name, tuple(f"{count:,}" for count in counts))
                for name, counts in predicted
            ),
            TextColumn("recall", tuple(recalls)),
        ]
